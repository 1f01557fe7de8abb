"""A disk that is full, read-only or taken away costs no checkpoint, and a run's folder has one owner."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detector.cli import train
from detector.engine import lock
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from detector.engine.lock import RunLock
from detector.engine.trainer import Trainer
from detector.models import resnet
from tests.conftest import ROOT
from tests.reliability.runs import NARROW
from tests.tiny import write_tiny

_MOUNT = ["unshare", "--user", "--map-root-user", "--mount"]


@dataclass(frozen=True)
class Scene:
    """A training on a bad disk, and what is left of it.

    Attributes:
        code: exit code.
        errors: lines on stderr.
        whole: iterations of its checkpoints, all of which load.
        names: everything in its folder.
        logged: iterations in metrics.jsonl.
    """

    code: int
    errors: list[str]
    whole: list[int]
    names: list[str]
    logged: list[int]

    def lines(self, start: str) -> list[str]:
        return [line for line in self.errors if line.startswith(start)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    """What happened on a small disk."""
    try:
        subprocess.run([*_MOUNT, "mount", "-t", "tmpfs", "none", "/mnt"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk can be mounted here ({error})")
    done = subprocess.run(
        [*_MOUNT, sys.executable, "-m", "tests.reliability.small_disk"],
        cwd=tmp_path_factory.mktemp("disk"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: Scene(**scene) for name, scene in json.loads(done.stdout).items()}


def test_a_save_that_does_not_fit_is_told_and_training_goes_on(scenes: dict[str, Scene]) -> None:
    scene = scenes["third does not fit"]
    warnings = scene.lines("warning: ")
    assert len(warnings) == 2
    for iteration, line in zip((3, 4), warnings, strict=True):
        assert f"checkpoints/step-{iteration:09d}: the checkpoint cannot be written: No space left on device" in line
        assert line.endswith("training goes on and tries again; make room")
    assert scene.logged[:5] == [1, 2, 3, 4, 5]


def test_the_third_save_in_a_row_that_fails_ends_the_run_with_one_line(scenes: dict[str, Scene]) -> None:
    scene = scenes["third does not fit"]
    assert scene.code == 3
    (line,) = scene.lines("error: ")
    assert "checkpoints/step-000000005: the checkpoint cannot be written: No space left on device (it needs " in line
    assert line.endswith("3 tries failed; make room, then start again")


@pytest.mark.parametrize("name", ["third does not fit", "last does not fit", "started again on the full disk"])
def test_a_full_disk_leaves_the_older_checkpoints_whole(scenes: dict[str, Scene], name: str) -> None:
    assert scenes[name].whole == [1, 2]


@pytest.mark.parametrize("name", ["third does not fit", "last does not fit", "full to the last byte"])
def test_a_full_disk_leaves_nothing_half_written(scenes: dict[str, Scene], name: str) -> None:
    assert not [path for path in scenes[name].names if "tmp" in path or "trash" in path or "probe" in path]


def test_a_run_whose_last_save_does_not_fit_has_not_succeeded(scenes: dict[str, Scene]) -> None:
    scene = scenes["last does not fit"]
    assert scene.code == 3
    assert "model_final.safetensors" not in scene.names
    (line,) = scene.lines("error: ")
    assert "make room, then start again" in line


def test_the_last_save_does_not_claim_tries_that_were_not_made(scenes: dict[str, Scene]) -> None:
    (line,) = scenes["last does not fit"].lines("error: ")
    assert "3 tries" not in line


def test_a_run_goes_on_when_there_is_room_again(scenes: dict[str, Scene]) -> None:
    scene = scenes["started again with room"]
    assert scene.code == 0
    assert "going on after iteration 2" in scene.errors
    assert scene.whole == [1, 2, 3]


def test_a_run_for_which_room_is_made_in_time_ends_well(scenes: dict[str, Scene]) -> None:
    scene = scenes["room is made"]
    assert scene.code == 0
    assert len(scene.lines("warning: ")) in (1, 2)
    assert scene.whole[-1] == 5
    assert scene.logged == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["full to the last byte", "full from the start"])
def test_a_disk_without_a_free_byte_gives_an_error_line_and_no_traceback(scenes: dict[str, Scene], name: str) -> None:
    scene = scenes[name]
    assert scene.code == 3
    assert len(scene.lines("error: ")) == 1
    assert not [line for line in scene.errors if "Traceback" in line or line.startswith(" ")]


def test_a_disk_that_is_full_from_the_start_is_named(scenes: dict[str, Scene]) -> None:
    (line,) = scenes["full from the start"].lines("error: ")
    assert "/disk/run" in line
    assert "make room" in line


@pytest.mark.parametrize("name", ["read-only", "below a read-only folder"])
def test_a_read_only_folder_is_refused_at_once(scenes: dict[str, Scene], name: str) -> None:
    scene = scenes[name]
    assert scene.code == 3
    (line,) = scene.errors
    assert line.startswith("error: ")
    assert "the run's folder cannot be written to (Read-only file system); choose another --output" in line


@pytest.fixture
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)


@pytest.mark.parametrize("output", ["file", "file/run"])
def test_a_file_in_place_of_the_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train.main([str(write_tiny(tmp_path)), "--output", output]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {output}: the run's folder cannot be written to (")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("_narrow")
def test_a_file_in_place_of_the_checkpoints_ends_the_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(write_tiny(tmp_path)), "training.evaluate_every=0", "--output", "run"]
    assert train.main([*arguments, "training.iterations=1"]) == 0
    shutil.rmtree("run/checkpoints")
    Path("run/model_final.safetensors").unlink()
    Path("run/checkpoints").write_text("a file")
    capsys.readouterr()
    assert train.main([*arguments, "training.iterations=1"]) == 3
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert "run/checkpoints" in line


def test_a_folder_that_is_deleted_in_a_training_gives_warnings_and_no_traceback(scenes: dict[str, Scene]) -> None:
    scene = scenes["deleted"]
    assert scene.code == 0
    assert scene.lines("warning: ")
    assert not [line for line in scene.errors if "Traceback" in line or "Exception in thread" in line]


# What TensorBoard's thread says of it is for the test above.
_THREADS = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Deletion:
    """A run whose folder is deleted before its fourth iteration of eight."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "run"
        self._command = [
            str(write_tiny(folder)), "training.iterations=8", "training.checkpoint_every=2",
            "training.evaluate_every=0", "--output", str(self.path),
        ]  # fmt: skip
        update = Trainer._update

        def delete_at_four(trainer: Trainer, *arguments: Any) -> Any:
            while trainer.iteration == 3 and self.path.exists():  # a checkpoint may be written meanwhile
                shutil.rmtree(self.path, ignore_errors=True)
            return update(trainer, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_update", delete_at_four)
            self.code = self.train()

    def train(self) -> int:
        return train.main(self._command)


@pytest.fixture
def deletion(_narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deletion:
    return Deletion(tmp_path, monkeypatch)


@_THREADS
def test_a_folder_that_is_deleted_in_a_training_is_made_again(deletion: Deletion) -> None:
    assert deletion.code == 0
    assert [load_checkpoint(path).iteration for path in list_checkpoints(deletion.path / "checkpoints")] == [6, 8]
    assert (deletion.path / "model_final.safetensors").exists()


@_THREADS
def test_a_run_whose_folder_was_deleted_can_be_gone_on_with(
    deletion: Deletion, capsys: pytest.CaptureFixture[str]
) -> None:
    (deletion.path / "model_final.safetensors").unlink()
    shutil.rmtree(deletion.path / "checkpoints" / "step-000000008")
    assert deletion.train() == 0, capsys.readouterr().err
    assert "going on after iteration 6" in capsys.readouterr().err


_HOLDER = """
import os, sys, time
from pathlib import Path
from detector.engine.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(600)
"""


@dataclass
class Holder:
    """A process that holds a run's folder, and a child that it has forked since."""

    process: subprocess.Popen[str]
    child: int

    @property
    def child_lives(self) -> bool:
        with suppress(ProcessLookupError):
            os.kill(self.child, 0)
            return True
        return False


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture
def holder(run: Path) -> Iterator[Holder]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(run)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        holder = Holder(process, int(process.stdout.readline()))
        yield holder
        process.kill()
        if holder.child_lives:
            os.kill(holder.child, signal.SIGKILL)


def test_a_second_run_in_a_folder_is_refused_with_the_number_of_the_first(
    run: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.1)
    assert train.main([str(write_tiny(run.parent)), "--output", str(run)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: {run}: another process is training in this folder (process {holder.process.pid} on "
    )
    assert line.endswith("wait for it, stop it, or choose another --output")


def test_a_second_run_in_a_folder_touches_nothing(run: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.1)
    before = (run / ".lock").read_bytes()
    assert train.main([str(write_tiny(run.parent)), "--output", str(run)]) == 3
    assert [path.name for path in run.iterdir()] == [".lock"]
    assert (run / ".lock").read_bytes() == before


def test_a_folder_is_free_as_soon_as_its_holder_is_killed_though_a_child_of_it_lives(run: Path, holder: Holder) -> None:
    holder.process.kill()
    holder.process.wait()
    started = time.monotonic()
    with RunLock(run):
        assert time.monotonic() - started < 1
        assert holder.child_lives


def test_a_folder_is_free_as_soon_as_its_holder_is_done_with_it(run: Path) -> None:
    with RunLock(run):
        pass
    code = "import sys; from pathlib import Path; from detector.engine.lock import RunLock; RunLock(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", code, str(run)], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff\xfe", b"[" * 2000])
def test_a_holder_that_has_not_said_who_it_is_keeps_others_out_all_the_same(
    run: Path, holder: Holder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.1)
    (run / ".lock").write_bytes(content)
    assert train.main([str(write_tiny(run.parent)), "--output", str(run)]) == 3
    assert "another process is training in this folder (it has not said which)" in capsys.readouterr().err
