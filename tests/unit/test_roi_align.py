from __future__ import annotations

import torch

from detector.ops.roi_align import pool_regions


def columns(height: int = 10, width: int = 10) -> torch.Tensor:
    """A map whose every cell holds the number of its column."""
    return torch.arange(float(width)).expand(1, height, width)


def test_a_region_that_covers_a_cell_takes_its_value() -> None:
    pooled = pool_regions([columns()], [torch.tensor([[48.0, 16.0, 64.0, 32.0]])], stride=16, side=1, sampling_ratio=0)
    assert pooled.tolist() == [[[[3.0]]]]


def test_bins_take_the_value_at_their_centres() -> None:
    # Columns 2..6 in two bins: centres at 3 and 5, where the ramp is 2.5 and 4.5, since cell i is centred on i + 0.5.
    region = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
    pooled = pool_regions([columns()], [region], stride=16, side=2, sampling_ratio=0)
    torch.testing.assert_close(pooled, torch.tensor([[[[2.5, 4.5], [2.5, 4.5]]]]))


def test_rows_are_y() -> None:
    region = torch.tensor([[32.0, 32.0, 96.0, 96.0]])
    pooled = pool_regions([columns().transpose(1, 2)], [region], stride=16, side=2, sampling_ratio=0)
    torch.testing.assert_close(pooled, torch.tensor([[[[2.5, 2.5], [4.5, 4.5]]]]))


def test_a_sampling_ratio_of_zero_reaches_every_cell_of_a_large_region() -> None:
    spot = torch.zeros(1, 8, 8)
    spot[0, 1, 1] = 64
    whole = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    assert pool_regions([spot], [whole], stride=16, side=1, sampling_ratio=0).item() == 1
    assert pool_regions([spot], [whole], stride=16, side=1, sampling_ratio=1).item() == 0


def test_regions_come_image_after_image() -> None:
    features = [torch.full((2, 4, 4), 1.0), torch.full((2, 3, 5), 2.0)]
    region = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    pooled = pool_regions(features, [region, region.repeat(2, 1)], stride=16, side=3, sampling_ratio=0)
    assert pooled.shape == (3, 2, 3, 3)
    assert pooled.mean(dim=(1, 2, 3)).tolist() == [1.0, 2.0, 2.0]


def test_an_image_may_have_no_regions() -> None:
    region = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    pooled = pool_regions([columns(), columns()], [torch.zeros(0, 4), region], stride=16, side=2, sampling_ratio=0)
    assert pooled.shape == (1, 1, 2, 2)


def test_there_may_be_no_regions_at_all() -> None:
    pooled = pool_regions([columns()], [torch.zeros(0, 4)], stride=16, side=2, sampling_ratio=0)
    assert pooled.shape == (0, 1, 2, 2)


def test_features_of_half_precision_are_pooled_in_float32() -> None:
    region = torch.tensor([[32.0, 32.0, 100.0, 96.0]])
    pooled = pool_regions([columns().bfloat16()], [region], stride=16, side=2, sampling_ratio=0)
    # 2 .. 6.25 in two bins: centres at 3.0625 and 5.1875; bfloat16 knows neither 2.5625 nor 4.6875.
    torch.testing.assert_close(pooled[0, 0, 0], torch.tensor([2.5625, 4.6875]))


def test_gradients_reach_the_features_under_the_region_only() -> None:
    features = columns().clone().requires_grad_()
    region = torch.tensor([[48.0, 16.0, 64.0, 32.0]])
    pool_regions([features], [region], stride=16, side=1, sampling_ratio=0).sum().backward()
    assert features.grad is not None
    assert torch.nonzero(features.grad).tolist() == [[0, 1, 3]]
