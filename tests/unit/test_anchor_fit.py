"""What the anchors cover, computed at one place a shape, against all anchors of the grid."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from detector.config.data_schema import DataConfig, ResizeConfig
from detector.config.schema import AnchorConfig, BackboneConfig, ModelConfig
from detector.data.doctor.anchor_fit import (
    Objects,
    Slice,
    best_ious,
    measure_fit,
    objects_of,
    resized_sides,
)
from detector.data.doctor.anchor_search import Suggestion, check_anchors, suggest
from detector.data.raw.structure import RawSet
from detector.data.transforms import resized_size
from detector.models.resnet import ResNetC4
from detector.ops.anchors import cell_anchors, grid_anchors
from detector.structures import Size

UNCHANGED = ResizeConfig(train_short_side=(320,), test_short_side=320, max_long_side=320)
DEFAULT, RESIZE = AnchorConfig(), ResizeConfig()
CLASSES = ("a", "b")


def objects(*boxes: tuple[float, float, float, float], size: tuple[int, int] = (320, 320)) -> Objects:
    labels = np.arange(len(boxes)) % 2
    return Objects(np.array(boxes, dtype=float).reshape(-1, 4), np.array([size] * len(boxes)).reshape(-1, 2), labels)


def centred(width: float, height: float, x: float = 160, y: float = 160) -> tuple[float, float, float, float]:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def by_brute_force(box: np.ndarray, size: Size, resize: ResizeConfig, anchors: AnchorConfig) -> Tensor:
    resized = resized_size(size, resize.test_short_side, resize.max_long_side)
    grid = Size(-(-resized.height // 16), -(-resized.width // 16))
    cell = cell_anchors(anchors.sizes, anchors.aspect_ratios).double()
    scale = [resized.width / size.width, resized.height / size.height] * 2
    return box_iou(torch.from_numpy(box * scale)[None], grid_anchors(cell, grid, 16)).max()


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 500), width=st.integers(1, 500),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
    short_side=st.integers(16, 200), max_long_side=st.integers(16, 300),
    sizes=st.lists(st.floats(4, 400), min_size=1, max_size=3),
    ratios=st.lists(st.floats(0.1, 10), min_size=1, max_size=3),
)  # fmt: skip
def test_the_nearest_place_of_each_shape_is_as_good_as_all_places(
    height: int, width: int, corners: tuple[float, ...], short_side: int, max_long_side: int, sizes: list[float],
    ratios: list[float],
) -> None:  # fmt: skip
    x1, x2 = sorted(np.array(corners[:2]) * width)
    y1, y2 = sorted(np.array(corners[2:]) * height)
    box = np.array([x1, y1, max(x2, x1 + 0.01), max(y2, y1 + 0.01)])
    resize = ResizeConfig(train_short_side=(64,), test_short_side=short_side, max_long_side=max_long_side)
    anchors = AnchorConfig(sizes=tuple(sizes), aspect_ratios=tuple(ratios))
    found = best_ious(box[None], np.array([[height, width]]), resize, anchors)
    expected = by_brute_force(box, Size(height, width), resize, anchors)
    torch.testing.assert_close(torch.from_numpy(found), expected[None], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
@pytest.mark.parametrize("size", [(1, 16), (17, 31), (33, 64), (65, 47)])
def test_the_backbone_has_the_grid_that_is_assumed(size: tuple[int, int], stride_in_1x1: bool) -> None:
    network = ResNetC4(BackboneConfig(depth=50, stride_in_1x1=stride_in_1x1)).eval()
    with torch.no_grad():
        features = network(torch.zeros(1, 3, *size))
    assert tuple(features.shape[-2:]) == (-(-size[0] // 16), -(-size[1] // 16))


def test_an_object_in_the_place_of_an_anchor_has_an_iou_of_1() -> None:
    found = best_ious(*_boxes_and_sizes(centred(64, 64)), UNCHANGED, DEFAULT)
    assert found.tolist() == [1.0]


def test_an_object_of_half_the_size_in_an_anchor_has_a_quarter_of_its_area() -> None:
    found = best_ious(*_boxes_and_sizes(centred(16, 16)), UNCHANGED, AnchorConfig(sizes=(32.0,), aspect_ratios=(1.0,)))
    assert found.tolist() == [0.25]


def test_objects_are_resized_first() -> None:
    doubled = ResizeConfig(train_short_side=(640,), test_short_side=640, max_long_side=640)
    found = best_ious(*_boxes_and_sizes(centred(16, 16)), doubled, AnchorConfig(sizes=(32.0,), aspect_ratios=(1.0,)))
    assert found.tolist() == [1.0]


def test_sides_are_those_after_the_resize() -> None:
    wide = objects((0, 0, 40, 10), size=(100, 200))
    resize = ResizeConfig(train_short_side=(200,), test_short_side=200, max_long_side=400)
    assert resized_sides(wide, resize).tolist() == [40.0]


def test_the_fit_counts_by_size_and_class() -> None:
    fit = measure_fit(objects(centred(64, 64), centred(128, 128), centred(4, 4)), CLASSES, UNCHANGED, DEFAULT)
    assert (fit.objects, fit.recall_50, fit.recall_70) == (3, 2 / 3, 2 / 3)
    assert (fit.under_16, fit.under_32) == (1 / 3, 1 / 3)
    assert fit.by_size == (Slice("under 8", 1, 0, 0), Slice("64 to 128", 1, 1, 1), Slice("128 to 256", 1, 1, 1))
    assert fit.by_class == (Slice("a", 2, 0.5, 0.5), Slice("b", 1, 1, 1))


def test_without_objects_nothing_is_missed() -> None:
    fit = measure_fit(objects(), CLASSES, UNCHANGED, DEFAULT)
    assert (fit.objects, fit.recall_50, fit.under_16, fit.fits) == (0, 1.0, 0.0, True)
    assert suggest(objects(), CLASSES, UNCHANGED, DEFAULT, fit) is None


def _boxes_and_sizes(box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    whole = objects(box)
    return whole.boxes, whole.sizes


def crowd_of(sides: tuple[float, float], ratios: tuple[float, float] = (1, 1), count: int = 300) -> Objects:
    """Objects of random place, size and shape in images of 600 x 800."""
    random = np.random.default_rng(3)
    side, ratio = np.exp(random.uniform(*np.log(sides), count)), np.exp(random.uniform(*np.log(ratios), count))
    width, height = np.minimum(side / np.sqrt(ratio), 790), np.minimum(side * np.sqrt(ratio), 590)
    x, y = random.uniform(0, 800 - width), random.uniform(0, 600 - height)
    boxes = np.stack([x, y, x + width, y + height], axis=1)
    return Objects(boxes, np.tile([600, 800], (count, 1)), np.zeros(count, dtype=np.int64))


def advise(some: Objects, resize: ResizeConfig = RESIZE) -> Suggestion | None:
    return suggest(some, CLASSES, resize, DEFAULT, measure_fit(some, CLASSES, resize, DEFAULT))


def test_where_the_anchors_fit_nothing_is_suggested() -> None:
    assert advise(crowd_of((60, 300))) is None


def test_long_objects_get_long_anchors() -> None:
    tall = crowd_of((60, 100), (5, 8))
    found = advise(tall)
    assert found is not None
    assert max(found.aspect_ratios) >= 5
    assert not found.larger
    assert found.fit.recall_50 > 0.95
    assert len(found.sizes) <= 6
    assert len(found.aspect_ratios) <= 5


def test_objects_of_one_size_and_shape_need_few_anchors() -> None:
    found = advise(crowd_of((48, 52), (4, 4.2)))
    assert found is not None
    assert len(found.sizes) * len(found.aspect_ratios) <= 6


def test_many_tiny_objects_get_larger_images() -> None:
    resize = ResizeConfig(train_short_side=(560, 600), test_short_side=600, max_long_side=1000)
    found = advise(crowd_of((10, 20)), resize)
    assert found is not None
    assert found.larger
    assert (found.short_side, found.max_long_side) == (1440, 2400)
    assert found.train_short_sides == (1344, 1440)
    assert found.pixels == pytest.approx((1440 / 600) ** 2, rel=0.01)


def test_images_never_grow_beyond_1600() -> None:
    found = advise(crowd_of((2, 3)))
    assert found is not None
    assert found.short_side <= 1600


@settings(max_examples=20, deadline=None)
@given(
    low=st.floats(2, 300), spread=st.floats(1, 8), ratio=st.floats(0.1, 10),
    sizes=st.lists(st.floats(8, 512), min_size=1, max_size=6),
    ratios=st.lists(st.floats(0.2, 5), min_size=1, max_size=4),
)  # fmt: skip
def test_a_suggestion_is_never_worse_than_the_configuration(
    low: float, spread: float, ratio: float, sizes: list[float], ratios: list[float]
) -> None:
    anchors = AnchorConfig(sizes=tuple(sizes), aspect_ratios=tuple(ratios))
    some = crowd_of((low, min(low * spread, 500)), (min(ratio, 1), max(ratio, 1)), 60)
    fit = measure_fit(some, CLASSES, RESIZE, anchors)
    found = suggest(some, CLASSES, RESIZE, anchors, fit)
    if found is not None:
        assert found.fit.recall_50 > fit.recall_50
        assert found.fit.recall_70 >= fit.recall_70


def test_a_suggestion_is_the_same_every_time() -> None:
    assert advise(crowd_of((10, 60))) == advise(crowd_of((10, 60)))


def test_a_suggestion_has_the_fit_that_it_claims() -> None:
    some = crowd_of((8, 40), (0.2, 5))
    found = advise(some)
    assert found is not None
    sections = yaml.safe_load(found.as_yaml())
    anchors = ModelConfig.model_validate(_tuples(sections["model"])).anchors
    resize = DataConfig.model_validate(_tuples(sections["data"])).resize
    assert measure_fit(some, CLASSES, resize, anchors) == found.fit


def _tuples(value: object) -> object:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def test_anchors_that_miss_objects_are_a_finding_of_one_line() -> None:
    some = crowd_of((8, 40), (0.2, 5))
    fit = measure_fit(some, CLASSES, RESIZE, DEFAULT)
    (finding,) = check_anchors(fit, advise(some), "train", "train.json")
    assert finding.kind == "anchors-miss"
    assert str(finding).startswith("train.json: ")
    assert "of 300 objects overlap no anchor" in finding.what
    assert "sizes [" in finding.what
    assert "\n" not in finding.what


def test_anchors_that_fit_are_no_finding() -> None:
    fit = measure_fit(crowd_of((60, 300)), CLASSES, RESIZE, DEFAULT)
    assert check_anchors(fit, None, "train", "train.json") == []
    assert check_anchors(replace(fit, recall_50=0.8), None, "train", "train.json") == []


def test_what_cannot_be_trained_on_is_left_out() -> None:
    boxes = [[0, 0, 10, 10], [95, 0, 10, 10], [200, 0, 5, 5], [0, 0, np.nan, 5], [0, 0, 5, 5], [0, 0, -4, 5],
             [0, 0, 9, 9], [1, 1, 9, 9]]  # fmt: skip
    crowd = [False] * 6 + [True, False]
    labels, images = [0, 1, 0, 0, -1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1]
    found = objects_of(_raw(boxes, labels, images, crowd), np.array([[50, 100], [0, 0]]))
    assert found.boxes.tolist() == [[0, 0, 10, 10], [95, 0, 100, 10]]
    assert found.labels.tolist() == [0, 1]
    assert found.sizes.tolist() == [[50, 100]] * 2


def _raw(boxes: list[list[float]], labels: list[int], images: list[int], crowd: list[bool]) -> RawSet:
    count = len(boxes)
    return RawSet(
        "coco", "train", Path("a.json"), Path("images"), (1, 2), ("1.png", "2.png"), ("a.json",) * 2, ("", ""),
        np.zeros((2, 2), dtype=np.int64), (1, 2), CLASSES, np.array(images), np.array(labels),
        np.array(boxes, dtype=float), np.full(count, np.nan), np.array(crowd), np.zeros(count, dtype=bool),
        np.arange(count), ("",) * count, (),
    )  # fmt: skip


@pytest.mark.slow
def test_as_many_objects_as_coco_take_seconds() -> None:
    many = crowd_of((5, 400), (0.3, 3), 860_000)
    start = time.perf_counter()
    measure_fit(many, CLASSES, RESIZE, DEFAULT)
    assert time.perf_counter() - start < 10
