"""RoIAlign as a sparse sum of rows, against torchvision's."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torchvision.ops import roi_align

from detector.ops.gather import Taps, bin_taps, gather
from detector.structures import Size

STRIDE = 16
GRID = Size(height=5, width=7)
BOXES = {
    "whole image": [0.0, 0.0, 112.0, 80.0],
    "one cell": [32.0, 16.0, 48.0, 32.0],
    "inside one cell": [33.0, 17.0, 34.0, 18.5],
    "a hundredth of a pixel": [50.0, 40.0, 50.01, 40.01],
    "upper left corner": [0.0, 0.0, 9.0, 5.0],
    "lower right corner": [105.0, 75.5, 112.0, 80.0],
    "left half cell": [0.0, 0.0, 8.0, 80.0],
    "thin and tall": [60.0, 0.0, 60.5, 80.0],
    "flat and wide": [0.0, 33.3, 112.0, 33.9],
    "between the cells": [23.7, 11.1, 97.3, 66.6],
}
GRIDS = [Size(1, 1), Size(1, 9), Size(9, 1), Size(2, 2), GRID]


def all_boxes() -> torch.Tensor:
    return torch.tensor(list(BOXES.values()))


def map_of(grid: Size, channels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, *grid, generator=generator, dtype=torch.float64).to(dtype)


def rows_of(features: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.permute(1, 2, 0).flatten(0, 1) for each in features])


def gathered(features: torch.Tensor, boxes: torch.Tensor, side: int, ratio: int, step: int = 1) -> torch.Tensor:
    """What roi_align gives, ``(N, C, bins, bins)``, by way of rows."""
    taps = bin_taps(boxes, Size(*features.shape[1:]), 0, STRIDE, side, ratio, step)
    bins = len(range(0, side, step))
    return gather(rows_of([features]), taps).view(-1, bins, bins, len(features)).permute(0, 3, 1, 2)


def aligned(features: torch.Tensor, boxes: torch.Tensor, side: int, ratio: int, step: int = 1) -> torch.Tensor:
    """The same from torchvision."""
    pooled = roi_align(features[None], [boxes], side, 1 / STRIDE, ratio, aligned=True)
    return pooled[:, :, ::step, ::step]


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
def test_a_bin_is_what_roi_align_gives(box: list[float], ratio: int) -> None:
    features, boxes = map_of(GRID), torch.tensor([box])
    torch.testing.assert_close(gathered(features, boxes, 4, ratio), aligned(features, boxes, 4, ratio))


@pytest.mark.parametrize("side", [1, 2, 5, 7, 14])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("ratio", [0, 2])
def test_every_stepth_bin_is_pooled(side: int, step: int, ratio: int) -> None:
    features = map_of(GRID)
    found = gathered(features, all_boxes(), side, ratio, step)
    torch.testing.assert_close(found, aligned(features, all_boxes(), side, ratio, step))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("ratio", [0, 1, 2])
def test_maps_may_be_of_any_shape(grid: Size, ratio: int) -> None:
    features = map_of(grid)
    whole = torch.tensor([0.0, 0.0, grid.width * STRIDE, grid.height * STRIDE])
    boxes = whole * torch.tensor([[1.0, 1, 1, 1], [0.3, 0.3, 0.31, 0.4], [0.0, 0.9, 0.1, 1.0]])
    boxes[1:, :2] = torch.stack([whole[2:] * 0.3, whole[2:] * torch.tensor([0.0, 0.9])])
    torch.testing.assert_close(gathered(features, boxes, 3, ratio), aligned(features, boxes, 3, ratio))


def test_a_box_may_reach_past_the_map_as_an_image_past_its_last_cell_does_not() -> None:
    features, boxes = map_of(GRID), torch.tensor([[-40.0, -30.0, 150.0, 120.0]])
    torch.testing.assert_close(gathered(features, boxes, 4, 0), aligned(features, boxes, 4, 0))


def test_a_box_that_rounding_leaves_no_extent_is_pooled_like_any() -> None:
    # In cells, 1e-9 / 16 - 0.5 is -0.5 in float32.
    features, boxes = map_of(GRID), torch.tensor([[0.0, 0.0, 1e-9, 1e-9]])
    torch.testing.assert_close(gathered(features, boxes, 4, 0), aligned(features, boxes, 4, 0))


def test_no_regions_have_no_bins() -> None:
    assert gathered(map_of(GRID), torch.zeros(0, 4), 4, 0).shape == (0, 3, 4, 4)


def test_no_regions_give_the_rows_a_gradient_of_zeros() -> None:
    features = map_of(GRID).requires_grad_()
    gathered(features, torch.zeros(0, 4), 4, 0).sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


def test_images_are_joined_one_after_another() -> None:
    grids, sides = [GRID, Size(2, 3), Size(1, 9)], [all_boxes(), torch.zeros(0, 4), torch.tensor([[3.0, 1, 140, 15]])]
    maps = [map_of(grid, seed=seed) for seed, grid in enumerate(grids)]
    first_rows = [0, 35, 41]
    parts = [
        bin_taps(boxes, grid, row, STRIDE, 3, 0) for boxes, grid, row in zip(sides, grids, first_rows, strict=True)
    ]
    found = gather(rows_of(maps), Taps.joined(parts))
    expected = torch.cat([aligned(each, boxes, 3, 0) for each, boxes in zip(maps, sides, strict=True)])
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1).reshape(-1, 3))


def test_a_constant_map_gives_its_constant() -> None:
    features = torch.full((2, *GRID), 3.0)
    found = gathered(features, all_boxes(), 7, 0)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_a_bin_of_one_sample_sums_at_most_four_cells() -> None:
    taps = bin_taps(torch.tensor([[23.7, 11.1, 97.3, 66.6]]), GRID, 0, STRIDE, 3, 1)
    assert taps.starts.diff().max() <= 4
    assert taps.starts[-1] == len(taps.rows) == len(taps.weights)


def test_a_sum_of_maps_gives_the_sum_of_their_bins() -> None:
    one, other = map_of(GRID, dtype=torch.float64), map_of(GRID, seed=1, dtype=torch.float64)
    together = gathered(2 * one - 3 * other, all_boxes(), 5, 0)
    apart = 2 * gathered(one, all_boxes(), 5, 0) - 3 * gathered(other, all_boxes(), 5, 0)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


@pytest.mark.parametrize("side", [1, 4, 5])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("step", [1, 2])
def test_without_compression_every_bin_has_as_many_taps_and_the_same_sum(side: int, ratio: int, step: int) -> None:
    boxes = torch.cat([all_boxes(), torch.tensor([[0.0, 0.0, 1e-9, 1e-9]])]).double()
    sums, gradients = [], []
    for compress in (True, False):
        features = map_of(GRID, dtype=torch.float64).requires_grad_()
        taps = bin_taps(boxes, GRID, 0, STRIDE, side, ratio, step, compress=compress)
        sums.append(gather(rows_of([features]), taps))
        sums[-1].square().sum().backward()
        gradients.append(features.grad)
    assert len(set(taps.starts.diff().tolist())) == 1
    torch.testing.assert_close(sums[1], sums[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-9)


def test_without_compression_no_regions_have_no_bins() -> None:
    taps = bin_taps(torch.zeros(0, 4), GRID, 0, STRIDE, 4, 0, compress=False)
    assert gather(rows_of([map_of(GRID)]), taps).shape == (0, 3)


def test_without_compression_images_are_joined_one_after_another() -> None:
    maps = [map_of(GRID), map_of(Size(2, 3), seed=1)]
    regions = [all_boxes(), torch.tensor([[3.0, 1.0, 40.0, 30.0]])]
    parts = [
        bin_taps(boxes, grid, row, STRIDE, 3, 0, compress=False)
        for boxes, grid, row in zip(regions, (GRID, Size(2, 3)), (0, 35), strict=True)
    ]
    expected = torch.cat([aligned(each, boxes, 3, 0) for each, boxes in zip(maps, regions, strict=True)])
    found = gather(rows_of(maps), Taps.joined(parts))
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1).reshape(-1, 3))


# Gradients.


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("step", [1, 2])
def test_the_gradient_is_roi_aligns(ratio: int, step: int) -> None:
    boxes = all_boxes().double()
    gradients = []
    for pool in (gathered, aligned):
        features = map_of(GRID, dtype=torch.float64).requires_grad_()
        pooled = pool(features, boxes, 5, ratio, step)
        (pooled * map_of(Size(*pooled.shape[2:]), seed=2, dtype=torch.float64)).sum().backward()
        gradients.append(features.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)


def test_the_gradient_is_that_of_small_differences() -> None:
    features = map_of(Size(3, 4), channels=2, dtype=torch.float64).requires_grad_()
    boxes = torch.tensor([[1.0, 2.0, 60.0, 47.0], [0.0, 0.0, 64.0, 48.0], [30.0, 20.0, 31.0, 20.5]])
    assert torch.autograd.gradcheck(lambda each: gathered(each, boxes.double(), 3, 0, 2), (features,))


def test_the_gradient_is_the_transposed_sum() -> None:
    taps = Taps(torch.tensor([0, 2, 2, 1]), torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([0, 2, 2, 4]))
    rows = torch.eye(3).requires_grad_()
    found = gather(rows, taps)
    assert found.tolist() == [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 8.0, 4.0]]
    found.backward(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
    assert rows.grad is not None
    assert rows.grad.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 8.0], [2.0, 0.0, 4.0]]


def test_forward_and_backward_have_the_same_bits_again() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(300, 2, 2, generator=generator).sort(dim=1).values * torch.tensor([111.0, 79.0])
    boxes = corners.flatten(1) + torch.tensor([0.0, 0.0, 1.0, 1.0])
    results = []
    for _ in range(2):
        features = map_of(GRID, channels=64).requires_grad_()
        pooled = gathered(features, boxes, 7, 0)
        pooled.square().sum().backward()
        assert features.grad is not None
        results.append((pooled.detach(), features.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_nothing_is_computed_for_rows_that_need_no_gradient() -> None:
    assert not gathered(map_of(GRID), all_boxes(), 3, 0).requires_grad


# Precision.


def test_bins_have_the_precision_of_the_rows() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        assert gathered(map_of(GRID, dtype=dtype), all_boxes(), 3, 0).dtype == dtype


def test_bfloat16_is_off_by_its_own_rounding_only() -> None:
    # Values, weights and the result are rounded to 8 bits: 3 / 256 of the largest value that a bin sums.
    features = map_of(GRID, channels=32)
    found = gathered(features.bfloat16(), all_boxes(), 7, 0)
    exact = gathered(features.bfloat16().float(), all_boxes(), 7, 0)
    assert (found.float() - exact).abs().max() <= features.abs().max() * 3 / 256


def test_the_gradient_of_a_bfloat16_row_loses_nothing_to_many_bins() -> None:
    # 4000 equal addends: a sum kept in 8 bits would stop at 256 of them.
    features = torch.ones(1, 1, 1, dtype=torch.bfloat16).requires_grad_()
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).repeat(4000, 1)
    gathered(features, boxes, 1, 1).sum().backward()
    assert features.grad is not None
    assert features.grad.item() == pytest.approx(4000, rel=1 / 128)


def test_many_channels_of_a_bfloat16_row_lose_nothing_either() -> None:
    features = torch.ones(512, 1, 1, dtype=torch.bfloat16).requires_grad_()
    boxes = torch.tensor([[0.0, 0.0, 16.0, 16.0]]).repeat(4000, 1)
    gathered(features, boxes, 1, 1).backward(torch.ones(4000, 512, 1, 1, dtype=torch.bfloat16))
    assert features.grad is not None
    torch.testing.assert_close(features.grad.float(), torch.full((512, 1, 1), 4000.0), rtol=1 / 128, atol=0)
