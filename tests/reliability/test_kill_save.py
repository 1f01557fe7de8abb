"""SIGKILL at a random moment of saving costs no checkpoint that was finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.reliability.saver import KEEP

KILLS = 25
KILLS_FULL = 1000


@dataclass(frozen=True)
class Killing:
    """What was found after each kill, and in the end."""

    kills: list[dict[str, Any]]
    end: dict[str, Any]


def _kill(folder: Path, kills: int) -> Killing:
    command = [sys.executable, "-m", "tests.reliability.saver", str(folder / "checkpoints"), str(kills), "0"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *results, end = (json.loads(line) for line in done.stdout.splitlines())
    return Killing(results, end)


@pytest.fixture(scope="module", params=["disk", "memory"])
def killing(request: pytest.FixtureRequest, full: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killing]:
    """Kills on the disk, and in full length on a file system in memory, too, which has other habits."""
    kills = KILLS_FULL if full else KILLS
    if request.param == "disk":
        yield _kill(tmp_path_factory.mktemp("kills"), kills)
        return
    if not full:
        pytest.skip("only in full length")
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no file system in memory here")
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield _kill(Path(folder), kills)


def test_every_child_was_killed(killing: Killing) -> None:
    assert all(kill["killed"] for kill in killing.kills)


def test_kills_struck_while_a_checkpoint_was_being_written(killing: Killing) -> None:
    assert sum(kill["saving"] for kill in killing.kills) > len(killing.kills) / 4


def test_many_checkpoints_were_finished_between_the_kills(killing: Killing) -> None:
    assert killing.kills[-1]["acknowledged"] > len(killing.kills)


def test_the_newest_acknowledged_checkpoint_loads_after_every_kill(killing: Killing) -> None:
    assert not [kill for kill in killing.kills if not kill["acknowledged"] <= kill["found"] <= kill["acknowledged"] + 1]


def test_what_loads_after_a_kill_is_what_was_saved(killing: Killing) -> None:
    assert all(kill["whole"] for kill in killing.kills)


def test_leftovers_do_not_pile_up(killing: Killing) -> None:
    assert max(kill["folders"] for kill in killing.kills) <= KEEP + 3


def test_the_save_after_the_last_kill_leaves_nothing_but_checkpoints(killing: Killing) -> None:
    assert killing.end["names"] == killing.end["checkpoints"]
    assert len(killing.end["names"]) == KEEP
