from __future__ import annotations

import pytest
import torch

from detector.ops.matching import Role, match_boxes, sample_roles

FOREGROUND, BACKGROUND, IGNORED = Role.FOREGROUND, Role.BACKGROUND, Role.IGNORED


def roles(foreground: int, background: int, ignored: int = 0) -> torch.Tensor:
    return torch.tensor([FOREGROUND] * foreground + [BACKGROUND] * background + [IGNORED] * ignored, dtype=torch.int8)


def test_thresholds_split_background_ignored_and_foreground() -> None:
    # At a threshold: background ends below it, foreground begins with it.
    matches = match_boxes(torch.tensor([[0.29, 0.30, 0.69, 0.70]]), foreground_iou=0.7, background_iou=0.3)
    assert matches.role.tolist() == [BACKGROUND, IGNORED, IGNORED, FOREGROUND]


def test_equal_thresholds_ignore_nothing() -> None:
    matches = match_boxes(torch.tensor([[0.49, 0.50, 0.51]]), foreground_iou=0.5, background_iou=0.5)
    assert matches.role.tolist() == [BACKGROUND, FOREGROUND, FOREGROUND]


def test_a_box_gets_the_truth_that_it_overlaps_most() -> None:
    iou = torch.tensor([[0.8, 0.1, 0.0], [0.7, 0.9, 0.0], [0.0, 0.2, 0.4]])
    assert match_boxes(iou, 0.7, 0.3).truth.tolist() == [0, 1, 2]


def test_a_truth_claims_its_best_box_below_the_threshold() -> None:
    matches = match_boxes(torch.tensor([[0.1, 0.2, 0.0]]), 0.7, 0.3, claim_best=True)
    assert matches.role.tolist() == [BACKGROUND, FOREGROUND, BACKGROUND]


def test_a_truth_claims_all_boxes_that_share_the_best_iou() -> None:
    matches = match_boxes(torch.tensor([[0.4, 0.2, 0.4]]), 0.7, 0.3, claim_best=True)
    assert matches.role.tolist() == [FOREGROUND, BACKGROUND, FOREGROUND]


def test_a_truth_claims_nothing_unless_asked() -> None:
    matches = match_boxes(torch.tensor([[0.1, 0.2, 0.0]]), 0.7, 0.3)
    assert matches.role.tolist() == [BACKGROUND] * 3


def test_a_truth_that_overlaps_no_box_claims_none() -> None:
    iou = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    assert match_boxes(iou, 0.7, 0.3, claim_best=True).role.tolist() == [BACKGROUND, FOREGROUND, BACKGROUND]


def test_a_claimed_box_still_learns_the_truth_that_it_overlaps_most() -> None:
    # The best box of the second truth is box 0, which lies better on the first.
    matches = match_boxes(torch.tensor([[0.6, 0.9], [0.5, 0.0]]), 0.7, 0.3, claim_best=True)
    assert matches.role.tolist() == [FOREGROUND, FOREGROUND]
    assert matches.truth.tolist() == [0, 0]


@pytest.mark.parametrize("claim_best", [False, True])
def test_without_truths_all_boxes_are_background(claim_best: bool) -> None:
    matches = match_boxes(torch.zeros(0, 3), 0.7, 0.3, claim_best)
    assert matches.role.tolist() == [BACKGROUND] * 3
    assert matches.truth.tolist() == [0, 0, 0]


def test_no_boxes_are_matched_to_nothing() -> None:
    matches = match_boxes(torch.zeros(2, 0), 0.5, 0.5)
    assert matches.role.shape == matches.truth.shape == (0,)


@pytest.mark.parametrize("truths", [0, 1])
def test_types_do_not_depend_on_the_number_of_truths(truths: int) -> None:
    matches = match_boxes(torch.zeros(truths, 3), 0.7, 0.3)
    assert (matches.truth.dtype, matches.role.dtype) == (torch.int64, torch.int8)


def test_foreground_is_at_most_the_fraction_rounded_down() -> None:
    foreground, background = sample_roles(roles(50, 50), count=10, foreground_fraction=0.25, seed=0)
    assert (len(foreground), len(background)) == (2, 8)


def test_background_fills_up_where_foreground_is_scarce() -> None:
    foreground, background = sample_roles(roles(1, 50), count=10, foreground_fraction=0.5, seed=0)
    assert (len(foreground), len(background)) == (1, 9)


def test_foreground_does_not_fill_up_where_background_is_scarce() -> None:
    foreground, background = sample_roles(roles(50, 3), count=10, foreground_fraction=0.5, seed=0)
    assert (len(foreground), len(background)) == (5, 3)


def test_ignored_boxes_are_never_drawn() -> None:
    foreground, background = sample_roles(roles(2, 3, ignored=50), count=40, foreground_fraction=0.5, seed=0)
    assert foreground.tolist() == [0, 1]
    assert background.tolist() == [2, 3, 4]


def test_a_seed_repeats_its_draw() -> None:
    first, second = (sample_roles(roles(100, 100), 20, 0.5, seed=3) for _ in range(2))
    assert [part.tolist() for part in first] == [part.tolist() for part in second]


def test_another_seed_draws_others() -> None:
    first, second = (sample_roles(roles(100, 100), 20, 0.5, seed=seed) for seed in (3, 4))
    assert first[0].tolist() != second[0].tolist()
    assert first[1].tolist() != second[1].tolist()


def test_a_seed_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    sample_roles(roles(100, 100), 20, 0.5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_seed_the_global_generator_draws() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(sample_roles(roles(100, 100), 20, 0.5, seed=None)[1].tolist())
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_indices_ascend() -> None:
    for part in sample_roles(roles(100, 100), 60, 0.5, seed=0):
        assert part.tolist() == sorted(part.tolist())


def test_every_box_can_be_drawn() -> None:
    drawn = set()
    for seed in range(40):
        foreground, background = sample_roles(roles(6, 6), 6, 0.5, seed=seed)
        drawn |= {*foreground.tolist(), *background.tolist()}
    assert drawn == set(range(12))


def test_nothing_is_drawn_from_nothing() -> None:
    foreground, background = sample_roles(roles(0, 0), 10, 0.5, seed=0)
    assert foreground.shape == background.shape == (0,)
