"""A damaged checkpoint is noticed, named and passed over; it never enters a training, and nor do leftovers."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from detector.cli import train
from detector.engine.checkpoint import (
    MANIFEST,
    iteration_of,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)
from detector.engine.trainer import Trainer
from detector.errors import WeightsError
from detector.models import resnet
from tests.reliability.runs import NARROW, differences
from tests.reliability.states import is_whole, state_of
from tests.tiny import write_tiny

CUTS = 50
CUTS_FULL = 200
FLIPS = 200
FLIPS_FULL = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The checkpoints of iterations 1 and 2, each with an average."""
    path = tmp_path / "checkpoints"
    for iteration in (1, 2):
        save_checkpoint(path, state_of(iteration))
    return path


@pytest.fixture
def _quiet() -> Iterator[None]:
    """Hundreds of damaged checkpoints are named in warnings."""
    logger = logging.getLogger("detector")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def _cut(content: bytes, draws: random.Random) -> tuple[bytes, str]:
    length = draws.randrange(len(content))
    return content[:length], f"cut to {length} bytes"


def _flip(content: bytes, draws: random.Random) -> tuple[bytes, str]:
    place, bit = draws.randrange(len(content)), draws.randrange(8)
    flipped = bytearray(content)
    flipped[place] ^= 1 << bit
    return bytes(flipped), f"bit {bit} of byte {place} flipped"


def _damages(
    checkpoint: Path, damage: Callable[[bytes, random.Random], tuple[bytes, str]], count: int
) -> Iterator[str]:
    """Damages one file at a time, each as often as the others, and mends it after a look."""
    draws = random.Random(0)
    files = sorted(checkpoint.iterdir())
    for number in range(count):
        path = files[number % len(files)]
        content = path.read_bytes()
        changed, what = damage(content, draws)
        path.write_bytes(changed)
        yield f"{path.name} {what}"
        path.write_bytes(content)


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("damage", [_cut, _flip])
def test_a_damaged_checkpoint_does_not_load(
    folder: Path, full: bool, damage: Callable[[bytes, random.Random], tuple[bytes, str]]
) -> None:
    count = {_cut: (CUTS, CUTS_FULL), _flip: (FLIPS, FLIPS_FULL)}[damage][full]
    _, checkpoint = list_checkpoints(folder)
    refused, wrong = 0, []
    for what in _damages(checkpoint, damage, count):
        try:
            # Some bits of the manifest mean nothing, such as the version of torch that it notes.
            if not is_whole(load_checkpoint(checkpoint)) or MANIFEST not in what:
                wrong.append(f"{what}: loads")
        except WeightsError as error:
            refused += 1
            if not str(error).startswith(f"{checkpoint}: ") or len(str(error).splitlines()) != 1:
                wrong.append(f"{what}: {error}")
    assert not wrong
    assert refused > 0.9 * count


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("damage", [_cut, _flip])
def test_the_checkpoint_before_a_damaged_one_is_taken(
    folder: Path, full: bool, damage: Callable[[bytes, random.Random], tuple[bytes, str]]
) -> None:
    count = {_cut: (CUTS, CUTS_FULL), _flip: (FLIPS, FLIPS_FULL)}[damage][full]
    older, checkpoint = list_checkpoints(folder)
    wrong, taken = [], set()
    for what in _damages(checkpoint, damage, count):
        found = load_newest(folder)
        if found is None or not is_whole(found[1]) or (found[0] == checkpoint and MANIFEST not in what):
            wrong.append(what)
        else:
            taken.add(found[0])
    assert not wrong
    assert older in taken


def test_no_flipped_bit_of_the_manifest_does_harm(folder: Path) -> None:
    _, checkpoint = list_checkpoints(folder)
    path = checkpoint / MANIFEST
    content = path.read_bytes()
    wrong = []
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            try:
                if not is_whole(load_checkpoint(checkpoint)):
                    wrong.append(f"bit {bit} of byte {place}: loads as something else")
            except WeightsError as error:
                if len(str(error).splitlines()) != 1 or not str(error).isprintable():
                    wrong.append(f"bit {bit} of byte {place}: {error!r}")
    assert not wrong


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors", "state.pt", MANIFEST])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    _, checkpoint = list_checkpoints(folder)
    (checkpoint / name).unlink()
    with pytest.raises(WeightsError, match=rf"{checkpoint}: is incomplete \({name} is missing\)$"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "average.safetensors", "state.pt", MANIFEST])
def test_a_folder_in_place_of_a_file_is_no_checkpoint(folder: Path, name: str) -> None:
    _, checkpoint = list_checkpoints(folder)
    (checkpoint / name).unlink()
    (checkpoint / name).mkdir()
    with pytest.raises(WeightsError, match=str(checkpoint)):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", MANIFEST])
def test_what_was_added_to_a_file_is_noticed(folder: Path, name: str) -> None:
    _, checkpoint = list_checkpoints(folder)
    with open(checkpoint / name, "ab") as file:
        file.write(b"more")
    with pytest.raises(WeightsError, match=str(checkpoint)):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", '{"format": 2}', '{"format": 2, "files": []}', '{"format": 2, "files": {"a": 1}}',
     '{"format": 2, "files": {}}', "[" * 100_000, '{"format": 2, "files": {"model.safetensors": {"bytes": 1}}}'],
)  # fmt: skip
def test_a_strange_manifest_is_no_manifest(folder: Path, content: str) -> None:
    _, checkpoint = list_checkpoints(folder)
    (checkpoint / MANIFEST).write_text(content)
    with pytest.raises(WeightsError, match=rf"{checkpoint}: is damaged \(manifest.json cannot be read\)"):
        load_checkpoint(checkpoint)


def test_a_checkpoint_of_another_format_says_which(folder: Path) -> None:
    _, checkpoint = list_checkpoints(folder)
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(manifest | {"format": 3}))
    with pytest.raises(WeightsError, match="written in format 3, this version reads 2"):
        load_checkpoint(checkpoint)


def test_names_that_are_no_checkpoints_are_left_alone(folder: Path) -> None:
    for name in ("step-3", "step-00000000x", "step-000000003.old", "unused-step-000000003", "step-٠٠٠٠٠٠٠٠٣"):
        (folder / name).mkdir()
    (folder / "step-000000004").write_text("a file")
    found = load_newest(folder)
    assert found is not None
    assert found[1].iteration == 2
    assert (folder / "step-000000003.old").exists()


def test_the_newest_is_that_of_most_iterations_whatever_the_dates_say(folder: Path) -> None:
    save_checkpoint(folder, state_of(1_000_000_000))
    save_checkpoint(folder, state_of(999_999_999))
    assert [iteration_of(path) for path in list_checkpoints(folder)] == [1, 2, 999_999_999, 1_000_000_000]


OPTIONS = (
    "training.iterations=6", "training.checkpoint_every=2", "training.evaluate_every=0", "training.keep_checkpoints=3",
    "training.optimizer=sgd", "training.momentum=0",
)  # fmt: skip


class Run:
    """A run of six iterations with a checkpoint after every second one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run"
        self.checkpoints = self.path / "checkpoints"
        self.final = self.path / "model_final.safetensors"
        self._config = write_tiny(folder)

    def train(self, *options: str) -> int:
        return train.main([str(self._config), *OPTIONS, "--output", str(self.path), *options])

    def checkpoint(self, iteration: int) -> Path:
        return self.checkpoints / f"step-{iteration:09d}"

    def spoil(self, *iterations: int) -> None:
        """Flips a bit in the weights of checkpoints."""
        for iteration in iterations:
            path = self.checkpoint(iteration) / "model.safetensors"
            content = bytearray(path.read_bytes())
            content[-100] ^= 1
            path.write_bytes(content)

    def files(self) -> dict[str, int]:
        """Its checkpoints and logged iterations: sizes by path."""
        found = [path for path in self.checkpoints.rglob("*") if path.is_file()] + [self.path / "metrics.jsonl"]
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in found}


@pytest.fixture(scope="module")
def _narrow() -> Iterator[None]:
    """Weights of less than a megabyte."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", NARROW)
        yield


@pytest.fixture(scope="module")
def finished(_narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing has stopped."""
    run = Run(tmp_path_factory.mktemp("finished"))
    assert run.train() == 0
    return run


@pytest.fixture
def stopped(finished: Run, tmp_path: Path) -> Run:
    """A run as a kill in the sixth iteration leaves it, with the checkpoints of iterations 2 and 4."""
    run = Run(tmp_path)
    shutil.copytree(finished.path, run.path)
    shutil.rmtree(run.checkpoint(6))
    run.final.unlink()
    return run


def _lines(capsys: pytest.CaptureFixture[str], word: str) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if word in line]


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    stopped: Run, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped.spoil(4)
    assert stopped.train() == 0
    errors = capsys.readouterr().err
    assert "going on after iteration 2" in errors
    assert not differences(load_file(stopped.final), load_file(finished.final))


def test_a_damaged_checkpoint_is_named_once(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    stopped.spoil(4)
    assert stopped.train() == 0
    (line,) = _lines(capsys, "is damaged")
    damaged = stopped.checkpoint(4)
    assert line == f"warning: {damaged}: model.safetensors is damaged (its checksum differs); passed over"


def test_a_damaged_checkpoint_is_replaced_in_time(stopped: Run) -> None:
    stopped.spoil(4)
    assert stopped.train() == 0
    assert [load_checkpoint(path).iteration for path in list_checkpoints(stopped.checkpoints)] == [2, 4, 6]


def test_a_run_whose_checkpoints_are_all_damaged_is_not_started_anew(
    stopped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped.spoil(2, 4)
    before = stopped.files()
    assert stopped.train() == 2
    (line,) = _lines(capsys, "error: ")
    assert str(stopped.checkpoints) in line
    assert stopped.files() == before


def test_a_damaged_checkpoint_that_is_named_is_refused(stopped: Run, capsys: pytest.CaptureFixture[str]) -> None:
    stopped.spoil(4)
    before = stopped.files()
    assert stopped.train("--resume", str(stopped.checkpoint(4))) == 2
    (line,) = _lines(capsys, "error: ")
    assert line.startswith(f"error: {stopped.checkpoint(4)}: model.safetensors is damaged")
    assert stopped.files() == before


def test_going_on_from_an_earlier_checkpoint_twice_works_twice(stopped: Run) -> None:
    for _ in range(2):
        assert stopped.train("--resume", str(stopped.checkpoint(2))) == 0
        assert [load_checkpoint(path).iteration for path in list_checkpoints(stopped.checkpoints)] == [2, 4, 6]


def test_a_finished_run_that_went_on_from_an_earlier_checkpoint_and_was_stopped_is_not_finished(
    stopped: Run, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy2(finished.final, stopped.final)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", stop)
        assert stopped.train("--resume", str(stopped.checkpoint(2))) == 130
    assert stopped.train() == 0
    assert stopped.checkpoint(6).exists()


def test_a_run_that_goes_on_removes_what_killed_processes_have_left(stopped: Run) -> None:
    left = [
        stopped.path / ".model_best.safetensors.tmp-1",
        stopped.path / ".metrics.jsonl.tmp-1",
        stopped.path / ".probe-1",
        stopped.checkpoints / ".tmp-step-000000006-1" / "model.safetensors",
        stopped.checkpoints / ".trash-step-000000002-1" / "state.pt",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    assert stopped.train() == 0
    assert [path.name for path in left if path.exists()] == []
