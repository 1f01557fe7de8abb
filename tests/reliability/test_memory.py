"""Memory of a training on a data set as large as COCO's: flat arrays, and workers that do not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.reliability.long_loading import WORKERS

# A list of ids would cost a worker 32 bytes an image in the end, one of objects hundreds of megabytes.
SLACK = 1_000_000


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, full: bool) -> dict[str, Any]:
    """What an object and an image cost, and the memory after 100 batches and after many more."""
    if not hasattr(psutil.Process().memory_maps()[0], "private_dirty"):
        pytest.skip("this system does not tell which memory is shared")
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.long_loading", "100", "10000" if full else "500"],
        cwd=tmp_path_factory.mktemp("memory"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def early(measured: dict[str, Any]) -> dict[str, Any]:
    """The memory after 100 batches."""
    return measured["memory"]["100"]


@pytest.fixture
def late(measured: dict[str, Any]) -> dict[str, Any]:
    """The memory after many."""
    return list(measured["memory"].values())[-1]


def test_all_workers_are_measured(early: dict[str, Any], late: dict[str, Any]) -> None:
    assert len(early["workers"]) == len(late["workers"]) == WORKERS


def test_all_processes_together_do_not_grow(early: dict[str, Any], late: dict[str, Any]) -> None:
    sums = [found["main"] + sum(found["workers"]) for found in (early, late)]
    assert sums[1] <= 1.05 * sums[0]


def test_the_main_process_does_not_grow(early: dict[str, Any], late: dict[str, Any]) -> None:
    assert late["main"] <= 1.01 * early["main"]


def test_a_worker_copies_nothing(early: dict[str, Any], late: dict[str, Any]) -> None:
    for before, after in zip(early["workers"], late["workers"], strict=True):
        assert after - before <= SLACK


def test_an_object_costs_fifty_bytes(measured: dict[str, Any]) -> None:
    assert measured["bytes"]["object"] <= 50


def test_an_image_costs_its_name_and_little_else(measured: dict[str, Any]) -> None:
    assert measured["bytes"]["image"] < 50
