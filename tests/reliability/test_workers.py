"""Loader workers that die, hang or run out of something: one line that says so, at once, and nothing left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import get_worker_info

from detector.cli import train
from detector.data.loader import EvaluationBatches, TrainingBatches, iterate
from detector.data.shapes import ShapesDataset
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from detector.errors import (
    ConfigError,
    DatasetError,
    DetectorError,
    ImageError,
    MachineError,
    WeightsError,
    WorkerError,
)
from detector.models import resnet
from detector.structures import Sample
from tests.conftest import ROOT
from tests.reliability.commands import Outcome, run
from tests.reliability.lossy_loading import SHAPES, Failing, evaluation_of, left_over, training_on
from tests.reliability.runs import NARROW
from tests.tiny import write_tiny

CPU = torch.device("cpu")
MAX_LINE = 400
WORKERS = 2
AHEAD = 2 * WORKERS  # batches that workers prepare before they are asked for
_MOUNT = ["unshare", "--user", "--map-root-user", "--mount"]

Making = Callable[[Any], EvaluationBatches | TrainingBatches]


def consume(batches: EvaluationBatches | TrainingBatches, pause: float = 0.0, timeout: int = 60) -> None:
    """Takes all batches, and computes on each for some seconds."""
    for _ in iterate(batches, range(20), WORKERS, CPU, timeout):
        finished = time.monotonic() + pause
        while time.monotonic() < finished:
            pass


def assert_is_one_line(error: DetectorError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) <= MAX_LINE


@pytest.fixture
def new_leftovers() -> Callable[[], list[str]]:
    """What this test has left behind so far."""
    before = set(left_over())
    return lambda: [item for item in left_over() if item not in before]


Leftovers = Callable[[], list[str]]


# Workers that die


@pytest.mark.timeout(300)
@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["idle", "computing"])
@pytest.mark.parametrize("fault", ["kill", "segfault", "exit"])
def test_a_worker_that_dies_is_told_in_one_line(new_leftovers: Leftovers, fault: str, pause: float, full: bool) -> None:
    for repetition in range(20 if full else 3):
        index = 5 + repetition % 10
        with pytest.raises(WorkerError) as caught:
            consume(evaluation_of(Failing(index, fault)), pause)
        assert caught.value.exit_code == 5
        assert_is_one_line(caught.value)
        assert "data.workers" in str(caught.value)
        named = re.search(r"shapes_0_(\d{6})\.png", str(caught.value))
        assert named is not None
        assert index - AHEAD <= int(named[1]) <= index
        assert new_leftovers() == []


def test_a_worker_that_is_killed_is_said_to_lack_memory_perhaps() -> None:
    with pytest.raises(WorkerError, match="perhaps for lack of memory"):
        consume(evaluation_of(Failing(7, "kill")))


def test_all_workers_may_die(new_leftovers: Leftovers) -> None:
    class AllFail(Failing):
        def __getitem__(self, index: int) -> Sample:
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

    with pytest.raises(WorkerError):
        consume(evaluation_of(AllFail(0, "kill")))
    assert new_leftovers() == []


def test_batches_can_be_loaded_after_a_loss() -> None:
    with pytest.raises(WorkerError):
        consume(evaluation_of(Failing(7, "kill")))
    assert len(list(iterate(evaluation_of(SHAPES), range(5), WORKERS, CPU, 60))) == 5


def test_a_worker_that_dies_does_not_interrupt_what_is_computed() -> None:
    # The worker gets this batch when the first is taken.
    batches = iterate(evaluation_of(Failing(AHEAD, "kill")), range(20), WORKERS, CPU, 60)
    next(batches)
    finished = time.monotonic() + 1.0
    while time.monotonic() < finished:
        pass
    with pytest.raises(WorkerError):
        list(batches)


# Workers that hang


@pytest.mark.timeout(400)
def test_a_worker_that_hangs_is_told_in_one_line(new_leftovers: Leftovers, full: bool) -> None:
    for repetition in range(20 if full else 1):
        index, started = 5 + repetition % 10, time.monotonic()
        with pytest.raises(WorkerError) as caught:
            consume(evaluation_of(Failing(index, "hang")), timeout=1)
        assert time.monotonic() - started < 1 + 10
        assert_is_one_line(caught.value)
        assert f"gave nothing for 1 s while preparing shapes_0_{index:06d}.png" in str(caught.value)
        assert "data.worker_timeout" in str(caught.value)
        assert new_leftovers() == []


def test_a_slow_computation_is_no_worker_that_hangs() -> None:
    batches = iterate(evaluation_of(SHAPES), range(10), WORKERS, CPU, 1)
    next(batches)
    time.sleep(1.5)
    assert len(list(batches)) == 9


# Errors inside workers


@pytest.mark.parametrize("making", [evaluation_of, training_on])
@pytest.mark.parametrize("error", [ValueError, KeyError, AssertionError, ZeroDivisionError])
def test_a_bug_stays_a_traceback(new_leftovers: Leftovers, error: type[Exception], making: Making) -> None:
    with pytest.raises(error, match="Original Traceback") as caught:
        consume(making(Failing(7, error("mine"))))
    assert "lossy_loading.py" in str(caught.value)
    assert new_leftovers() == []


@pytest.mark.parametrize("making", [evaluation_of, training_on])
@pytest.mark.parametrize("kind", [ImageError, DatasetError, ConfigError, MachineError, WeightsError])
def test_an_error_of_ours_arrives_as_it_was_raised(
    new_leftovers: Leftovers, kind: type[DetectorError], making: Making
) -> None:
    with pytest.raises(kind) as caught:
        consume(making(Failing(7, kind("x.png: mine"))))
    assert str(caught.value) == "x.png: mine"
    assert type(caught.value) is kind
    assert new_leftovers() == []


# By the command


@pytest.fixture
def lost_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """A training of which a worker is killed, the first time that it reads the image at position 15."""
    if multiprocessing.get_start_method() != "fork":
        pytest.skip("workers start from scratch here, and know nothing of what this test alters")
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)
    read, config = ShapesDataset.__getitem__, write_tiny(tmp_path)
    index = training_on(ShapesDataset(12, 0, SHAPES.size, hard=False)).order.index(15)
    seen = tmp_path / "seen"

    def lethal(self: ShapesDataset, wanted: int) -> Sample:
        if wanted == index and get_worker_info() is not None:
            with open(seen, "ab") as file:
                file.write(b"x")
            # Each image comes once in six batches: this is the second time.
            if seen.stat().st_size == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return read(self, wanted)

    monkeypatch.setattr(ShapesDataset, "__getitem__", lethal)
    options = ["data.workers=2", "training.iterations=12", "training.evaluate_every=0", "training.checkpoint_every=0"]
    return lambda: run(train.main, config, *options, "device=cpu", "--output", tmp_path / "run")


def test_a_training_that_lost_a_worker_ends_with_one_line_and_its_state(
    lost_worker: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = lost_worker()
    assert outcome.code == 5
    (line,) = outcome.errors
    assert "a loader worker was lost" in line
    assert "Traceback" not in outcome.err
    (checkpoint,) = list_checkpoints(tmp_path / "run/checkpoints")
    assert 0 < load_checkpoint(checkpoint).iteration < 12


def test_a_training_that_lost_a_worker_goes_on(lost_worker: Callable[..., Outcome], tmp_path: Path) -> None:
    lost_worker()
    outcome = lost_worker()
    assert outcome.code == 0
    assert "going on after iteration" in outcome.err


# A machine that is short of something


def scarce(folder: Path, what: str, *before: str) -> tuple[dict[str, Any], str]:
    """What came of loading, and what was written to stderr meanwhile."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "tests.reliability.lossy_loading", what],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts of open files are known for Linux only")
def test_too_few_open_files_are_told_in_one_line(tmp_path: Path) -> None:
    results, errors = scarce(tmp_path, "60")
    found = results["load"]
    assert (found["kind"], found["code"]) == ("MachineError", 3)
    assert "too many open files" in found["message"]
    assert "ulimit" in found["message"]
    assert "data.workers" in found["message"]
    assert found["seconds"] < 10
    assert found["left"] == []
    assert errors == ""


@pytest.fixture(scope="module")
def little_memory(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """What came of loading, training and evaluating with 4 MiB of shared memory."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", "/dev/shm"]
    try:
        subprocess.run([*_MOUNT, *mount], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no shared memory can be mounted here ({error})")
    command = f'{" ".join(mount)} && exec "$@"'
    return scarce(tmp_path_factory.mktemp("memory"), "shared memory", *_MOUNT, "sh", "-c", command, "sh")


def test_too_little_shared_memory_is_told_in_one_line(little_memory: tuple[dict[str, Any], str]) -> None:
    found = little_memory[0]["load"]
    assert (found["kind"], found["code"]) == ("MachineError", 3)
    assert "shared memory (/dev/shm) is too small" in found["message"]
    assert "data.workers" in found["message"]
    assert "--shm-size" in found["message"]
    assert found["message"].isprintable()
    assert found["seconds"] < 10
    assert found["left"] == []


def test_a_training_uses_as_many_workers_as_fit(little_memory: tuple[dict[str, Any], str]) -> None:
    found = little_memory[0]["train"]
    assert found["code"] == 0, found["errors"]
    (warning,) = [line for line in found["errors"] if line.startswith("warning: /dev/shm has ")]
    assert "using 0" in warning


def test_an_evaluation_uses_as_many_workers_as_fit(little_memory: tuple[dict[str, Any], str]) -> None:
    found = little_memory[0]["evaluate"]
    assert found["code"] == 0, found["errors"]
    assert any(line.startswith("warning: /dev/shm has ") for line in found["errors"])


def test_too_little_shared_memory_leaves_no_traceback(little_memory: tuple[dict[str, Any], str]) -> None:
    assert "Traceback" not in little_memory[1]
