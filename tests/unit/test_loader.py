"""Batches: the same from any number of workers and ranks, and errors that arrive whole."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.build import wide_images
from detector.data.coco import open_coco
from detector.data.dataset import DetectionDataset, Subset
from detector.data.export import write_coco
from detector.data.loader import Batch, EvaluationBatches, TrainingBatches, iterate
from detector.data.sampler import TrainingOrder
from detector.data.shapes import ShapesDataset
from detector.data.transforms import TrainTransform
from detector.errors import DatasetError, ImageError, WorkerError
from detector.structures import Sample, Size
from tests.tiny import evaluation_batches, tiny_config

CPU = torch.device("cpu")
SHAPES = ShapesDataset(10, 0, Size(64, 80), hard=False)
AUGMENTED = "data.augmentations=[{name: RandomBrightnessContrast}, {name: Affine, arguments: {rotate: 20}}]"


def training(
    dataset: DetectionDataset = SHAPES,
    batch_size: int = 4,
    rank: int = 0,
    world_size: int = 1,
    micro: int = 4,
    skip_bad: bool = False,
) -> TrainingBatches:
    config = tiny_config(AUGMENTED)
    order = TrainingOrder(wide_images(dataset), batch_size, config.seed)
    return TrainingBatches(dataset, order, TrainTransform(config.data, config.seed), rank, world_size, micro, skip_bad)


def loaded(batches: TrainingBatches | EvaluationBatches, count: int, workers: int = 0, first: int = 0) -> list[Batch]:
    return list(iterate(batches, range(first, first + count), workers, CPU, 60))


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left.images.pixels, right.images.pixels, rtol=0, atol=0)
        assert left.images.sizes == right.images.sizes
        assert (left.indices, left.infos, left.original_sizes) == (right.indices, right.infos, right.original_sizes)
        assert left.bad == right.bad
        assert [target.seed for target in left.targets] == [target.seed for target in right.targets]
        for ours, theirs in zip(left.targets, right.targets, strict=True):
            torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=0, atol=0)
            torch.testing.assert_close(ours.labels, theirs.labels, rtol=0, atol=0)


# Any number of workers


def test_a_part_of_a_data_set_is_grouped_as_the_whole(tmp_path: Path) -> None:
    write_coco(SHAPES, tmp_path)
    dataset = open_coco(tmp_path / "images", tmp_path / "annotations.json", None, False, 10_000)
    dataset.sizes = dataset.sizes.copy()
    dataset.sizes[::2] = dataset.sizes[::2, ::-1]
    assert wide_images(Subset(dataset, [2, 1, 5, 4])).tolist() == [False, True, True, False]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_in_training(workers: int) -> None:
    assert_equal(loaded(training(), 6, workers), loaded(training(), 6))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_in_evaluation(workers: int) -> None:
    batches = evaluation_batches(SHAPES, range(10), tiny_config("evaluation.batch_size=3"))
    assert_equal(loaded(batches, 4, workers), loaded(batches, 4))


def test_batches_reach_workers_that_are_not_forked() -> None:
    # Everywhere but on Linux, and there from Python 3.14 on, workers get what they need through a pipe.
    for batches in (training(), evaluation_batches(SHAPES, range(10), tiny_config())):
        sent = pickle.loads(pickle.dumps(batches))
        assert_equal(loaded(sent, 4), loaded(batches, 4))


def test_a_later_start_goes_on_with_the_same_batches() -> None:
    assert_equal(loaded(training(), 3, first=3), loaded(training(), 6)[3:])


def test_loading_by_workers_leaves_torchs_global_stream_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded(training(), 2, workers=1)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_a_data_set_that_draws_from_global_streams_finds_them_set_by_position() -> None:
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        loaded(training(), 2)
        drawn.append(torch.rand(1))
    torch.testing.assert_close(drawn[0], drawn[1])


def test_the_first_batch_can_be_taken_without_the_others() -> None:
    iterator = iterate(training(), range(1000), 1, CPU, 60)
    assert len(next(iterator).images) == 4


def test_pixels_and_targets_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.clone()) or pinned[-1])
    batch = loaded(training(), 1)[0]
    ready = batch.pin_memory()
    assert_equal([ready], [batch])
    tensors = [ready.images.pixels, *(part for target in ready.targets for part in (target.boxes, target.labels))]
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in pinned}


# Any number of ranks


def images_of(batches: list[Batch]) -> list[tuple[int, torch.Tensor, torch.Tensor, int | None]]:
    """Each image of the batches: its index, unpadded pixels, boxes and seed."""
    return [
        (index, row[:, : size.height, : size.width], target.boxes, target.seed)
        for batch in batches
        for index, row, size, target in zip(
            batch.indices, batch.images.pixels, batch.images.sizes, batch.targets, strict=True
        )
    ]


@pytest.mark.parametrize(("world_size", "micro"), [(1, 4), (1, 2), (1, 1), (2, 2), (2, 1), (4, 1)])
def test_the_shares_of_all_ranks_are_the_whole_batch(world_size: int, micro: int) -> None:
    batches = 5
    whole = images_of(loaded(training(), batches))
    parts = 4 // world_size // micro
    ranks = [
        loaded(training(rank=rank, world_size=world_size, micro=micro), batches * parts) for rank in range(world_size)
    ]
    shared = [
        batch for number in range(batches) for rank in ranks for batch in rank[number * parts : (number + 1) * parts]
    ]
    for ours, theirs in zip(images_of(shared), whole, strict=True):
        assert (ours[0], ours[3]) == (theirs[0], theirs[3])
        torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=0)
        torch.testing.assert_close(ours[2], theirs[2], rtol=0, atol=0)


def test_the_positions_of_a_run_are_counted_on() -> None:
    second = training(batch_size=8, rank=1, world_size=2, micro=2)
    assert [list(second.positions(number)) for number in range(3)] == [[4, 5], [6, 7], [12, 13]]


# What a batch holds


def test_a_training_batch_tells_where_its_images_come_from() -> None:
    batch = loaded(training(), 1)[0]
    assert [SHAPES.info(index) for index in batch.indices] == list(batch.infos)
    assert batch.original_sizes == (Size(64, 80),) * 4
    assert len(batch.targets) == 4


def test_images_of_one_batch_are_padded_to_the_largest() -> None:
    for batch in loaded(training(), 8):
        heights, widths = zip(*batch.images.sizes, strict=True)
        assert batch.images.pixels.shape == (4, 3, max(heights), max(widths))
        for row, size in zip(batch.images.pixels, batch.images.sizes, strict=True):
            assert not row[:, size.height :].any()
            assert not row[:, :, size.width :].any()


def test_evaluation_takes_every_image_once_in_order() -> None:
    batches = evaluation_batches(SHAPES, [7, 1, 2, 9, 0], tiny_config("evaluation.batch_size=2"))
    assert len(batches) == 3
    assert [batch.indices for batch in loaded(batches, 3)] == [(7, 1), (2, 9), (0,)]


def test_evaluation_has_no_targets_and_no_augmentation() -> None:
    batch = loaded(evaluation_batches(SHAPES, [3], tiny_config(AUGMENTED)), 1)[0]
    assert batch.targets == ()
    assert (batch.images.pixels[0].numpy().transpose(1, 2, 0) == SHAPES[3].image).all()


def test_wide_images_are_those_wider_than_tall(tmp_path: Path) -> None:
    assert wide_images(SHAPES).tolist() == [True] * 10
    assert wide_images(ShapesDataset(2, 0, Size(80, 64), hard=False)).tolist() == [False] * 2
    assert wide_images(ShapesDataset(2, 0, Size(64, 64), hard=False)).tolist() == [False] * 2


# Errors


@pytest.fixture
def spoilt(tmp_path: Path) -> DetectionDataset:
    """Ten images in files, of which the fourth is cut off."""
    write_coco(SHAPES, tmp_path)
    path = tmp_path / "images/000003.png"
    path.write_bytes(path.read_bytes()[:500])
    return open_coco(tmp_path / "images", tmp_path / "annotations.json", None, False, 10_000)


def message_in_evaluation(dataset: DetectionDataset, workers: int) -> str:
    with pytest.raises(ImageError) as caught:
        loaded(evaluation_batches(dataset, range(10), tiny_config()), 10, workers)
    return str(caught.value)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_bad_image_arrives_as_one_line_in_training(spoilt: DetectionDataset, workers: int) -> None:
    with pytest.raises(ImageError) as caught:
        loaded(training(spoilt), 5, workers)
    assert "000003.png: " in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_image_has_the_same_message_from_a_worker(spoilt: DetectionDataset, workers: int) -> None:
    assert message_in_evaluation(spoilt, workers) == message_in_evaluation(spoilt, 0)


def test_batches_before_a_bad_image_are_given_out(spoilt: DetectionDataset) -> None:
    iterator = iterate(evaluation_batches(spoilt, range(10), tiny_config()), range(10), 1, CPU, 60)
    assert [next(iterator).indices for _ in range(3)] == [(0,), (1,), (2,)]
    with pytest.raises(ImageError):
        next(iterator)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_size_arrives_as_an_error_of_the_data_set(tmp_path: Path, workers: int) -> None:
    write_coco(SHAPES, tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "images/000000.png")
    dataset = open_coco(tmp_path / "images", tmp_path / "annotations.json", None, False, 10_000)
    with pytest.raises(DatasetError, match="000000.png: the image is 50 x 50, but its annotation says 80 x 64"):
        loaded(evaluation_batches(dataset, [0], tiny_config()), 1, workers)


# Left out instead


BAD = 3


def replacement(batches: TrainingBatches, position: int) -> int:
    """The image that stands at a position if the bad one is left out."""
    while batches.order.index(position) == BAD:
        position += 1
    return batches.order.index(position)


def test_a_bad_image_is_replaced_by_that_of_the_next_position(spoilt: DetectionDataset) -> None:
    batches = training(spoilt, skip_bad=True)
    found = [index for batch in loaded(batches, 10) for index in batch.indices]
    assert found == [replacement(batches, position) for position in range(40)]
    assert [batches.order.index(position) for position in range(40)].count(BAD) == 4


def test_of_two_bad_ones_in_a_row_both_are_left_out(spoilt: DetectionDataset) -> None:
    batches = training(spoilt, skip_bad=True)
    following = [batches.order.index(position) for position in range(10)]
    second = following[following.index(BAD) + 1]
    Path(spoilt.info(second).path).write_bytes(b"")
    for batch in loaded(batches, 3):
        assert not {BAD, second} & set(batch.indices)


def test_the_other_images_of_a_batch_stay_as_they_are(tmp_path: Path, spoilt: DetectionDataset) -> None:
    write_coco(SHAPES, tmp_path / "whole")
    whole = open_coco(tmp_path / "whole/images", tmp_path / "whole/annotations.json", None, False, 10_000)
    pairs = zip(
        images_of(loaded(training(spoilt, skip_bad=True), 10)), images_of(loaded(training(whole), 10)), strict=True
    )
    for ours, theirs in pairs:
        if theirs[0] != BAD:
            torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=0)
        assert ours[3] == theirs[3]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_in_what_is_left_out(spoilt: DetectionDataset, workers: int) -> None:
    batches = training(spoilt, skip_bad=True)
    assert_equal(loaded(batches, 10, workers), loaded(batches, 10))


def test_the_shares_of_two_ranks_are_the_whole_batch_with_a_bad_image(spoilt: DetectionDataset) -> None:
    whole = [batch.indices for batch in loaded(training(spoilt, skip_bad=True), 10)]
    ranks = [loaded(training(spoilt, rank=rank, world_size=2, micro=2, skip_bad=True), 10) for rank in range(2)]
    assert [one.indices + other.indices for one, other in zip(*ranks, strict=True)] == whole


def test_a_later_start_leaves_out_the_same(spoilt: DetectionDataset) -> None:
    batches = training(spoilt, skip_bad=True)
    assert_equal(loaded(batches, 5, first=5), loaded(batches, 10)[5:])


def test_the_batch_names_what_was_left_out(spoilt: DetectionDataset) -> None:
    batches = training(spoilt, skip_bad=True)
    for number, batch in enumerate(loaded(batches, 10)):
        positions = batches.positions(number)
        assert [item.path for item in batch.bad] == [
            spoilt.info(BAD).path for position in positions if batches.order.index(position) == BAD
        ]
        for item in batch.bad:
            assert item.problem.startswith(f"{item.path}: the image is truncated")


def test_an_image_of_a_wrong_size_is_left_out_too(spoilt: DetectionDataset) -> None:
    Image.new("RGB", (50, 50)).save(spoilt.info(BAD).path)
    problems = [item.problem for batch in loaded(training(spoilt, skip_bad=True), 10) for item in batch.bad]
    assert "the image is 50 x 50, but its annotation says 80 x 64" in problems[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_without_any_good_image_ends_with_one_line(spoilt: DetectionDataset, workers: int) -> None:
    for index in range(10):
        Path(spoilt.info(index).path).write_bytes(b"")
    with pytest.raises(DatasetError, match="100 images in a row cannot be read; the last: .*: the file is empty"):
        loaded(training(spoilt, skip_bad=True), 1, workers)


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_a_bad_image_without_a_substitute(spoilt: DetectionDataset, workers: int) -> None:
    config = tiny_config("evaluation.batch_size=2", "data.on_bad_sample=skip")
    batches = loaded(evaluation_batches(spoilt, range(6), config), 3, workers)
    assert [batch.indices for batch in batches] == [(0, 1), (2,), (4, 5)]
    assert [len(batch.images) for batch in batches] == [2, 1, 2]
    assert [[item.path for item in batch.bad] for batch in batches] == [[], [spoilt.info(BAD).path], []]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_chunk_of_bad_images_alone_is_empty(spoilt: DetectionDataset, workers: int) -> None:
    config = tiny_config("data.on_bad_sample=skip")
    (batch,) = loaded(evaluation_batches(spoilt, [BAD], config), 1, workers)
    assert (len(batch.images), batch.indices, len(batch.bad)) == (0, (), 1)


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, OSError])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_of_a_data_set_is_not_left_out(error: type[Exception], workers: int) -> None:
    with pytest.raises(error, match="mine"):
        loaded(training(Failing(error), skip_bad=True), 5, workers)


# Lost workers


class Failing:
    """Shapes whose third image raises an error, or kills the process that reads it."""

    def __init__(self, error: type[Exception] | None) -> None:
        self.error = error
        self.annotations = SHAPES.annotations
        self.info = SHAPES.info

    def __len__(self) -> int:
        return len(SHAPES)

    def __getitem__(self, index: int) -> Sample:
        if index == 2 and self.error:
            raise self.error("mine")
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return SHAPES[index]


def test_a_worker_that_dies_is_a_lost_worker() -> None:
    with pytest.raises(WorkerError, match="a loader worker was lost while preparing ") as caught:
        loaded(evaluation_batches(Failing(None), range(10), tiny_config()), 10, workers=1)
    assert caught.value.exit_code == 5
    assert str(caught.value).isprintable()


def test_a_lost_worker_is_told_once() -> None:
    with pytest.raises(WorkerError):
        loaded(evaluation_batches(Failing(None), range(10), tiny_config()), 10, workers=1)
    # torch looks for dead workers whenever any child ends.
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, RuntimeError, OSError])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_of_a_data_set_is_not_taken_for_a_lost_worker(error: type[Exception], workers: int) -> None:
    with pytest.raises(error, match="mine"):
        loaded(evaluation_batches(Failing(error), range(10), tiny_config()), 10, workers)


def test_workers_use_one_thread() -> None:
    class Threads(Failing):
        def __getitem__(self, index: int) -> Sample:
            raise ValueError(f"{torch.get_num_threads()} threads")

    with pytest.raises(ValueError, match="1 threads"):
        loaded(evaluation_batches(Threads(None), [0], tiny_config()), 1, workers=1)


def test_no_worker_outlives_an_error(spoilt: DetectionDataset) -> None:
    # Else the program ends seconds late, and workers that are started next print tracebacks.
    before = set(children())
    with contextlib.suppress(ImageError):
        loaded(evaluation_batches(spoilt, range(10), tiny_config()), 10, workers=2)
    assert set(children()) <= before


def test_no_worker_outlives_its_batches() -> None:
    before = set(children())
    iterator = iterate(training(), range(50), 2, CPU, 60)
    next(iterator)
    started = set(children()) - before
    del iterator
    assert started
    assert not started & set(children())


def children() -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


def test_no_pixels_are_shared_between_batches() -> None:
    one, other = loaded(training(), 1)[0], loaded(training(), 1)[0]
    one.images.pixels.zero_()
    assert np.count_nonzero(other.images.pixels.numpy()) > 0
