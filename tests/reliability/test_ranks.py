"""Two processes under torchrun: killed, signalled, orphaned, launched twice; the run ends as if nothing had been."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
from safetensors.torch import load_file

from detector.data.export import write_coco
from detector.data.shapes import ShapesDataset
from detector.engine.checkpoint import list_checkpoints
from detector.structures import Size
from tests.conftest import ROOT
from tests.tiny import write_tiny

pytestmark = pytest.mark.slow

ITERATIONS = 18
OVERRIDES = (
    f"training.iterations={ITERATIONS}", "training.checkpoint_every=4", "training.evaluate_every=9",
    "training.log_every=3", "training.ema_decay=0.9", "data.workers=1",
)  # fmt: skip
TIMING = {"images_per_second", "data_wait", "memory_mib"}


class Launch:
    """A torchrun with its two ranks."""

    started: ClassVar[list[Launch]] = []

    def __init__(self, folder: Path, *overrides: str, restarts: int = 0) -> None:
        self.run = folder / "run"
        self.log = folder / f"console-{time.monotonic_ns()}.txt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["--max-restarts", str(restarts), str(ROOT / "tools" / "train.py"), str(write_tiny(folder))]
        with open(self.log, "w", encoding="utf-8") as console:
            self.agent = subprocess.Popen(
                [*command, *OVERRIDES, *overrides, "--output", str(self.run)],
                stderr=console, stdout=console, env=dict(os.environ, OMP_NUM_THREADS="1"), cwd=folder,
            )  # fmt: skip
        self.started.append(self)

    def ranks(self) -> list[psutil.Process]:
        """The processes of both ranks, by rank; empty while they start."""
        try:
            children = psutil.Process(self.agent.pid).children()
            found = {int(child.environ()["RANK"]): child for child in children if "RANK" in child.environ()}
        except psutil.Error:
            return []
        return [found[rank] for rank in sorted(found)]

    def wait_for(self, what: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, self.console()
            assert self.agent.poll() is None or what(), self.console()
            time.sleep(0.02)

    def finish(self, seconds: float = 240) -> int:
        return self.agent.wait(timeout=seconds)

    def console(self) -> str:
        return self.log.read_text(encoding="utf-8")


def checkpoints(run: Path) -> list[Path]:
    return list_checkpoints(run / "checkpoints")


def records(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]


def assert_same_end(run: Path, whole: Path) -> None:
    """Weights, average and log are those of the run that was never stopped, bit for bit."""
    assert records(run) == records(whole)
    for name in ("model_final.safetensors", f"checkpoints/step-{ITERATIONS:09d}/model.safetensors"):
        ours, theirs = load_file(run / name), load_file(whole / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """A test that fails leaves no torchrun behind."""
    yield
    for launch in Launch.started:
        if launch.agent.poll() is None:
            launch.agent.kill()
            launch.agent.wait()
    Launch.started.clear()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two processes that nothing disturbed."""
    launch = Launch(tmp_path_factory.mktemp("whole"))
    assert launch.finish() == 0, launch.console()
    return launch.run


def test_a_killed_rank_costs_one_restart_each_time(tmp_path: Path, whole: Path, full: bool) -> None:
    chance = random.Random(0)
    for trial in range(10 if full else 1):
        folder = tmp_path / str(trial)
        folder.mkdir()
        launch = Launch(folder, restarts=2)
        for restarts in range(2):
            kill_a_rank(launch, restarts, chance.randrange(2))
        assert launch.finish() == 0, launch.console()
        assert len(re.findall("going on after iteration", launch.console())) == 2
        assert_same_end(launch.run, whole)


def kill_a_rank(launch: Launch, restarts: int, rank: int) -> None:
    """Once the ranks of that attempt have written a checkpoint of their own."""
    launch.wait_for(lambda: attempt_of(launch) == restarts)
    before = len(launch.console())
    launch.wait_for(lambda: "iteration" in launch.console()[before:] and len(checkpoints(launch.run)) > 0)
    launch.ranks()[rank].kill()


def attempt_of(launch: Launch) -> int:
    """How many restarts there were before the ranks that live now; -1 while there are none."""
    try:
        return int(launch.ranks()[1].environ()["TORCHELASTIC_RESTART_COUNT"])
    except (psutil.Error, IndexError):
        return -1


@pytest.mark.parametrize(
    ("number", "to", "always"),
    [
        (signal.SIGTERM, "agent", True), (signal.SIGINT, "rank", True),
        (signal.SIGINT, "agent", False), (signal.SIGTERM, "rank", False),
    ],
)  # fmt: skip
def test_a_signal_saves_the_same_iteration_everywhere(
    tmp_path: Path, whole: Path, full: bool, number: signal.Signals, to: str, always: bool
) -> None:
    if not (always or full):
        pytest.skip("part of the full length (--full)")
    launch = Launch(tmp_path)
    launch.wait_for(lambda: len(checkpoints(launch.run)) > 0)
    (launch.agent if to == "agent" else launch.ranks()[1]).send_signal(number)
    assert launch.finish() != 0
    notes = [json.loads((launch.run / f"exit-{rank}.json").read_text()) for rank in (0, 1)]
    assert [note["code"] for note in notes] == [128 + number] * 2
    assert notes[0]["iteration"] == notes[1]["iteration"] == int(checkpoints(launch.run)[-1].name[5:])
    again = Launch(tmp_path)
    assert again.finish() == 0, again.console()
    assert f"going on after iteration {notes[0]['iteration']}" in again.console()
    assert_same_end(launch.run, whole)


def test_ranks_save_and_leave_when_their_agent_is_killed(tmp_path: Path, whole: Path) -> None:
    launch = Launch(tmp_path)
    launch.wait_for(lambda: len(checkpoints(launch.run)) > 0)
    ranks = launch.ranks()
    launch.agent.kill()
    launch.agent.wait()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive
    again = Launch(tmp_path)
    assert again.finish() == 0, again.console()
    assert_same_end(launch.run, whole)


def test_a_second_launch_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    launch = Launch(tmp_path, "training.iterations=10000")
    launch.wait_for(lambda: len(checkpoints(launch.run)) > 0)
    second = Launch(tmp_path)
    assert second.finish() != 0
    errors = [line for line in second.console().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"another process is training in this folder (process {launch.ranks()[0].pid} on" in errors[0]
    before = checkpoints(launch.run)[-1]
    launch.wait_for(lambda: checkpoints(launch.run)[-1] != before)
    launch.agent.terminate()
    launch.finish()


def test_an_error_of_one_rank_ends_all_with_its_message(tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_coco(ShapesDataset(12, 0, Size(64, 80), hard=False), images)
    files = sorted((images / "images").iterdir())
    for path in files[5:7]:  # the first and the last are looked at before training
        path.write_bytes(path.read_bytes()[:200])
    data = f"[{{format: coco, images: {images}/images, annotations: {images}/annotations.json}}]"
    launch = Launch(tmp_path, f"data.train={data}")
    began = time.monotonic()
    assert launch.finish() != 0
    assert time.monotonic() - began < 60
    errors = [line for line in launch.console().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert any(path.name in errors[0] for path in files[5:7])
    notes = [json.loads((launch.run / f"exit-{rank}.json").read_text()) for rank in (0, 1)]
    assert [note["code"] for note in notes] == [2, 2]
    assert notes[0]["iteration"] == notes[1]["iteration"]


def test_a_hanging_rank_is_noticed(tmp_path: Path) -> None:
    launch = Launch(tmp_path, "training.process_timeout=5")
    launch.wait_for(lambda: len(checkpoints(launch.run)) > 0)
    launch.ranks()[1].suspend()
    launch.wait_for(lambda: "lost contact to the others" in launch.console(), 60)
    for rank in launch.ranks():
        rank.kill()
    launch.finish()
