"""The bootstrap over images, on draws that can be checked by hand; and the comparison that rests on it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from detector.evaluation.comparison import compare, format_comparison
from detector.evaluation.intervals import Interval, draw_images, interval, mean_over_classes, resampled_ap
from detector.evaluation.matching import image_ranks, match_all
from tests.evaluation_sets import Guess, Thing, chosen, fair_set, found_of, truth_of

BOX, AWAY = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 10.0, 10.0)
HALF_AP = 51 / 101


def ap50_of(things: list[Thing], guesses: list[Guess], draws: list[list[int]], classes: int = 1) -> list[list[float]]:
    """AP50 of each class in each draw."""
    truth, table = truth_of(*things, images=len(draws[0]), classes=classes), np.array(draws, dtype=np.uint8)
    matches = match_all(truth, found_of(*guesses))
    return resampled_ap(truth, matches, image_ranks(truth.image_ids), table)[:, 0].tolist()  # type: ignore[no-any-return]


# Draws


def test_a_draw_has_as_many_images_as_there_are() -> None:
    assert (draw_images(50, samples=20).sum(axis=1) == 50).all()


def test_the_same_seed_draws_the_same() -> None:
    assert draw_images(50, 20, seed=3).tobytes() == draw_images(50, 20, seed=3).tobytes()


def test_another_seed_draws_otherwise() -> None:
    assert draw_images(50, 20, seed=3).tobytes() != draw_images(50, 20, seed=4).tobytes()


def test_more_samples_begin_with_the_same_draws() -> None:
    assert draw_images(50, 30)[:20].tobytes() == draw_images(50, 20).tobytes()


def test_a_third_and_more_of_the_images_are_left_out_of_a_draw() -> None:
    assert (draw_images(1000, 100) == 0).mean() == pytest.approx(math.exp(-1), abs=0.01)


# AP of a draw


def test_an_image_counts_as_often_as_it_is_drawn() -> None:
    things = [Thing(0, BOX, 0), Thing(0, BOX, 1)]
    draws = [[1, 1], [2, 0], [0, 2]]
    assert ap50_of(things, [Guess(0, BOX, 0.9, 0)], draws) == [[pytest.approx(HALF_AP)], [pytest.approx(1)], [0]]


def test_a_false_detection_counts_as_often_as_its_image() -> None:
    things = [Thing(0, BOX, 0), Thing(0, BOX, 1)]
    guesses = [Guess(0, AWAY, 0.9, 0), Guess(0, BOX, 0.8, 0), Guess(0, BOX, 0.7, 1)]
    # By falling score: false, true, true, each as often as drawn; precision at the last is the best.
    found = ap50_of(things, guesses, [[1, 1], [2, 0], [0, 2]])
    assert found == [[pytest.approx(2 / 3)], [pytest.approx(1 / 2)], [pytest.approx(1)]]


def test_what_a_crowd_explains_counts_in_no_draw() -> None:
    things = [Thing(0, AWAY, 0, crowd=True), Thing(0, BOX, 0), Thing(0, BOX, 1)]
    guesses = [Guess(0, AWAY, 0.9, 0), Guess(0, BOX, 0.8, 0), Guess(0, BOX, 0.7, 1)]
    assert ap50_of(things, guesses, [[1, 1], [2, 0], [0, 2]]) == [[pytest.approx(1)]] * 3


def test_a_draw_without_objects_of_a_class_does_not_define_its_ap() -> None:
    things = [Thing(0, BOX, 0), Thing(1, BOX, 1)]
    found = ap50_of(things, [Guess(0, BOX, 0.9, 0)], [[2, 0], [0, 2]], classes=2)
    np.testing.assert_allclose(found, [[1, np.nan], [np.nan, 0]], rtol=1e-12)


def test_draws_follow_the_order_of_ids_and_not_that_of_the_file() -> None:
    truth = truth_of(Thing(0, BOX, 0), Thing(0, BOX, 1), images=2, image_ids=(9, 4))
    matches = match_all(truth, found_of(Guess(0, BOX, 0.9, 0)))
    drawn = resampled_ap(truth, matches, image_ranks(truth.image_ids), np.array([[0, 2], [2, 0]], dtype=np.uint8))
    assert drawn[:, 0, 0].tolist() == [pytest.approx(1), 0]


def test_the_mean_over_classes_is_of_what_is_defined() -> None:
    values = np.array([[[0.2, np.nan, 0.6]], [[np.nan, np.nan, np.nan]]])
    np.testing.assert_allclose(mean_over_classes(values), [0.4, np.nan], rtol=1e-15)


# Intervals


def test_an_interval_leaves_out_a_fortieth_on_either_side() -> None:
    assert interval(np.linspace(0.3, 0.7, 401), 0.5) == Interval(pytest.approx(0.31), pytest.approx(0.69))


def test_an_interval_is_moved_to_the_measured_number() -> None:
    assert interval(np.linspace(0.3, 0.7, 401), 0.45) == Interval(pytest.approx(0.26), pytest.approx(0.64))


def test_an_interval_of_equal_draws_is_the_number() -> None:
    assert interval(np.full(100, 0.7), 0.7) == Interval(pytest.approx(0.7), pytest.approx(0.7))


def test_an_interval_contains_the_number_though_the_draws_are_lopsided() -> None:
    found = interval(np.array([0.0] * 2 + [0.5] * 98), 0.5)
    assert found is not None
    assert found.low <= 0.5 <= found.high


def test_undefined_draws_are_left_out() -> None:
    values = np.concatenate([np.linspace(0.3, 0.7, 401), np.full(400, np.nan)])
    assert interval(values, 0.5) == Interval(pytest.approx(0.31), pytest.approx(0.69))


def test_where_most_draws_are_undefined_there_is_no_interval() -> None:
    assert interval(np.array([0.5, np.nan, np.nan]), 0.5) is None


def test_an_undefined_number_has_no_interval() -> None:
    assert interval(np.full(100, 0.7), None) is None


# Comparison


def test_a_detector_equals_itself() -> None:
    truth, found = fair_set()
    result = compare(truth, found, found, samples=100)
    row = result["AP"]
    assert (row["difference"], row["low"], row["high"]) == (0, 0, 0)
    assert "no real difference can be seen: B - A is +0.0 AP" in format_comparison(result, "one", "other")


def test_the_other_way_round_the_difference_has_the_other_sign() -> None:
    truth, found = fair_set()
    worse = chosen(found, np.arange(len(found)) % 3 > 0)
    forth, back = (compare(truth, *pair, samples=100)["AP"] for pair in ((found, worse), (worse, found)))
    assert (forth["difference"], forth["low"], forth["high"]) == pytest.approx(
        (-back["difference"], -back["high"], -back["low"])
    )
    assert forth["probability_b_better"] + back["probability_b_better"] == pytest.approx(1)


@pytest.mark.parametrize(("turned", "words"), [(False, "A is better by "), (True, "B is better by ")])
def test_a_detector_that_lost_a_third_of_its_detections_is_really_worse(turned: bool, words: str) -> None:
    truth, found = fair_set()
    pair = (found, chosen(found, np.arange(len(found)) % 3 > 0))
    result = compare(truth, *(pair[::-1] if turned else pair), samples=100)
    assert format_comparison(result, "one", "other").splitlines()[2].startswith(words)


def test_the_measured_numbers_are_those_of_the_two() -> None:
    things = [Thing(0, BOX, 0), Thing(0, BOX, 1), Thing(1, BOX, 0)]
    truth = truth_of(*things, images=2, classes=3)
    a = found_of(Guess(0, BOX, 0.9, 0), Guess(1, BOX, 0.9, 0))
    b = found_of(Guess(0, BOX, 0.9, 0), Guess(0, BOX, 0.9, 1))
    result = compare(truth, a, b, samples=100)
    numbers = {name: (row["a"], row["b"]) for name, row in result["per_class"].items()}
    assert numbers["a"] == (pytest.approx(HALF_AP), pytest.approx(1))
    assert numbers["b"] == (pytest.approx(1), 0)
    assert numbers["c"] == (None, None)
    assert result["AP"]["difference"] == pytest.approx((1 - HALF_AP - 1) / 2)


def test_without_ground_truth_nothing_is_compared_and_nothing_is_nan() -> None:
    truth = truth_of(images=3)
    result = compare(truth, found_of(Guess(0, BOX, 0.9)), found_of(), samples=100)
    assert set(result["AP"].values()) == {None}
    json.dumps(result, allow_nan=False)
    assert "there is no ground truth, so nothing can be compared" in format_comparison(result, "one", "other")
