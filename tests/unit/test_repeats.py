"""How often an epoch shows each image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.config.data_schema import DataConfig
from detector.data.repeats import image_repeats
from detector.data.sampler import TrainingOrder
from tests.evaluation_sets import Thing, truth_of

BOX = (0.0, 0.0, 10.0, 10.0)
REPEATS = st.lists(st.floats(0.0, 4.0), min_size=1, max_size=12).filter(lambda items: sum(items) >= 1)


def test_uniform_sampling_shows_each_image_once() -> None:
    assert image_repeats(truth_of(Thing(0, BOX), images=2), DataConfig()) is None


def test_an_image_is_repeated_by_the_root_of_threshold_over_share_of_its_rarest_class() -> None:
    # Class 0 is in all four images, class 1 in the last.
    truth = truth_of(*(Thing(0, BOX, image) for image in range(4)), Thing(1, BOX, 3), images=4, classes=2)
    repeats = image_repeats(truth, DataConfig(sampling="repeat_factor", repeat_threshold=1.0))
    assert repeats is not None
    assert repeats.tolist() == [1, 1, 1, 2]


def test_class_balanced_sampling_shows_each_class_equally_often() -> None:
    truth = truth_of(*(Thing(0, BOX, image) for image in range(3)), Thing(1, BOX, 3), images=4, classes=2)
    repeats = image_repeats(truth, DataConfig(sampling="class_balanced"))
    assert repeats is not None
    assert repeats == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])


def test_class_balanced_sampling_keeps_images_without_objects() -> None:
    truth = truth_of(Thing(0, BOX, 0), Thing(1, BOX, 1), images=4, classes=2)
    repeats = image_repeats(truth, DataConfig(sampling="class_balanced"))
    assert repeats is not None
    assert repeats == pytest.approx([1, 1, 1, 1])


def order_of(repeats: list[float], seed: int = 0) -> TrainingOrder:
    return TrainingOrder(np.arange(len(repeats)) % 2 == 0, 4, seed, np.array(repeats))


@given(REPEATS, st.integers(0, 100))
def test_an_epoch_shows_an_image_as_often_as_it_should_give_or_take_one(repeats: list[float], epoch: int) -> None:
    order = order_of(repeats)
    length = order.epoch_length
    shown = [order.index(position) for position in range(epoch * length, (epoch + 1) * length)]
    wanted = np.array(repeats) * length / sum(repeats)
    assert (np.abs(np.bincount(shown, minlength=len(repeats)) - wanted) < 1 + 1e-6).all()


@given(st.integers(1, 12), st.integers(0, 5))
def test_repeats_of_one_are_no_repeats(images: int, epoch: int) -> None:
    order, plain = order_of([1.0] * images), TrainingOrder(np.arange(images) % 2 == 0, 4, 0)
    positions = range(epoch * images, (epoch + 1) * images)
    assert sorted(map(order.index, positions)) == sorted(map(plain.index, positions))


def test_over_many_epochs_the_mean_is_met() -> None:
    order = order_of([0.25, 1.0, 2.5, 0.25])
    shown = np.bincount([order.index(position) for position in range(4 * 500)], minlength=4)
    assert shown / 500 == pytest.approx([0.25, 1.0, 2.5, 0.25], abs=0.1)
