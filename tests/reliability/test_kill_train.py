"""Trainings killed at random moments, and started again until they finish, end as trainings that ran through."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector.engine.checkpoint import iteration_of, list_checkpoints
from tests.conftest import ROOT
from tests.reliability.runs import AUGMENTATIONS, differences, outcome
from tests.tiny import write_tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux: forks, and looks for threads"),
]

# Of each precision.
STOPS, STOPS_FULL = 4, 67
ITERATIONS = 24
# A log line spans checkpoints, evaluations lie between them, and a batch is computed in two parts.
OVERRIDES = (
    f"training.iterations={ITERATIONS}", "training.log_every=3", "training.checkpoint_every=2",
    "training.evaluate_every=5", "training.ema_decay=0.9", "training.micro_batch_size=1", AUGMENTATIONS,
)  # fmt: skip
# A signal that comes before training begins ends the process, one that comes after the end has no effect.
EXPECTED = {
    signal.SIGKILL: {-signal.SIGKILL, 0},
    signal.SIGTERM: {143, -signal.SIGTERM, 0},
    signal.SIGINT: {130, 0},
}


class ForkServer:
    """A process that starts trainings in a moment."""

    def __init__(self) -> None:
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.fork_server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def attempt(
        self, arguments: list[str], console: Path, moment: float | None = None, number: int = signal.SIGKILL
    ) -> tuple[int, float]:
        """Exit code and seconds of a training, stopped at a moment unless it has ended by then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": arguments, "console": str(console), "moment": moment, "number": number}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["seconds"]

    def close(self) -> None:
        self._process.communicate(timeout=60)


@dataclass(frozen=True)
class Stop:
    """An attempt that a signal ended.

    Attributes:
        number: the signal.
        inside_a_save: it left an unfinished checkpoint behind.
        story: the attempt in words.
    """

    number: int
    inside_a_save: bool
    story: str


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    server = ForkServer()
    yield server
    server.close()


def _arguments(folder: Path, *options: str) -> list[str]:
    return [str(write_tiny(folder)), *OVERRIDES, *options, "--output", str(folder / "run")]


def _run_with_stops(
    server: ForkServer, folder: Path, options: list[str], seconds: float, draws: random.Random
) -> list[Stop]:
    """Stops a run two to four times, each time somewhere in what remains of it, and lets it finish.

    Args:
        server: starts the attempts.
        folder: a new one.
        options: settings.
        seconds: that the whole run takes.
        draws: decides about numbers of workers, signals and moments.
    """
    folder.mkdir()
    stops: list[Stop] = []
    wanted, code = draws.choice([2, 3, 4]), -1
    while code != 0:
        done = max(map(iteration_of, list_checkpoints(folder / "run" / "checkpoints")), default=0)
        number = draws.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [8, 1, 1])[0]
        workers = draws.choice([0, 1, 2])
        moment = draws.uniform(0, seconds * max(0.2, 1 - done / ITERATIONS)) if len(stops) < wanted else None
        arguments = _arguments(folder, *options, f"data.workers={workers}")
        code, took = server.attempt(arguments, folder / "console.txt", moment, number)
        story = f"from {done}, {workers} workers, {number.name} after {took:.3f} s of {seconds:.1f}: {code}"
        allowed = {0} if moment is None else EXPECTED[number]
        assert code in allowed, f"{[*stops, story]}\n{(folder / 'console.txt').read_text()}"
        if code != 0:
            stops.append(Stop(number, any((folder / "run").glob("checkpoints/.tmp-step-*")), story))
    return stops


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_runs_stopped_at_random_moments_end_as_one_that_ran_through(
    server: ForkServer, tmp_path: Path, full: bool, precision: str
) -> None:
    options = [f"training.precision={precision}"]
    (tmp_path / "whole").mkdir()
    arguments = _arguments(tmp_path / "whole", *options, "data.workers=0")
    code, seconds = server.attempt(arguments, tmp_path / "whole" / "console.txt")
    assert code == 0, (tmp_path / "whole" / "console.txt").read_text()
    expected = outcome(tmp_path / "whole" / "run")
    draws = random.Random(precision)
    stops: list[Stop] = []
    runs = differing = 0
    report = ""
    while len(stops) < (STOPS_FULL if full else STOPS):
        folder = tmp_path / "stopped"
        made = _run_with_stops(server, folder, options, seconds, draws)
        found = differences(expected, outcome(folder / "run"))
        shutil.rmtree(folder)
        if len(made) >= 2:  # else it was faster than the signals
            runs, stops = runs + 1, stops + made
        if found:
            differing += 1
            report += f"\n{[stop.story for stop in made]}: {len(found)} differences, such as {found[:3]}"
    kills = [stop for stop in stops if stop.number == signal.SIGKILL]
    inside = sum(stop.inside_a_save for stop in kills)
    tally = f"{precision}: {runs} runs, {len(kills)} kills, {inside} inside a save, {len(stops) - len(kills)} signals"
    print(tally)
    assert not differing, f"{tally}, {differing} runs ended otherwise:{report}"
