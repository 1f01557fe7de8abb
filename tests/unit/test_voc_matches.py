"""The VOC metrics on cases that can be checked by hand."""

from __future__ import annotations

import pytest

from detector.evaluation.score import score
from detector.evaluation.voc import VocCurve, voc_curve
from tests.evaluation_sets import Guess, Thing, found_of, truth_of

WHOLE, HALF, AWAY = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0), (50.0, 50.0, 10.0, 10.0)
MOST = (0.0, 0.0, 10.0, 9.0)


def curve_of(things: list[Thing], guesses: list[Guess], images: int = 1, iou_threshold: float = 0.5) -> VocCurve:
    return voc_curve(truth_of(*things, images=images, classes=2), found_of(*guesses), 0, iou_threshold)


def row_of(things: int, hits: list[bool]) -> VocCurve:
    """Objects in images of their own, and detections of falling score that hit a new one or nothing."""
    guesses = [Guess(0, WHOLE if hit else AWAY, 1 - 0.01 * place, place) for place, hit in enumerate(hits)]
    count = max(things, len(hits))
    return curve_of([Thing(0, WHOLE, image) for image in _images(things, hits)], guesses, count)


def _images(things: int, hits: list[bool]) -> list[int]:
    hit = [place for place, true in enumerate(hits) if true]
    others = [place for place in range(max(things, len(hits))) if place not in hit]
    return sorted(hit + others[: things - len(hit)])


# What a detection takes


def test_an_iou_of_exactly_the_threshold_is_enough() -> None:
    assert curve_of([Thing(0, WHOLE)], [Guess(0, HALF, 0.9)]).precision.tolist() == [1]


def test_an_iou_below_the_threshold_is_not() -> None:
    assert curve_of([Thing(0, WHOLE)], [Guess(0, HALF, 0.9)], iou_threshold=0.51).precision.tolist() == [0]


def test_a_second_detection_of_an_object_is_false() -> None:
    curve = curve_of([Thing(0, WHOLE)], [Guess(0, WHOLE, 0.9), Guess(0, WHOLE, 0.8)])
    assert (curve.precision.tolist(), curve.recall.tolist()) == ([1, 0.5], [1, 1])


def test_there_is_no_second_choice() -> None:
    things, guesses = [Thing(0, WHOLE), Thing(0, HALF)], [Guess(0, WHOLE, 0.9), Guess(0, MOST, 0.8)]
    assert curve_of(things, guesses).recall.tolist() == [0.5, 0.5]


def test_of_equal_ious_the_first_object_is_taken() -> None:
    things = [Thing(0, WHOLE), Thing(0, WHOLE, difficult=True)]
    assert curve_of(things, [Guess(0, WHOLE, 0.9)]).precision.tolist() == [1]
    assert curve_of(things[::-1], [Guess(0, WHOLE, 0.9)]).precision.tolist() == []


def test_of_equal_scores_the_earlier_goes_first() -> None:
    guesses = [Guess(0, AWAY, 0.9), Guess(0, WHOLE, 0.9)]
    assert curve_of([Thing(0, WHOLE)], guesses).precision.tolist() == [0, 0.5]
    assert curve_of([Thing(0, WHOLE)], guesses[::-1]).precision.tolist() == [1, 0.5]


def test_objects_of_other_images_and_classes_do_not_count() -> None:
    things = [Thing(0, WHOLE, 0), Thing(1, WHOLE, 1)]
    curve = curve_of(things, [Guess(0, WHOLE, 0.9, 1), Guess(1, WHOLE, 0.9, 0)], images=2)
    assert (curve.precision.tolist(), curve.positives) == ([0], 1)


@pytest.mark.parametrize("flag", ["difficult", "crowd"])
def test_detections_of_a_difficult_object_count_neither_way_however_many(flag: str) -> None:
    things = [Thing(0, WHOLE)._replace(**{flag: True}), Thing(0, AWAY)]
    guesses = [Guess(0, WHOLE, 0.9), Guess(0, WHOLE, 0.8), Guess(0, AWAY, 0.7)]
    curve = curve_of(things, guesses)
    assert (curve.precision.tolist(), curve.recall.tolist(), curve.positives) == ([1], [1], 1)


def test_a_difficult_object_that_overlaps_most_hides_one_that_counts() -> None:
    things = [Thing(0, WHOLE, difficult=True), Thing(0, HALF)]
    curve = curve_of(things, [Guess(0, MOST, 0.9)])
    assert (curve.precision.tolist(), curve.positives) == ([], 1)


def test_one_that_misses_a_difficult_object_is_false() -> None:
    things = [Thing(0, WHOLE, difficult=True), Thing(0, AWAY)]
    assert curve_of(things, [Guess(0, HALF, 0.9)], iou_threshold=0.6).precision.tolist() == [0]


# The two kinds of AP


def test_a_third_found_at_once_fills_4_of_11_points() -> None:
    assert row_of(3, [True]).ap_11_point() == pytest.approx(4 / 11)


def test_a_recall_of_three_tenths_misses_the_point_of_the_devkit_there() -> None:
    assert row_of(10, [True] * 3).ap_11_point() == pytest.approx(3 / 11)


def test_both_kinds_use_the_best_precision_from_a_recall_on() -> None:
    curve = row_of(2, [True, False, True])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.ap_area() == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert curve.ap_11_point() == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_all_found_is_1() -> None:
    curve = row_of(3, [True] * 3)
    assert (curve.ap_11_point(), curve.ap_area()) == (1, pytest.approx(1))


def test_nothing_detected_is_0() -> None:
    curve = row_of(3, [])
    assert (curve.ap_11_point(), curve.ap_area()) == (0, 0)


def test_without_objects_ap_is_undefined() -> None:
    curve = curve_of([Thing(1, WHOLE)], [Guess(0, WHOLE, 0.9)])
    assert (curve.ap_11_point(), curve.ap_area()) == (None, None)


def test_the_mean_leaves_out_classes_without_objects() -> None:
    truth = truth_of(Thing(0, WHOLE), Thing(1, AWAY), classes=3)
    metrics = score(truth, found_of(Guess(0, WHOLE, 0.9), Guess(2, AWAY, 0.9)), ["voc07", "voc"])
    assert metrics["voc07"]["mAP50"] == metrics["voc"]["mAP50"] == 0.5
    assert metrics["per_class"]["c"] == {"objects": 0, "voc07_AP50": None, "voc_AP50": None}


def test_the_mean_over_thresholds_has_ten_of_them() -> None:
    metrics = score(truth_of(Thing(0, WHOLE)), found_of(Guess(0, HALF, 0.9)), ["voc"])
    assert metrics["voc"] == {"mAP50": 1, "mAP": pytest.approx(0.1)}
