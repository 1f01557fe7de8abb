"""Ground truth as detections scores 1, and no mistake on the way stays hidden."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detector.config.data_schema import DataConfig, ResizeConfig
from detector.config.schema import Config, EvaluationConfig
from detector.data.coco import open_coco
from detector.data.dataset import DetectionDataset
from detector.data.voc import open_voc
from detector.engine import self_test as tested
from detector.engine.self_test import SelfTest, self_test
from detector.structures import Annotations, Detections, ImageInfo, Sample, Size
from tests.evaluation_sets import Thing, truth_of

CONFIG = Config(evaluation=EvaluationConfig(metrics=("coco", "voc07", "voc")))


class Described:
    """A data set of annotations and sizes; there is no image to decode."""

    def __init__(self, annotations: Annotations, sizes: list[Size | None]) -> None:
        self.annotations = annotations
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def info(self, index: int) -> ImageInfo:
        return ImageInfo(self.annotations.image_ids[index], f"{index}.png", self.sizes[index])

    def __getitem__(self, index: int) -> Sample:
        raise AssertionError("no image is to be decoded")


SIZE = Size(480, 640)


def described(*things: Thing, size: Size = SIZE, classes: int = 2, images: int = 2) -> Described:
    return Described(truth_of(*things, images=images, classes=classes), [size] * images)


def check(dataset: DetectionDataset, config: Config = CONFIG) -> SelfTest:
    return self_test(dataset, config, "train", "train.json")


def assert_is_1(result: SelfTest) -> None:
    # pycocotools' AP of a class that is found whole is 2.2e-16 below 1 for some counts.
    assert list(result.scores.values()) == pytest.approx([1] * len(result.scores), abs=1e-12)
    assert result.finding is None


PLAIN = (Thing(0, (10, 20, 100, 50)), Thing(1, (300.5, 200.25, 40, 90), 1), Thing(0, (320, 210, 41, 80), 1))


def test_ground_truth_scores_1_in_every_metric() -> None:
    result = check(described(*PLAIN))
    assert result.scores == dict.fromkeys(("coco.AP", "voc07.mAP50", "voc07.mAP", "voc.mAP50", "voc.mAP"), 1.0)
    assert result.possible == result.scores
    assert (result.ap, result.ap_possible, result.perfect) == (1.0, 1.0, 1.0)
    assert (result.objects, result.left_out, result.finding) == (3, 0, None)


def test_both_backends_agree() -> None:
    official = Config(evaluation=EvaluationConfig(backend="pycocotools"))
    result = check(described(*PLAIN), official)
    assert result.ap == pytest.approx(1, abs=1e-12)
    assert result.finding is None


def test_without_objects_there_is_nothing_to_score() -> None:
    result = check(described())
    assert (result.ap, result.ap_possible, result.perfect, result.objects, result.finding) == (
        None,
        None,
        None,
        0,
        None,
    )


def test_crowds_and_difficult_objects_disturb_nothing() -> None:
    things = [Thing(0, (0, 0, 300, 300), crowd=True), Thing(0, (10, 10, 50, 50), difficult=True), *PLAIN]
    result = check(described(*things))
    assert_is_1(result)
    assert (result.objects, result.finding) == (4, None)


def test_a_box_over_the_edge_is_cut_and_costs_only_the_perfect_score() -> None:
    result = check(described(Thing(0, (600, 100, 70, 50)), Thing(1, (10, 10, 50, 50))))
    assert_is_1(result)
    # Four sevenths of the box are inside and meet it at IoUs of 0.50 and 0.55, two of ten thresholds.
    assert result.perfect == pytest.approx((0.2 + 1) / 2)


def test_of_copies_one_is_tested() -> None:
    twice = Thing(0, (10, 10, 50, 50))
    result = check(described(twice, twice, twice._replace(difficult=True), Thing(1, (10, 10, 50, 50))))
    assert (result.objects, result.left_out, result.finding) == (2, 2, None)
    assert_is_1(result)


def test_of_a_crowd_and_an_object_in_its_place_the_object_is_tested() -> None:
    crowd = Thing(0, (10, 10, 50, 50), crowd=True)
    result = check(described(crowd, crowd._replace(crowd=False)))
    assert (result.objects, result.finding) == (1, None)
    assert_is_1(result)


def test_what_vanishes_in_the_resize_is_left_out() -> None:
    small = Config(data=DataConfig(resize=ResizeConfig(test_short_side=10, max_long_side=20)))
    result = check(described(Thing(0, (10, 10, 2, 200)), Thing(0, (100, 100, 200, 200))), small)
    assert (result.objects, result.left_out, result.finding) == (1, 1, None)


def grid_of(count: int, label: int = 0, image: int = 0) -> list[Thing]:
    return [Thing(label, (20 * (place % 30), 20 * (place // 30), 18, 18), image) for place in range(count)]


def test_beyond_100_of_a_class_in_an_image_the_possible_ap_says_what_coco_can_count() -> None:
    result = check(described(*grid_of(250), *grid_of(10, 1, 1)))
    # Of 250 objects 100 count: recalls 0 to 0.40 of 101; just at a level is told as not reached.
    assert result.ap == pytest.approx((41 / 101 + 1) / 2)
    assert result.ap_possible == pytest.approx((40 / 101 + 1) / 2)
    assert result.scores["voc.mAP"] == 1.0
    assert result.finding is None


def test_100_of_each_of_two_classes_in_an_image_can_all_be_counted() -> None:
    result = check(described(*grid_of(100), *grid_of(100, 1)))
    assert (result.ap, result.ap_possible) == (1.0, 1.0)


def test_where_no_size_is_recorded_the_file_is_asked() -> None:
    Image.new("RGB", (640, 480)).save("0.png")
    dataset = Described(truth_of(*PLAIN, images=2, classes=2), [None, Size(480, 640)])
    assert check(dataset).objects == 3


def test_an_image_whose_size_cannot_be_read_is_left_out() -> None:
    result = check(Described(truth_of(*PLAIN, images=2, classes=2), [None, Size(480, 640)]))
    assert (result.objects, result.left_out, result.finding) == (2, 1, None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.floats(-20, 220), st.floats(-20, 220), st.floats(0, 300), st.floats(0, 300),
            st.integers(0, 2), st.booleans(), st.booleans(),
        ),
        max_size=30,
    ),
    st.tuples(st.integers(1, 200), st.integers(1, 200)), st.integers(1, 400),
)  # fmt: skip
def test_no_ground_truth_is_blamed_while_the_pipeline_is_right(
    rows: list[tuple[int, float, float, float, float, int, bool, bool]], size: tuple[int, int], short_side: int
) -> None:
    things = [Thing(label, (x, y, w, h), image, crowd, hard) for label, x, y, w, h, image, crowd, hard in rows]
    resize = ResizeConfig(test_short_side=short_side, max_long_side=600)
    config = CONFIG.model_copy(update={"data": DataConfig(resize=resize)})
    assert check(described(*things, size=Size(*size), classes=3, images=3), config).finding is None


def shifted(pixels: float) -> Callable[[Detections, Size, bool, Size], Detections]:
    right = tested.to_original

    def wrong(detections: Detections, size: Size, mirrored: bool, original: Size) -> Detections:
        found = right(detections, size, mirrored, original)
        return Detections(found.boxes + pixels, found.scores, found.labels)

    return wrong


def test_boxes_one_pixel_off_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "to_original", shifted(1))
    finding = check(described(*PLAIN)).finding
    assert finding is not None
    assert (finding.kind, finding.split, finding.file) == ("self-test", "train", "train.json")
    assert "coco.AP" in finding.what
    assert "up to 1.00 pixels" in finding.what


def test_large_boxes_one_pixel_off_are_found_out_though_they_score_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tested, "to_original", shifted(1))
    result = check(described(Thing(0, (10, 10, 400, 400))))
    assert result.ap == pytest.approx(1)
    assert result.finding is not None
    assert result.finding.what.endswith("come back up to 1.00 pixels from where they were")


def test_a_wrong_category_id_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tested.write_results

    def write(path: Path, found: object, truth: Annotations) -> None:
        right(path, found, replace(truth, category_ids=truth.category_ids[::-1]))  # type: ignore[arg-type]

    monkeypatch.setattr(tested, "write_results", write)
    result = check(described(*PLAIN))
    assert result.ap == 0.0
    assert result.finding is not None


def test_width_and_height_in_the_wrong_order_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tested.to_original

    def swap(detections: Detections, size: Size, mirrored: bool, original: Size) -> Detections:
        return right(detections, Size(*size[::-1]), mirrored, original)

    monkeypatch.setattr(tested, "to_original", swap)
    assert check(described(*PLAIN)).finding is not None


def test_a_detection_that_gets_lost_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = tested.to_original

    def lose_one(detections: Detections, size: Size, mirrored: bool, original: Size) -> Detections:
        return right(detections, size, mirrored, original).keep(torch.arange(len(detections) - 1))

    monkeypatch.setattr(tested, "to_original", lose_one)
    assert check(described(*grid_of(50), *grid_of(50, 1, 1))).finding is not None


def test_5000_images_take_seconds() -> None:
    random = np.random.default_rng(0)
    things = [
        Thing(int(label), (float(x), float(y), float(side), float(side)), index // 7)
        for index, (label, x, y, side) in enumerate(
            zip(
                random.integers(0, 80, 35_000), random.uniform(0, 500, 35_000), random.uniform(0, 400, 35_000),
                random.uniform(8, 300, 35_000), strict=True,
            )
        )
    ]  # fmt: skip
    start = time.perf_counter()
    result = check(described(*things, classes=80, images=5000))
    assert result.finding is None
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize("split", ["train", "val"])
def test_photographs_of_coco_score_1(shared: Path, split: str) -> None:
    folder = shared / "data" / "coco_by"
    annotations = folder / "annotations" / f"instances_{split}2017.json"
    result = check(open_coco(folder / f"{split}2017", annotations, None, False, 10**8))
    assert_is_1(result)


@pytest.mark.parametrize("split", ["trainval", "test"])
def test_photographs_of_blood_cells_score_1(shared: Path, split: str) -> None:
    result = check(open_voc(shared / "data" / "bccd" / "BCCD", split, None, True, 10**8))
    assert_is_1(result)
