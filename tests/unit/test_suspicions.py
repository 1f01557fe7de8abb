"""Faults of the data, made on a fair set: each is named, and named first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detector.evaluation.coco import coco_curves, summarise
from detector.evaluation.suspicions import suspicions
from detector.structures import Annotations, DetectionTable
from tests.evaluation_sets import chosen, fair_set, found_of, truth_of

Pair = tuple[Annotations, DetectionTable]


def told(truth: Annotations, found: DetectionTable) -> list[str]:
    return suspicions(truth, found, summarise(coco_curves(truth, found))["AP50"])


def shifted_labels(truth: Annotations, found: DetectionTable, by: int) -> Pair:
    labels = found.labels + by
    inside = (labels >= 0) & (labels < len(truth.class_names))
    return truth, chosen(replace(found, labels=labels), inside)


def shifted_images(truth: Annotations, found: DetectionTable, by: int) -> Pair:
    images = found.image_index + by
    inside = (images >= 0) & (images < len(truth.image_ids))
    return truth, chosen(replace(found, image_index=images), inside)


def renamed(truth: Annotations, found: DetectionTable, order: list[int]) -> Pair:
    return truth, replace(found, labels=np.array(order)[found.labels])


def corners_for_sides(boxes: np.ndarray) -> np.ndarray:
    """Boxes whose writer put the lower right corner where width and height belong."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def truth_with_corners(truth: Annotations, found: DetectionTable) -> Pair:
    boxes = corners_for_sides(truth.boxes_xywh)
    return replace(truth, boxes_xywh=boxes, areas=boxes[:, 2:].prod(axis=1)), found


def test_a_fair_set_rouses_no_suspicion() -> None:
    assert told(*fair_set()) == []


def test_perfect_detections_rouse_none() -> None:
    truth, _ = fair_set()
    scores = np.linspace(0.001, 1, len(truth.labels))
    assert told(truth, DetectionTable(truth.image_index(), truth.labels, truth.boxes_xywh, scores)) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_poor_detector_is_not_called_a_fault_of_the_data(seed: int) -> None:
    truth, found = fair_set()
    random = np.random.default_rng(seed)
    assert told(truth, replace(found, boxes_xywh=random.permutation(found.boxes_xywh))) == []


@pytest.mark.parametrize(("by", "words"), [(-1, "the next one"), (1, "the previous one")])
def test_classes_counted_from_another_number_are_named(by: int, words: str) -> None:
    first, *_ = told(*shifted_labels(*fair_set(), by))
    assert f"if every class of the detections were {words}: are categories counted from 0" in first


@pytest.mark.parametrize("order", [[2, 3, 4, 0, 1], [4, 0, 3, 1, 2], [1, 0, 3, 4, 2]], ids=str)
def test_classes_in_another_order_are_named(order: list[int]) -> None:
    first, *_ = told(*renamed(*fair_set(), order))
    assert "if classes did not count: are the class names in another order than in training?" in first


def test_detections_with_corners_for_sides_are_named() -> None:
    truth, found = fair_set()
    first, *_ = told(truth, replace(found, boxes_xywh=corners_for_sides(found.boxes_xywh)))
    assert "if the boxes of the detections were stored as (x1, y1, x2, y2)" in first


def test_ground_truth_with_corners_for_sides_is_named() -> None:
    first, *_ = told(*truth_with_corners(*fair_set()))
    assert "if the boxes of the ground truth were stored as (x1, y1, x2, y2)" in first


@pytest.mark.parametrize(("by", "words"), [(-1, "the next image"), (1, "the previous image")])
def test_images_counted_from_another_number_are_named(by: int, words: str) -> None:
    first, *_ = told(*shifted_images(*fair_set(), by))
    assert f"if every detection belonged to {words}: are image ids counted from 0" in first


def test_detections_of_other_images_than_those_with_objects_are_named() -> None:
    truth, found = fair_set()
    empty = len(truth.image_ids)
    more = replace(
        truth,
        image_ids=tuple(range(2 * empty)),
        rows=np.concatenate([truth.rows, np.full(empty, truth.rows[-1])]),
    )
    first, *_ = told(more, replace(found, image_index=found.image_index + empty))
    assert first.startswith("no image with detections has an object: do the image ids of the two files mean the same")


@pytest.mark.parametrize(("factor", "words"), [(2.0, "0.5 times"), (0.5, "2 times")])
def test_pixels_of_images_half_or_twice_as_large_are_named(factor: float, words: str) -> None:
    truth, found = fair_set()
    first, *_ = told(truth, replace(found, boxes_xywh=found.boxes_xywh * factor))
    assert f"if the boxes of the detections were {words} as large: are they in pixels of resized images?" in first


@pytest.mark.parametrize("factor", [800 / 480, 600 / 375, 0.3])
def test_pixels_of_resized_images_are_named_whatever_the_factor(factor: float) -> None:
    truth, found = fair_set()
    first, *_ = told(truth, replace(found, boxes_xywh=found.boxes_xywh * factor)) or [""]
    assert "as large: are they in pixels of resized images?" in first


def test_fractions_of_the_image_are_named() -> None:
    truth, found = fair_set()
    first, *_ = told(truth, replace(found, boxes_xywh=found.boxes_xywh / [640, 480, 640, 480]))
    assert "if the boxes of the detections were fractions of the image and not pixels" in first


def test_scores_that_are_all_low_are_named() -> None:
    truth, found = fair_set()
    random = np.random.default_rng(0)
    unsure = replace(found, boxes_xywh=random.permutation(found.boxes_xywh), scores=found.scores * 0.04)
    (only,) = told(truth, unsure)
    assert only.startswith("no score is above 0.03")


def test_low_scores_are_no_fault_where_ap_is_fair() -> None:
    truth, found = fair_set()
    assert told(truth, replace(found, scores=found.scores * 0.04)) == []


def test_classes_without_objects_are_named() -> None:
    truth, found = fair_set()
    more = replace(truth, class_names=(*truth.class_names, "owl", "elk"), category_ids=(*truth.category_ids, 6, 7))
    assert told(more, found) == ["classes without ground truth are left out of the means: owl, elk"]


def test_many_classes_without_objects_are_counted() -> None:
    truth, found = fair_set()
    names = tuple(f"x{number}" for number in range(13))
    more = replace(truth, class_names=(*truth.class_names, *names), category_ids=(*truth.category_ids, *range(6, 19)))
    (only,) = told(more, found)
    assert only.endswith("x0, x1, x2, x3, x4, x5, x6, x7, x8, x9 and 3 more")


def test_no_detections_are_named() -> None:
    truth, _ = fair_set()
    assert told(truth, found_of()) == [
        "there are no detections, so AP is 0; is the model trained, is score_threshold too high?"
    ]


@pytest.mark.parametrize("detections", [True, False])
def test_no_ground_truth_is_named(detections: bool) -> None:
    found = fair_set()[1] if detections else found_of()
    assert told(truth_of(images=40, classes=5), found) == [
        "there is no ground truth at all, so no AP is defined; is this split annotated?"
    ]


def test_a_sentence_says_what_ap_is_and_what_it_would_be() -> None:
    truth, found = fair_set()
    fair = summarise(coco_curves(truth, found))["AP50"]
    first, *_ = told(truth, replace(found, boxes_xywh=found.boxes_xywh * 2))
    assert first.startswith(f"AP50 is 0.000, but {fair:.3f} if ")
