"""The average of the weights: hand-checkable numbers, and no tie to the network in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detector.engine.average import WeightAverage
from tests.tiny import tiny_model


def one_weight(value: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def weight_of(model: nn.Module) -> float:
    return model.get_parameter("weight").item()


def test_it_starts_as_a_copy_of_the_weights() -> None:
    assert weight_of(WeightAverage(one_weight(5.0), 0.9).model) == 5.0


def test_its_start_does_not_follow_the_network() -> None:
    layer = one_weight(5.0)
    average = WeightAverage(layer, 0.9)
    nn.init.constant_(layer.get_parameter("weight"), 7.0)
    assert weight_of(average.model) == 5.0


@pytest.mark.parametrize(
    ("iteration", "expected"), [(1, 9.0), (2, 9.0 * 11 / 12), (10, 4.95), (90, 0.99), (10**6, 0.99)]
)
def test_early_updates_count_for_more(iteration: int, expected: float) -> None:
    average = WeightAverage(one_weight(0.0), 0.91)
    average.update(one_weight(11.0), iteration)
    assert weight_of(average.model) == pytest.approx(expected)


def test_the_decay_is_the_share_of_the_old_average() -> None:
    average = WeightAverage(one_weight(1.0), 0.75)
    for value in (0.0, 0.0):
        average.update(one_weight(value), 1000)
    assert weight_of(average.model) == pytest.approx(0.75**2)


def test_an_update_leaves_the_network_alone() -> None:
    layer = one_weight(3.0)
    WeightAverage(one_weight(1.0), 0.5).update(layer, 1000)
    assert weight_of(layer) == 3.0


def test_the_average_of_what_does_not_change_is_the_same_to_the_last_bit() -> None:
    model = tiny_model()
    average = WeightAverage(model, 0.9998)
    for iteration in range(1, 20):
        average.update(model, iteration)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(average.state_dict()[name], value, rtol=0, atol=0)


def test_running_statistics_are_averaged_and_counts_copied() -> None:
    norm = nn.BatchNorm2d(1)
    average = WeightAverage(norm, 0.5)
    norm.get_buffer("running_mean").fill_(8.0)
    norm.get_buffer("num_batches_tracked").fill_(3)
    average.update(norm, 1000)
    assert float(average.model.get_buffer("running_mean")) == 4.0
    assert int(average.model.get_buffer("num_batches_tracked")) == 3


def test_it_is_in_evaluation_mode_and_needs_no_gradient() -> None:
    average = WeightAverage(tiny_model().train(), 0.9)
    assert not any(module.training for module in average.model.modules())
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


def test_the_network_keeps_its_mode_and_gradients() -> None:
    model = tiny_model().train()
    WeightAverage(model, 0.9).update(model, 1)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_its_state_comes_back() -> None:
    average = WeightAverage(one_weight(2.0), 0.9)
    other = WeightAverage(one_weight(0.0), 0.9)
    other.load_state_dict(average.state_dict())
    assert weight_of(other.model) == 2.0
