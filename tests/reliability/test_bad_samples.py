"""Images that cannot be read: they stop a training that loses nothing, or are left out, listed and counted."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector.cli import evaluate, train
from detector.config import load_config
from detector.data import images
from detector.data.build import open_split, wide_images
from detector.data.export import write_coco
from detector.data.sampler import TrainingOrder
from detector.data.shapes import ShapesDataset
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from detector.models import resnet
from detector.structures import Size
from tests.reliability.commands import Outcome, lines_of, run
from tests.reliability.runs import NARROW
from tests.tiny import TINY

IMAGES = 200
BATCH = 4
SKIP = "data.on_bad_sample=skip"


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Iterator[None]:
    """A network that computes and saves in milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", NARROW)
        yield


@dataclass(frozen=True)
class World:
    """A folder with a data set in coco/ and with tiny.yaml, which trains on it."""

    path: Path

    @classmethod
    def make(cls, path: Path, images: int) -> World:
        """Draws the images."""
        write_coco(ShapesDataset(images, 0, Size(48, 64), hard=False), path / "coco")
        old, number = "[{format: shapes, images: 12, seed: 0, size: [64, 80]}]", "1e-3"
        text = TINY.replace(old, cls(path).source).replace(number, "0.001")
        assert cls(path).source in text
        (path / "tiny.yaml").write_text(text)
        return cls(path)

    @property
    def source(self) -> str:
        """The data set as a setting."""
        return f"[{{format: coco, images: {self.path}/coco/images, annotations: {self.path}/coco/annotations.json}}]"

    def file_of(self, index: int) -> Path:
        """The file of an image."""
        return self.path / f"coco/images/{index:06d}.png"

    def files_at(self, *positions: int) -> list[Path]:
        """The files of the images at positions of a run."""
        config = load_config(self.path / "tiny.yaml")
        order = TrainingOrder(wide_images(open_split(config, "train")), BATCH, config.seed)
        return [self.file_of(order.index(position)) for position in positions]

    def train(self, output: Path | str, *arguments: str, iterations: int = 3) -> Outcome:
        """A short training."""
        return run(
            train.main, self.path / "tiny.yaml", "device=cpu", f"training.iterations={iterations}",
            f"training.batch_size={BATCH}", "training.evaluate_every=0", "training.checkpoint_every=0",
            "training.optimizer=sgd", *arguments, "--output", output,
        )  # fmt: skip


def cut(paths: list[Path]) -> dict[Path, bytes]:
    """Cuts files off; returns what was in them."""
    whole = {path: path.read_bytes() for path in paths}
    for path, content in whole.items():
        path.write_bytes(content[:400])
    return whole


def mend(whole: dict[Path, bytes]) -> None:
    for path, content in whole.items():
        path.write_bytes(content)


def iteration_saved(folder: Path) -> int:
    return load_checkpoint(list_checkpoints(folder / "checkpoints")[-1]).iteration


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two hundred good images."""
    return World.make(tmp_path_factory.mktemp("world"), IMAGES)


@dataclass(frozen=True)
class Run:
    """A training on data of which some images cannot be read."""

    outcome: Outcome
    folder: Path
    spoilt: dict[Path, bytes]


# One bad image, by default


@pytest.fixture(scope="module")
def stopped(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A training that met a bad image in its third batch; the image stays bad meanwhile."""
    spoilt = cut(world.files_at(2 * BATCH + 1))
    folder = tmp_path_factory.mktemp("stopped") / "run"
    yield Run(world.train(folder), folder, spoilt)
    mend(spoilt)


def test_an_image_that_cannot_be_read_stops_the_training(stopped: Run) -> None:
    assert stopped.outcome.code == 2
    (line,) = stopped.outcome.errors
    (path,) = stopped.spoilt
    assert line.startswith(f"error: {path}: the image is truncated")
    assert "Traceback" not in stopped.outcome.err


def test_the_state_before_it_is_saved(stopped: Run) -> None:
    assert iteration_saved(stopped.folder) == 2


def test_the_exit_note_names_the_image_and_the_state(stopped: Run) -> None:
    note = json.loads((stopped.folder / "exit-0.json").read_text())
    (path,) = stopped.spoilt
    assert (note["code"], note["iteration"]) == (2, 2)
    assert note["message"].startswith(f"{path}: the image is truncated")
    assert Path(note["checkpoint"]) == list_checkpoints(stopped.folder / "checkpoints")[-1]


def test_from_workers_it_is_the_same(world: World, stopped: Run) -> None:
    outcome = world.train("run", "data.workers=2")
    assert (outcome.code, outcome.errors) == (2, stopped.outcome.errors)
    assert iteration_saved(Path("run")) == 2


def test_the_training_goes_on_once_the_image_is_mended(world: World, stopped: Run) -> None:
    shutil.copytree(stopped.folder, "run")
    mend(stopped.spoilt)
    try:
        outcome = world.train("run")
    finally:
        cut(list(stopped.spoilt))
    assert outcome.code == 0
    assert "going on after iteration 2" in outcome.err
    assert [record["iteration"] for record in lines_of(Path("run/metrics.jsonl"))] == [1, 2, 3]


def test_the_training_goes_on_if_such_images_may_be_left_out_now(world: World, stopped: Run) -> None:
    shutil.copytree(stopped.folder, "run")
    outcome = world.train("run", SKIP)
    assert outcome.code == 0, outcome.errors
    assert "going on after iteration 2" in outcome.err


# Left out


@pytest.fixture(scope="module")
def went_on(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training without the two bad images of its second and third batch, one in a hundred."""
    spoilt = cut(world.files_at(BATCH + 1, 2 * BATCH + 1))
    folder = tmp_path_factory.mktemp("went_on") / "run"
    result = Run(world.train(folder, SKIP, "data.workers=2"), folder, spoilt)
    mend(spoilt)
    return result


def test_one_in_a_hundred_may_be_left_out(went_on: Run) -> None:
    assert went_on.outcome.code == 0
    assert not went_on.outcome.errors


def test_each_is_warned_of(went_on: Run) -> None:
    warnings = [line for line in went_on.outcome.warnings if "left out" in line]
    for line, path in zip(warnings, went_on.spoilt, strict=True):
        assert line.startswith(f"warning: {path}: the image is truncated")


def test_each_is_listed(went_on: Run) -> None:
    records = lines_of(went_on.folder / "bad_samples.jsonl")
    assert [record["file"] for record in records] == [str(path) for path in went_on.spoilt]
    assert all("the image is truncated" in record["problem"] for record in records)


def test_an_image_that_is_met_again_is_listed_once(tmp_path: Path) -> None:
    small = World.make(tmp_path, images=8)
    (path,) = cut(small.files_at(0))
    outcome = small.train("run", SKIP, "data.max_bad_fraction=0.2", iterations=6)
    assert outcome.code == 0
    assert len([line for line in outcome.warnings if "left out" in line]) == 1
    assert [record["file"] for record in lines_of(Path("run/bad_samples.jsonl"))] == [str(path)]


def test_no_image_is_left_out_where_none_may_be(tmp_path: Path) -> None:
    small = World.make(tmp_path, images=8)
    cut(small.files_at(0))
    assert small.train("run", SKIP, "data.max_bad_fraction=0").code == 2


def test_without_bad_images_there_is_no_list(tmp_path: Path) -> None:
    assert World.make(tmp_path, images=8).train("run", SKIP, iterations=1).code == 0
    assert not Path("run/bad_samples.jsonl").exists()


# Too many


@pytest.fixture(scope="module")
def too_many(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A training that met three bad images of 200; they stay bad meanwhile."""
    spoilt = cut(world.files_at(1, BATCH + 1, 2 * BATCH + 1))
    folder = tmp_path_factory.mktemp("too_many") / "run"
    yield Run(world.train(folder, SKIP), folder, spoilt)
    mend(spoilt)


def test_more_than_one_in_a_hundred_stop_the_training(too_many: Run) -> None:
    assert too_many.outcome.code == 2
    (line,) = too_many.outcome.errors
    assert "3 of 200 images cannot be read, more than data.max_bad_fraction (0.01) allows" in line
    assert str(too_many.folder / "bad_samples.jsonl") in line


def test_they_are_listed_and_the_state_is_saved(too_many: Run) -> None:
    records = lines_of(too_many.folder / "bad_samples.jsonl")
    assert [record["file"] for record in records] == [str(path) for path in too_many.spoilt]
    assert iteration_saved(too_many.folder) == 2


def test_the_training_goes_on_with_a_higher_limit(world: World, too_many: Run) -> None:
    shutil.copytree(too_many.folder, "run")
    outcome = world.train("run", SKIP, "data.max_bad_fraction=0.5")
    assert outcome.code == 0, outcome.errors


def test_a_training_that_goes_on_does_not_list_an_image_again(world: World, too_many: Run) -> None:
    shutil.copytree(too_many.folder, "run")
    assert world.train("run", SKIP, "data.max_bad_fraction=0.5", "--resume-anyway").code == 0
    records = lines_of(Path("run/bad_samples.jsonl"))
    assert [record["file"] for record in records] == [str(path) for path in too_many.spoilt]


def test_a_training_that_goes_on_counts_those_of_before(world: World, too_many: Run) -> None:
    shutil.copytree(too_many.folder, "run")
    outcome = world.train("run", SKIP)
    assert outcome.code == 2
    assert "3 of 200 images cannot be read" in outcome.errors[0]


# What is no fault of the image


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_machine_that_falls_short_is_not_a_bad_image(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(images, "open", refuse, raising=False)
    outcome = world.train("run", SKIP, iterations=1)
    assert outcome.code == 3
    assert len(outcome.errors) == 1
    assert not Path("run/bad_samples.jsonl").exists()


# In evaluation


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that has hardly learnt anything."""
    small = World.make(tmp_path_factory.mktemp("weights"), images=8)
    assert small.train(small.path / "run", iterations=1).code == 0
    return small.path / "run/model_final.safetensors"


def evaluated(data: World, weights: Path, *arguments: str) -> Outcome:
    return run(
        evaluate.main, weights, f"data.val={data.source}", "device=cpu", "evaluation.batch_size=4", *arguments,
        "--output", "evaluation",
    )  # fmt: skip


@pytest.fixture
def small(tmp_path: Path) -> World:
    """Twelve images, of which the fourth is an empty file."""
    world = World.make(tmp_path, images=12)
    world.file_of(3).write_bytes(b"")
    return world


def test_in_evaluation_an_image_that_cannot_be_read_stops(small: World, weights: Path) -> None:
    outcome = evaluated(small, weights)
    assert outcome.code == 2
    (line,) = outcome.errors
    assert line.startswith(f"error: {small.file_of(3)}: the file is empty")
    assert not Path("evaluation/metrics.json").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_in_evaluation_it_may_count_as_an_image_without_detections(small: World, weights: Path, workers: int) -> None:
    outcome = evaluated(small, weights, SKIP, f"data.workers={workers}")
    assert outcome.code == 0
    (warning,) = [line for line in outcome.warnings if "without detections" in line]
    assert warning.startswith(f"warning: {small.file_of(3)}: the file is empty")
    assert json.loads(Path("evaluation/metrics.json").read_text())["images"] == 12
    found = json.loads(Path("evaluation/detections.json").read_text())
    assert {record["image_id"] for record in found} <= set(range(12)) - {3}


def test_in_evaluation_the_other_images_have_the_same_detections(small: World, weights: Path) -> None:
    evaluated(small, weights, SKIP)
    without = json.loads(Path("evaluation/detections.json").read_text())
    shutil.copy(small.file_of(4), small.file_of(3))
    evaluated(small, weights, SKIP)
    whole = json.loads(Path("evaluation/detections.json").read_text())
    assert without == [record for record in whole if record["image_id"] != 3]
    assert len(without) < len(whole)


def test_an_evaluation_without_any_image_that_can_be_read_finds_nothing(small: World, weights: Path) -> None:
    for index in range(12):
        small.file_of(index).write_bytes(b"")
    outcome = evaluated(small, weights, SKIP)
    assert outcome.code == 0
    assert len([line for line in outcome.warnings if "without detections" in line]) == 12
    assert json.loads(Path("evaluation/detections.json").read_text()) == []
