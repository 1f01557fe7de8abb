"""Precision, recall and F1 by score, and the scores that are chosen from them."""

from __future__ import annotations

import pytest

from detector.evaluation.matching import match_all
from detector.evaluation.operating_points import (
    OperatingPoint,
    ScoreCurve,
    best_common_point,
    choose_thresholds,
    score_curves,
)
from tests.evaluation_sets import Guess, Thing, found_of, truth_of

BOX, AWAY = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 10.0, 10.0)
TWO = [Thing(0, BOX, 0), Thing(0, BOX, 1)]
# True, false, true, false: precision 1, 1/2, 2/3, 1/2; recall 1/2, 1/2, 1, 1.
FOUR = [Guess(0, BOX, 0.9, 0), Guess(0, AWAY, 0.8, 0), Guess(0, BOX, 0.7, 1), Guess(0, AWAY, 0.6, 1)]


def curves_of(things: list[Thing], guesses: list[Guess], classes: int = 1) -> list[ScoreCurve]:
    truth = truth_of(*things, images=2, classes=classes)
    return score_curves(truth, match_all(truth, found_of(*guesses)))


def chosen_of(things: list[Thing], guesses: list[Guess], precision: float | None, classes: int = 1) -> list[float]:
    truth = truth_of(*things, images=2, classes=classes)
    return [point.score for point in choose_thresholds(truth, found_of(*guesses), precision)]


def test_a_curve_has_a_point_for_each_score_and_is_not_made_monotone() -> None:
    (curve,) = curves_of(TWO, FOUR)
    assert curve.scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.recall.tolist() == [0.5, 0.5, 1, 1]
    assert curve.f1.tolist() == pytest.approx([2 / 3, 1 / 2, 4 / 5, 2 / 3])


def test_equal_scores_are_one_point() -> None:
    (curve,) = curves_of(TWO, [guess._replace(score=0.5) for guess in FOUR])
    assert (curve.scores.tolist(), curve.precision.tolist(), curve.recall.tolist()) == ([0.5], [0.5], [1])


def test_detections_that_a_crowd_explains_do_not_count() -> None:
    (curve,) = curves_of([Thing(0, AWAY, crowd=True), *TWO], FOUR[:2])
    assert (curve.precision.tolist(), curve.positives) == ([1], 2)


@pytest.mark.parametrize(
    ("score", "precision", "recall"), [(0.0, 0.5, 1), (0.7, 2 / 3, 1), (0.71, 0.5, 0.5), (0.9, 1, 0.5), (0.91, None, 0)]
)
def test_a_point_holds_from_its_score_on(score: float, precision: float | None, recall: float) -> None:
    (curve,) = curves_of(TWO, FOUR)
    assert curve.at(score) == OperatingPoint(score, pytest.approx(precision) if precision else None, recall)


@pytest.mark.parametrize(
    ("precision", "recall", "f1"), [(0.5, 1.0, 2 / 3), (1.0, 1.0, 1.0), (None, 0.0, 0.0), (0.0, 0.0, 0.0)]
)
def test_f1_is_the_harmonic_mean(precision: float | None, recall: float, f1: float) -> None:
    assert OperatingPoint(0.5, precision, recall).f1 == pytest.approx(f1)


def test_the_best_f1_is_found() -> None:
    (curve,) = curves_of(TWO, FOUR)
    assert curve.best_f1() == OperatingPoint(0.7, pytest.approx(2 / 3), 1.0)


def test_of_equal_f1_the_lowest_score_is_taken() -> None:
    guesses = [Guess(0, BOX, 0.9, 0), Guess(0, AWAY, 0.8), Guess(0, AWAY, 0.7), Guess(0, BOX, 0.6, 1)]
    (curve,) = curves_of(TWO, guesses)
    assert curve.f1.tolist() == pytest.approx([2 / 3, 1 / 2, 2 / 5, 2 / 3])
    assert curve.best_f1() == OperatingPoint(0.6, 0.5, 1.0)


def test_without_a_true_detection_there_is_no_best_f1() -> None:
    (curve,) = curves_of(TWO, [Guess(0, AWAY, 0.9)])
    assert curve.best_f1() is None
    assert curve.for_precision(0.1) is None


@pytest.mark.parametrize(("wanted", "score"), [(0.5, 0.6), (0.6, 0.7), (0.67, 0.9), (1.0, 0.9)])
def test_a_wanted_precision_is_reached_with_the_most_recall(wanted: float, score: float) -> None:
    (curve,) = curves_of(TWO, FOUR)
    point = curve.for_precision(wanted)
    assert point is not None
    assert point.score == score


def test_thresholds_are_chosen_for_each_class() -> None:
    things = [*TWO, Thing(1, BOX, 0)]
    guesses = [*FOUR, Guess(1, BOX, 0.3), Guess(1, AWAY, 0.2)]
    assert chosen_of(things, guesses, None, classes=2) == [0.7, 0.3]
    assert chosen_of(things, guesses, 1.0, classes=2) == [0.9, 0.3]


def test_a_precision_that_no_score_reaches_gives_the_best_f1() -> None:
    guesses = [Guess(0, AWAY, 0.9, 0), Guess(0, BOX, 0.8, 0), Guess(0, AWAY, 0.7, 0)]
    assert chosen_of(TWO, guesses, 0.9) == [0.8]


@pytest.mark.parametrize("precision", [None, 0.9])
def test_where_no_score_will_do_it_is_one_half(precision: float | None) -> None:
    assert chosen_of([], [], precision) == [0.5]
    assert chosen_of(TWO, [], precision) == [0.5]
    assert chosen_of([], FOUR, precision) == [0.5]


def test_the_common_point_has_the_best_mean_f1() -> None:
    things = [*TWO, Thing(1, BOX, 0)]
    curves = curves_of(things, [*FOUR, Guess(1, BOX, 0.8)], classes=2)
    # At 0.7: F1 of 4/5 and 1; below, class a loses precision; above 0.8, class b shows nothing.
    assert best_common_point(curves) == OperatingPoint(0.7, pytest.approx((2 / 3 + 1) / 2), 1.0)


def test_of_equal_mean_f1_the_lowest_common_score_is_taken() -> None:
    curves = curves_of(TWO, [Guess(0, BOX, 0.9, 0), Guess(0, AWAY, 0.8), Guess(0, AWAY, 0.7), Guess(0, BOX, 0.6, 1)])
    assert best_common_point(curves) == OperatingPoint(0.6, 0.5, 1.0)


def test_classes_without_objects_do_not_move_the_common_point() -> None:
    curves = curves_of(TWO, [*FOUR, Guess(1, BOX, 0.95)], classes=2)
    assert best_common_point(curves) == OperatingPoint(0.7, pytest.approx(2 / 3), 1.0)


def test_a_class_that_shows_nothing_has_a_precision_of_0_in_the_mean() -> None:
    curves = curves_of([*TWO, Thing(1, BOX, 0)], FOUR, classes=2)
    assert best_common_point(curves) == OperatingPoint(0.7, pytest.approx(1 / 3), 0.5)


@pytest.mark.parametrize(("things", "guesses"), [([], FOUR), (TWO, []), ([], [])])
def test_without_objects_or_detections_there_is_no_common_point(things: list[Thing], guesses: list[Guess]) -> None:
    assert best_common_point(curves_of(things, guesses)) is None
