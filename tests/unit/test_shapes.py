"""The built-in data set: what is drawn, and where the annotations say it is."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from detector.data.shapes import CLASS_NAMES, Shape, ShapesDataset
from detector.structures import Size

SIZE = Size(64, 80)


def shapes(images: int = 40, seed: int = 0, size: Size = SIZE, hard: bool = False) -> ShapesDataset:
    return ShapesDataset(images, seed, size, hard)


def test_an_image_depends_on_seed_and_index_alone() -> None:
    few, many = shapes(images=8), shapes(images=30)
    for index in (7, 0, 3, 7):
        assert (few[index].image == many[index].image).all()
        assert (few[index].boxes == many[index].boxes).all()
        assert (few[index].labels == many[index].labels).all()


def test_an_image_does_not_depend_on_numpys_global_stream() -> None:
    np.random.seed(1)  # noqa: NPY002, the old stream is what is tested
    first = shapes()[3].image
    np.random.seed(2)  # noqa: NPY002
    assert (shapes()[3].image == first).all()


def test_other_seeds_and_other_indices_give_other_images() -> None:
    pictures = {shapes(seed=seed)[index].image.tobytes() for seed in (0, 1, 2) for index in (0, 1, 2)}
    assert len(pictures) == 9


@pytest.mark.parametrize("size", [Size(64, 80), Size(80, 64), Size(33, 150)])
def test_images_have_the_size_that_is_asked_for(size: Size) -> None:
    dataset = shapes(images=3, size=size)
    assert [dataset[index].size for index in range(3)] == [size] * 3
    assert dataset.info(0).size == size


@pytest.mark.parametrize("hard", [False, True])
def test_boxes_lie_inside_the_image_and_have_an_area(hard: bool) -> None:
    dataset = shapes(hard=hard)
    boxes = np.concatenate([dataset[index].boxes for index in range(len(dataset))])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (SIZE.width, SIZE.height)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_samples_and_annotations_tell_the_same() -> None:
    dataset = shapes()
    annotations = dataset.annotations
    for index in range(len(dataset)):
        sample, rows = dataset[index], annotations.of_image(index)
        corners = annotations.boxes_xywh[rows].copy()
        corners[:, 2:] += corners[:, :2]
        assert (sample.boxes == corners.astype(np.float32)).all()
        assert (sample.labels == annotations.labels[rows]).all()
        assert sample.info == dataset.info(index)


def test_some_images_hold_no_object() -> None:
    counts = np.diff(shapes(images=400).annotations.rows)
    assert 0.02 < (counts == 0).mean() < 0.1


def test_no_image_holds_more_than_six_objects() -> None:
    assert np.diff(shapes(images=400).annotations.rows).max() == 6


def test_every_class_occurs() -> None:
    assert set(shapes(images=100).annotations.labels) == set(range(len(CLASS_NAMES)))


def test_nothing_is_crowd_or_difficult() -> None:
    annotations = shapes().annotations
    assert not annotations.crowd.any()
    assert not annotations.difficult.any()


def test_the_hard_variant_has_other_pixels_and_the_same_objects() -> None:
    plain, hard = shapes(), shapes(hard=True)
    assert not any((plain[index].image == hard[index].image).all() for index in range(5))
    assert (plain.annotations.boxes_xywh == hard.annotations.boxes_xywh).all()
    assert (plain.annotations.labels == hard.annotations.labels).all()


def hues(hard: bool) -> np.ndarray:
    """How far each square's hue is from the one of its class, 0..90."""
    dataset = shapes(images=150, hard=hard)
    found = []
    for index in range(len(dataset)):
        sample = dataset[index]
        for (x1, y1, x2, y2), label in zip(sample.boxes, sample.labels, strict=True):
            if CLASS_NAMES[label] != "square":
                continue
            middle = sample.image[int(y1 * 0.6 + y2 * 0.4) : int(y2), int(x1 * 0.6 + x2 * 0.4) : int(x2)]
            hue = float(np.median(cv2.cvtColor(middle, cv2.COLOR_RGB2HSV)[..., 0]))
            found.append(min(abs(hue - 30), 180 - abs(hue - 30)))
    return np.array(found)


def test_in_the_plain_variant_the_colour_tells_the_class() -> None:
    assert (hues(hard=False) < 15).mean() > 0.8


def test_in_the_hard_variant_the_colour_tells_nothing() -> None:
    assert (hues(hard=True) < 15).mean() < 0.4


@pytest.mark.parametrize("label", range(len(CLASS_NAMES)), ids=CLASS_NAMES)
def test_boxes_are_tight_around_the_drawn_pixels(label: int) -> None:
    dataset = shapes(images=1, size=Size(200, 200))
    for number in range(20):
        shape = Shape(label, 100.3 + number / 7, 99.1, 10 + number, number * math.pi / 10)
        covered = coverage(dataset, shape) >= 0.5
        drawn = [np.flatnonzero(covered.any(axis=axis))[[0, -1]] + (0, 1) for axis in (0, 1)]
        corners = np.stack(drawn, axis=1).reshape(-1)
        # Half a pixel by rounding, and half a line's width by which OpenCV draws outlines thicker.
        np.testing.assert_allclose(corners, shape.box(dataset.size), atol=1.35)


def coverage(dataset: ShapesDataset, shape: Shape) -> np.ndarray:
    """The share of each pixel that a shape covers: what differs between drawing it on black and on white."""
    black, white = np.zeros((*dataset.size, 3)), np.full((*dataset.size, 3), 255.0)
    for canvas in (black, white):
        dataset._draw(canvas, shape, np.random.default_rng(0))
    share: np.ndarray = 1 - (white - black)[..., 0] / 255
    return share
