"""The kinds of errors and what they cost, on cases that can be checked by hand."""

from __future__ import annotations

import pytest

from detector.evaluation.error_kinds import IGNORED, KINDS, RIGHT, ErrorKinds, find_error_kinds, worst_images
from detector.evaluation.matching import match_all
from tests.evaluation_sets import Guess, Thing, found_of, truth_of

WHOLE, AWAY = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 10.0, 10.0)
# Their IoU with WHOLE is 0.5, 0.4, 0.1 and 0.05.
HALF, PART, EDGE, TOUCH = (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 4.0), (0.0, 0.0, 10.0, 1.0), (0.0, 0.0, 10.0, 0.5)
# With a recall of one half, 51 of COCO's 101 points are reached.
HALF_AP = 51 / 101


def kinds_of(things: list[Thing], guesses: list[Guess], images: int = 1) -> ErrorKinds:
    truth, found = truth_of(*things, images=images, classes=2), found_of(*guesses)
    return find_error_kinds(truth, found, match_all(truth, found))


def named(kinds: ErrorKinds) -> list[str]:
    """The kinds of the detections, those of class a first, by falling score."""
    return [{RIGHT: "right", IGNORED: "ignored"}.get(number) or KINDS[number] for number in kinds.kind.tolist()]


def only(**counts: int) -> dict[str, int]:
    return dict.fromkeys(KINDS, 0) | counts


@pytest.mark.parametrize(
    ("label", "box", "kind"),
    [
        (0, WHOLE, "right"), (0, HALF, "right"), (0, PART, "location"), (0, EDGE, "location"), (0, TOUCH, "background"),
        (1, WHOLE, "class"), (1, HALF, "class"), (1, PART, "both"), (1, EDGE, "background"), (1, TOUCH, "background"),
        (0, AWAY, "background"), (1, AWAY, "background"),
    ],
)  # fmt: skip
def test_the_kind_follows_from_class_and_overlap(label: int, box: tuple[float, ...], kind: str) -> None:
    assert named(kinds_of([Thing(0, WHOLE)], [Guess(label, box, 0.9)])) == [kind]


def test_a_second_detection_is_a_duplicate() -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [Guess(0, WHOLE, 0.8), Guess(0, HALF, 0.9)])
    assert named(kinds) == ["right", "duplicate"]
    assert kinds.counts == only(duplicate=1)


def test_a_wrong_place_goes_before_a_wrong_class() -> None:
    kinds = kinds_of([Thing(0, PART), Thing(1, WHOLE)], [Guess(0, WHOLE, 0.9)])
    assert named(kinds) == ["location"]


def test_what_a_crowd_explains_is_ignored() -> None:
    kinds = kinds_of([Thing(0, WHOLE, crowd=True), Thing(0, AWAY)], [Guess(0, HALF, 0.9), Guess(0, AWAY, 0.8)])
    assert named(kinds) == ["ignored", "right"]
    assert kinds.ap50 == pytest.approx(1)


def test_a_crowd_is_neither_missed_nor_stood_for() -> None:
    kinds = kinds_of([Thing(0, WHOLE, crowd=True), Thing(0, AWAY)], [Guess(1, WHOLE, 0.9)])
    assert kinds.counts == only(background=1, missed=1)
    assert kinds.missed.tolist() == [False, True]


def test_an_object_that_nothing_touches_is_missed() -> None:
    kinds = kinds_of([Thing(0, WHOLE), Thing(0, AWAY)], [Guess(0, WHOLE, 0.9)])
    assert kinds.counts == only(missed=1)
    assert kinds.missed.tolist() == [False, True]


@pytest.mark.parametrize("guess", [Guess(1, WHOLE, 0.9), Guess(0, PART, 0.9)])
def test_an_object_that_an_error_stands_for_is_not_missed(guess: Guess) -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [guess])
    assert (kinds.target.tolist(), kinds.counts["missed"]) == ([0], 0)


@pytest.mark.parametrize("guess", [Guess(1, PART, 0.9), Guess(0, TOUCH, 0.9)])
def test_other_errors_stand_for_nothing(guess: Guess) -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [guess])
    assert (kinds.target.tolist(), kinds.counts["missed"]) == ([-1], 1)


# Cost


@pytest.mark.parametrize(
    ("guess", "kind"), [(Guess(1, WHOLE, 0.9), "class"), (Guess(0, PART, 0.9), "location")], ids=["class", "location"]
)
def test_mending_class_or_place_finds_the_object(guess: Guess, kind: str) -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [guess])
    assert kinds.ap50 == 0
    assert kinds.cost == {name: pytest.approx(float(name == kind)) for name in KINDS}


def test_only_the_best_of_several_errors_finds_its_object() -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [Guess(0, PART, 0.9), Guess(0, PART, 0.8)])
    assert kinds.counts == only(location=2)
    assert kinds.cost["location"] == pytest.approx(1)


def test_mending_an_error_beside_a_right_detection_only_removes_it() -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [Guess(0, WHOLE, 0.8), Guess(0, PART, 0.9)])
    assert named(kinds) == ["location", "right"]
    assert kinds.ap50 == pytest.approx(1 / 2)
    assert kinds.cost["location"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [(Guess(0, AWAY, 0.9), "background"), (Guess(0, (0.0, 0.0, 10.0, 5.0), 0.9, 1), "both")],
    ids=["background", "both"],
)
def test_mending_other_errors_removes_them(wrong: Guess, kind: str) -> None:
    things = [Thing(0, WHOLE, 0), Thing(1, (0.0, 0.0, 10.0, 2.0), 1)]
    kinds = kinds_of(things, [Guess(0, WHOLE, 0.8), Guess(1, things[1].box, 0.8, 1), wrong], images=2)
    assert kinds.ap50 == pytest.approx((1 / 2 + 1) / 2)
    assert kinds.cost == {name: pytest.approx(0.25 * (name == kind)) for name in KINDS}


def test_mending_duplicates_removes_them() -> None:
    things = [Thing(0, WHOLE, 0), Thing(0, WHOLE, 1)]
    guesses = [Guess(0, WHOLE, 0.9, 0), Guess(0, WHOLE, 0.8, 0), Guess(0, WHOLE, 0.7, 1)]
    kinds = kinds_of(things, guesses, images=2)
    assert kinds.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert kinds.cost["duplicate"] == pytest.approx(50 / 3 / 101)


def test_missed_objects_cost_the_recall_that_they_withhold() -> None:
    kinds = kinds_of([Thing(0, WHOLE), Thing(0, AWAY)], [Guess(0, WHOLE, 0.9)])
    assert kinds.ap50 == pytest.approx(HALF_AP)
    assert kinds.cost == {name: pytest.approx((1 - HALF_AP) * (name == "missed")) for name in KINDS}


def test_where_all_objects_are_missed_nothing_is_left_to_win() -> None:
    kinds = kinds_of([Thing(0, WHOLE)], [])
    assert (kinds.ap50, kinds.cost["missed"]) == (0, 0)


def test_without_objects_nothing_is_defined_and_nothing_costs() -> None:
    kinds = kinds_of([], [Guess(0, WHOLE, 0.9)])
    assert kinds.ap50 is None
    assert kinds.counts == only(background=1)
    assert set(kinds.cost.values()) == {0.0}


# Images


def test_errors_are_counted_for_each_image() -> None:
    truth = truth_of(Thing(0, WHOLE, 0), Thing(0, WHOLE, 2), images=3, classes=2)
    found = found_of(Guess(1, WHOLE, 0.9, 0), Guess(0, AWAY, 0.8, 1), Guess(0, AWAY, 0.7, 1), Guess(0, AWAY, 0.29, 1))
    matches = match_all(truth, found)
    table = worst_images(truth, found, matches, find_error_kinds(truth, found, matches))
    counts = [dict(zip(KINDS, row, strict=True)) for row in table.tolist()]
    assert counts == [only(**{"class": 1}), only(background=2), only(missed=1)]
