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
from typing import Any

import pytest

from detector.engine.checkpoint import iteration_of, list_checkpoints
from tests.conftest import ROOT
from tests.reliability.runs import AUGMENTATIONS, differences, outcome
from tests.tiny import write_tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux: forks, and looks for threads"),
]

KILLS = {"fp32": 5, "bf16": 5, "fp16": 2}
FULL_LENGTH = 17
LONGEST_SAVE_S = 0.04
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

    def attempt(self, arguments: list[str], console: Path, stop: dict[str, Any] | None = None) -> tuple[int, float]:
        """Exit code and seconds of a training, ended by a signal unless it ends before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"arguments": arguments, "console": str(console), "stop": stop}
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


def _draw_stop(draws: random.Random, checkpoints: Path, seconds: float) -> dict[str, Any]:
    """Where to stop an attempt: at any moment, or, one in three, inside the next save after it.

    Args:
        draws: decide.
        checkpoints: the folder of the run's.
        seconds: that a whole run takes.
    """
    done = max(map(iteration_of, list_checkpoints(checkpoints)), default=0)
    return {
        "number": draws.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [8, 1, 1])[0],
        "moment": draws.uniform(0, seconds * max(0.2, 1 - done / ITERATIONS)),
        "folder": str(checkpoints) if draws.random() < 1 / 3 else "",
        "delay": draws.uniform(0, LONGEST_SAVE_S),
    }


def _run_with_stops(
    server: ForkServer, folder: Path, options: list[str], seconds: float, draws: random.Random
) -> list[Stop]:
    """Stops a run two to four times, then lets it finish.

    Args:
        server: starts the attempts.
        folder: a new one.
        options: settings.
        seconds: that a whole run takes.
        draws: decide about numbers of workers, signals and moments.
    """
    folder.mkdir()
    checkpoints, console = folder / "run" / "checkpoints", folder / "console.txt"
    stops: list[Stop] = []
    wanted, code = draws.choice([2, 3, 4]), -1
    while code != 0:
        stop = _draw_stop(draws, checkpoints, seconds) if len(stops) < wanted else None
        arguments = _arguments(folder, *options, f"data.workers={draws.choice([0, 1, 2])}")
        code, took = server.attempt(arguments, console, stop)
        story = f"{arguments[-3]}, {stop}: {code} after {took:.3f} s"
        assert code in (EXPECTED[stop["number"]] if stop else {0}), f"{stops}, {story}\n{console.read_text()}"
        if stop and code != 0:
            stops.append(Stop(stop["number"], any(checkpoints.glob(".tmp-step-*")), story))
    return stops


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("precision", KILLS)
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
    kills: list[Stop] = []
    runs, differing = 0, ""
    while len(kills) < KILLS[precision] * (FULL_LENGTH if full else 1):
        folder = tmp_path / "stopped"
        made = _run_with_stops(server, folder, options, seconds, draws)
        if found := differences(expected, outcome(folder / "run")):
            differing += f"\n{[stop.story for stop in made]}: {len(found)} differences, such as {found[:3]}"
        shutil.rmtree(folder)
        if len(made) >= 2:  # else it was faster than the signals
            runs, stops = runs + 1, stops + made
            kills = [stop for stop in stops if stop.number == signal.SIGKILL]
    inside = sum(stop.inside_a_save for stop in kills)
    tally = f"{precision}: {runs} runs, {len(kills)} kills, {inside} inside a save, {len(stops) - len(kills)} signals"
    print(tally)
    assert not differing, f"{tally}; runs that ended otherwise:{differing}"
