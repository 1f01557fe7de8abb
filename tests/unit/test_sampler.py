"""The order of training: complete, in groups, and a function of seed and position alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.data.sampler import TrainingOrder

EPOCHS = 4
EXAMPLES = settings(max_examples=100, deadline=None, database=None, derandomize=True)
groups = st.lists(st.booleans(), min_size=1, max_size=40)
batch_sizes = st.integers(1, 16)
seeds = st.integers(0, 2**31 - 1)


def order_of(wide: list[bool], batch_size: int, seed: int, epochs: int = EPOCHS) -> list[int]:
    order = TrainingOrder(np.array(wide), batch_size, seed)
    return [order.index(position) for position in range(epochs * len(wide))]


def mixed_batches(wide: list[bool], batch_size: int, indices: list[int]) -> list[int]:
    """The numbers of the whole batches that hold images of both groups."""
    whole = len(indices) // batch_size
    batches = [indices[number * batch_size : (number + 1) * batch_size] for number in range(whole)]
    return [number for number, batch in enumerate(batches) if len({wide[index] for index in batch}) > 1]


@EXAMPLES
@given(groups, batch_sizes, seeds)
def test_every_image_comes_once_an_epoch(wide: list[bool], batch_size: int, seed: int) -> None:
    order, count = order_of(wide, batch_size, seed), len(wide)
    for epoch in range(EPOCHS):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


@EXAMPLES
@given(groups, batch_sizes, seeds)
def test_inside_an_epoch_at_most_one_batch_mixes_the_groups(wide: list[bool], batch_size: int, seed: int) -> None:
    count = len(wide)
    mixed = mixed_batches(wide, batch_size, order_of(wide, batch_size, seed))
    for epoch in range(EPOCHS):
        first, last = epoch * count, (epoch + 1) * count - batch_size
        assert sum(first <= number * batch_size <= last for number in mixed) <= 1


@EXAMPLES
@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 8), seeds)
def test_groups_that_fill_their_batches_never_mix(wide: int, tall: int, batch_size: int, seed: int) -> None:
    flags = [True] * (wide * batch_size) + [False] * (tall * batch_size)
    if flags:
        assert mixed_batches(flags, batch_size, order_of(flags, batch_size, seed)) == []


@EXAMPLES
@given(groups, batch_sizes, seeds, st.randoms(use_true_random=False))
def test_a_position_does_not_depend_on_what_was_asked_before(
    wide: list[bool], batch_size: int, seed: int, shuffler: random.Random
) -> None:
    expected = order_of(wide, batch_size, seed)
    positions = list(range(len(expected)))
    shuffler.shuffle(positions)
    order = TrainingOrder(np.array(wide), batch_size, seed)
    assert all(order.index(position) == expected[position] for position in positions)


def test_seven_images_in_batches_of_three_are_complete() -> None:
    """Two wide and five tall ones: batches begin in the middle of an epoch, and groups leave two over."""
    order = order_of([True, True, False, False, False, False, False], 3, seed=0)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert len(mixed_batches([True, True] + [False] * 5, 3, order[:7])) == 1


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_one_image_comes_again_and_again(batch_size: int) -> None:
    assert order_of([True], batch_size, seed=0, epochs=9) == [0] * 9


def test_epochs_have_orders_of_their_own() -> None:
    order = order_of([True] * 30, 4, seed=0)
    assert order[:30] != order[30:60]
    assert order[:30] != list(range(30))


def test_seeds_have_orders_of_their_own() -> None:
    assert order_of([True] * 30, 4, seed=0) != order_of([True] * 30, 4, seed=1)


def test_the_order_does_not_depend_on_global_streams() -> None:
    np.random.seed(1)  # noqa: NPY002, the old stream is what is tested
    first = order_of([True] * 30, 4, seed=0)
    np.random.seed(2)  # noqa: NPY002
    assert order_of([True] * 30, 4, seed=0) == first


def test_batches_of_both_groups_come_in_random_order() -> None:
    flags = [True] * 20 + [False] * 20
    kinds = [flags[index] for index in order_of(flags, 4, seed=0, epochs=1)][::4]
    assert sorted(kinds) == [False] * 5 + [True] * 5
    assert kinds not in ([True] * 5 + [False] * 5, [False] * 5 + [True] * 5)


def test_a_late_position_is_found_at_once() -> None:
    order = TrainingOrder(np.ones(10, dtype=bool), 4, seed=0)
    assert 0 <= order.index(10**12) < 10
