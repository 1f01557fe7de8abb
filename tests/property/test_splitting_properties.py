"""What holds for all data sets that are split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.data.doctor.likeness import Pair, groups
from detector.data.raw.splitting import split_groups

QUICK = settings(deadline=None, max_examples=150)


@dataclass(frozen=True)
class Case:
    """A data set to split."""

    groups: np.ndarray
    objects: np.ndarray
    names: list[str]
    shares: list[float]
    seed: int

    def split(self) -> np.ndarray:
        return split_groups(self.groups, self.objects, self.names, self.shares, self.seed)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count, classes = draw(st.integers(1, 40)), draw(st.integers(0, 4))
    labels = st.lists(st.integers(0, draw(st.integers(0, 40))), min_size=count, max_size=count)
    amounts = st.lists(st.sampled_from((0, 0, 0, 1, 2, 9)), min_size=count * classes, max_size=count * classes)
    parts = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    objects = np.array(draw(amounts), dtype=np.int64).reshape(count, classes)
    names = [f"{number}.jpg" for number in range(count)]
    return Case(np.array(draw(labels)), objects, names, [part / sum(parts) for part in parts], draw(st.integers(0, 9)))


@QUICK
@given(case=cases())
def test_every_image_is_in_one_split(case: Case) -> None:
    split = case.split()
    assert split.shape == case.groups.shape
    assert set(split.tolist()) <= set(range(len(case.shares)))


@QUICK
@given(case=cases())
def test_no_group_is_cut(case: Case) -> None:
    split = case.split()
    assert all(len(set(split[case.groups == group].tolist())) == 1 for group in case.groups)


@QUICK
@given(case=cases())
def test_the_same_seed_gives_the_same(case: Case) -> None:
    assert case.split().tolist() == case.split().tolist()


@QUICK
@given(case=cases())
def test_no_split_is_off_its_share_of_images_by_more_than_the_largest_group(case: Case) -> None:
    counts = np.bincount(case.split(), minlength=len(case.shares))
    largest = np.unique(case.groups, return_counts=True)[1].max()
    assert np.abs(counts - len(case.groups) * np.array(case.shares)).max() <= largest + 1e-6


@QUICK
@given(case=cases(), places=st.permutations(range(40)))
def test_the_order_of_images_changes_nothing(case: Case, places: list[int]) -> None:
    order = [place for place in places if place < len(case.names)]
    relabelled = case.groups[order] * -7 + 3
    names = [case.names[image] for image in order]
    split = split_groups(relabelled, case.objects[order], names, case.shares, case.seed)
    assert split.tolist() == case.split()[order].tolist()


@QUICK
@given(count=st.integers(2, 60), parts=st.integers(2, 5), seed=st.integers(0, 9))
def test_a_class_is_in_every_split_if_it_has_an_image_for_each(count: int, parts: int, seed: int) -> None:
    objects = np.ones((count, 1), dtype=np.int64)
    objects[parts:] = 0
    names = [str(number) for number in range(count)]
    split = split_groups(np.arange(count), objects, names, [1 / parts] * parts, seed)
    assert len(set(split[:parts].tolist())) == min(parts, count)


def test_a_rare_class_is_in_the_small_split_too() -> None:
    objects = np.zeros((100, 2), dtype=np.int64)
    objects[:, 0], objects[:2, 1] = 1, 1
    split = split_groups(np.arange(100), objects, [str(number) for number in range(100)], [0.9, 0.1], seed=0)
    assert sorted(split[:2].tolist()) == [0, 1]


def test_objects_are_shared_out_where_images_have_many_or_few() -> None:
    rng = np.random.default_rng(0)
    objects = rng.geometric(0.1, (500, 3)) * (rng.random((500, 3)) < (0.9, 0.3, 0.05))
    names = [str(number) for number in range(500)]
    split = split_groups(np.arange(500), objects, names, [0.8, 0.2], seed=0)
    shares = objects[split == 1].sum(axis=0) / objects.sum(axis=0)
    assert np.abs(shares - 0.2).max() < 0.02


def test_another_seed_gives_another_split() -> None:
    images, none, names = np.arange(50), np.zeros((50, 0), dtype=np.int64), [str(number) for number in range(50)]
    one, other = (split_groups(images, none, names, [0.5, 0.5], seed).tolist() for seed in (0, 1))
    assert one != other


PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


@QUICK
@given(ends=PAIRS)
def test_groups_are_the_smallest_that_hold_all_pairs(ends: list[tuple[int, int]]) -> None:
    found = groups([Pair(*sorted(pair), same=False) for pair in ends], 20)
    expected = list(range(20))
    for first, second in ends:
        expected = [expected[first] if label == expected[second] else label for label in expected]
    assert [[a == b for b in found.tolist()] for a in found.tolist()] == [[a == b for b in expected] for a in expected]
