"""Limits of the machine: open files, shared memory, and what counts as out of memory."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detector.config import Config
from detector.engine import machine
from detector.engine.machine import is_out_of_memory, raise_file_limit, workers_that_fit
from tests.tiny import tiny_classifier_config, tiny_config

# A batch of two images of 3 x 64 x 100 bytes, three times for each worker: two prepared ahead and one in use.
BYTES_A_WORKER = 2 * 3 * 64 * 100 * 3


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, although a command may have taken the log for itself."""
    monkeypatch.setattr(logging.getLogger("detector"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def with_workers(count: int) -> Config:
    return tiny_config(f"data.workers={count}")


def fitting(monkeypatch: pytest.MonkeyPatch, free: int, workers: int = 4) -> int:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    return workers_that_fit(with_workers(workers), 2, Path())


# Shared memory


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (10**9, 4),
        (4 * BYTES_A_WORKER, 4),
        (4 * BYTES_A_WORKER - 1, 3),
        (2 * BYTES_A_WORKER, 2),
        (BYTES_A_WORKER - 1, 0),
        (0, 0),
    ],
)
def test_there_are_as_many_workers_as_shared_memory_holds(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: int
) -> None:
    assert fitting(monkeypatch, free) == expected


def test_fewer_workers_come_with_a_warning(monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture) -> None:
    fitting(monkeypatch, 2 * BYTES_A_WORKER)
    (record,) = told.records
    assert record.levelno == logging.WARNING
    assert "4 workers" in record.getMessage()
    assert "using 2" in record.getMessage()
    assert "--shm-size" in record.getMessage()
    assert record.getMessage().isprintable()


def test_enough_shared_memory_needs_no_words(monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture) -> None:
    fitting(monkeypatch, 10**9)
    assert not told.records


def test_without_workers_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitting(monkeypatch, free=0, workers=0) == 0


def test_where_there_is_no_such_folder_all_workers_are_used(tmp_path: Path) -> None:
    assert workers_that_fit(with_workers(3), 2, tmp_path / "nowhere") == 3


def test_larger_micro_batches_need_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * BYTES_A_WORKER))
    assert workers_that_fit(with_workers(4), 4, Path()) == 2


@pytest.mark.parametrize(("spare", "expected"), [(0, 4), (-1, 3)])
def test_workers_of_a_classifier_hand_over_squares(monkeypatch: pytest.MonkeyPatch, spare: int, expected: int) -> None:
    # Eight squares of 3 x 24 x 24 bytes, three times for each of four workers.
    free = 4 * 8 * 3 * 24 * 24 * 3 + spare
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    config = tiny_classifier_config("data.workers=4", "data.crop.size=24")
    assert workers_that_fit(config, 8, Path()) == expected


# Open files


class Limits:
    """A stand-in for the system's module of limits."""

    RLIMIT_NOFILE = 7

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.now = (soft, hard)
        self.refuses = refuses

    def getrlimit(self, kind: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise ValueError("not allowed")
        self.now = limits


@pytest.mark.parametrize(("refuses", "expected"), [(False, (4096, 4096)), (True, (1024, 4096))])
def test_the_limit_of_open_files_is_raised_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch, refuses: bool, expected: tuple[int, int]
) -> None:
    limits = Limits(1024, 4096, refuses)
    monkeypatch.setattr(machine, "resource", limits)
    raise_file_limit()
    assert limits.now == expected


def test_a_system_without_limits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "resource", None)
    raise_file_limit()


# Memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("x"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_torchs_own_error_about_memory_counts() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
