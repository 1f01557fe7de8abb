"""Confusion, calibration and slices, on cases that can be checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from detector.evaluation.confusion import calibration, confuse, slices
from detector.evaluation.matching import match_all
from tests.evaluation_sets import Box, Guess, Thing, found_of, truth_of

BOX, HALF, PART, AWAY = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 4.0), (50.0, 50.0, 10.0, 10.0)


def table_of(things: list[Thing], guesses: list[Guess], score: float = 0.5) -> list[list[int]]:
    return confuse(truth_of(*things, classes=2), found_of(*guesses), score).table.tolist()  # type: ignore[no-any-return]


# Confusion: rows are true classes a, b and background, columns detected ones and what nothing took.


def test_a_found_object_stands_on_the_diagonal() -> None:
    assert table_of([Thing(1, BOX)], [Guess(1, HALF, 0.9)]) == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_an_object_of_a_that_is_taken_for_b_stands_in_row_a_and_column_b() -> None:
    assert table_of([Thing(0, BOX)], [Guess(1, BOX, 0.9)]) == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_an_object_that_nothing_took_stands_in_the_last_column() -> None:
    assert table_of([Thing(0, BOX)], [Guess(0, PART, 0.9)]) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_a_detection_of_background_stands_in_the_last_row() -> None:
    assert table_of([], [Guess(1, BOX, 0.9)]) == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_of_two_detections_the_better_takes_the_object_whatever_its_class() -> None:
    guesses = [Guess(0, BOX, 0.8), Guess(1, BOX, 0.9)]
    assert table_of([Thing(0, BOX)], guesses) == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_scores_below_the_threshold_are_not_looked_at() -> None:
    guesses = [Guess(0, BOX, 0.5), Guess(1, AWAY, 0.49)]
    assert table_of([Thing(0, BOX)], guesses) == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_crowds_and_what_only_they_explain_are_left_out() -> None:
    things = [Thing(0, BOX, crowd=True), Thing(1, AWAY)]
    assert table_of(things, [Guess(1, HALF, 0.9)]) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_more_than_100_detections_of_an_image_are_counted() -> None:
    guesses = [Guess(0, (20.0 * number, 0.0, 10.0, 10.0), 0.9) for number in range(150)]
    assert table_of([], guesses) == [[0, 0, 0], [0, 0, 0], [150, 0, 0]]


def test_without_anything_the_table_is_empty() -> None:
    assert table_of([], []) == [[0, 0, 0]] * 3


# Calibration


def rows_of(*scored: tuple[float, bool]) -> list[dict[str, float]]:
    """Detections with their scores, each in an image of its own, on an object or beside it."""
    things = [Thing(0, BOX, image) for image in range(len(scored))]
    guesses = [Guess(0, BOX if true else AWAY, score, image) for image, (score, true) in enumerate(scored)]
    truth = truth_of(*things, images=len(scored))
    return calibration(match_all(truth, found_of(*guesses)))


def test_a_row_tells_how_many_of_a_tenth_are_true() -> None:
    (row,) = rows_of((0.91, True), (0.93, False), (0.95, True), (0.97, True))
    assert row == {"from": 0.9, "to": 1.0, "detections": 4, "mean_score": pytest.approx(0.94), "true": 0.75}


def test_a_tenth_without_detections_has_no_row() -> None:
    assert [row["from"] for row in rows_of((0.05, True), (0.25, False))] == [0.0, 0.2]


def test_a_score_of_1_is_of_the_last_tenth() -> None:
    assert [(row["from"], row["to"]) for row in rows_of((1.0, True))] == [(0.9, 1.0)]


def test_what_a_crowd_explains_is_not_calibrated() -> None:
    truth = truth_of(Thing(0, BOX, crowd=True))
    assert calibration(match_all(truth, found_of(Guess(0, BOX, 0.9)))) == []


# Slices


def sliced(things: list[Thing], guesses: list[Guess], score: float = 0.5) -> dict[str, dict[str, dict[str, Any]]]:
    truth = truth_of(*things)
    found = slices(truth, match_all(truth, found_of(*guesses)), score)
    return {title: {row["name"]: row for row in rows} for title, rows in found.items()}


@pytest.mark.parametrize(
    ("box", "side", "shape"),
    [
        ((0, 0, 15, 15), "under 16 px", "square"),
        ((0, 0, 16, 16), "16 to 32", "square"),
        ((0, 0, 32, 32), "32 to 64", "square"),
        ((0, 0, 64, 64), "64 to 128", "square"),
        ((0, 0, 128, 128), "128 to 256", "square"),
        ((0, 0, 256, 256), "256 and more", "square"),
        ((0, 0, 10, 21), "under 16 px", "tall"),
        ((0, 0, 10, 20), "under 16 px", "upright"),
        ((0, 0, 8, 10), "under 16 px", "square"),
        ((0, 0, 10, 8), "under 16 px", "broad"),
        ((0, 0, 20, 10), "under 16 px", "wide"),
    ],
)
def test_an_object_is_of_a_side_and_of_a_shape(box: Box, side: str, shape: str) -> None:
    found = sliced([Thing(0, box)], [])
    counted = {title: [name for name, row in rows.items() if row["objects"]] for title, rows in found.items()}
    assert counted == {"side": [side], "width / height": [shape]}


def test_recall_is_of_the_objects_of_a_slice() -> None:
    things = [Thing(0, BOX), Thing(0, AWAY), Thing(0, (100.0, 0.0, 100.0, 100.0))]
    rows = sliced(things, [Guess(0, BOX, 0.9), Guess(0, AWAY, 0.4)])["side"]
    assert rows["under 16 px"] == {"name": "under 16 px", "objects": 2, "recall": 0.5}
    assert rows["64 to 128"]["recall"] == 0


def test_a_slice_without_objects_has_no_recall() -> None:
    assert sliced([], [])["side"]["16 to 32"] == {"name": "16 to 32", "objects": 0, "recall": None}


def test_crowds_are_in_no_slice() -> None:
    rows = sliced([Thing(0, BOX, crowd=True)], [Guess(0, BOX, 0.9)])["side"]
    assert sum(row["objects"] for row in rows.values()) == 0
