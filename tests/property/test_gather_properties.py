"""Laws of the sparse gather for all boxes inside all images."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from detector.ops.gather import Taps, bin_taps, gather
from detector.structures import Size

QUICK = settings(deadline=None, max_examples=100)
STRIDE = 16

SHARE = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
SIDES = st.integers(1, 9)
RATIOS = st.integers(0, 3)
STEPS = st.integers(1, 2)


@st.composite
def images(draw: st.DrawFn) -> tuple[Size, torch.Tensor]:
    """The grid of an image of any size, and boxes inside the image: of any size down to a hundredth of a pixel."""
    height, width = draw(st.integers(1, 160)), draw(st.integers(1, 160))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, x2 = sorted(draw(SHARE) * width for _ in range(2))
        y1, y2 = sorted(draw(SHARE) * height for _ in range(2))
        boxes.append([min(x1, width - 0.01), min(y1, height - 0.01), max(x2, x1 + 0.01), max(y2, y1 + 0.01)])
    return Size(math.ceil(height / STRIDE), math.ceil(width / STRIDE)), torch.tensor(boxes).reshape(-1, 4)


def gathered(features: torch.Tensor, taps: Taps) -> torch.Tensor:
    return gather(features.permute(1, 2, 0).flatten(0, 1), taps)


def aligned(features: torch.Tensor, boxes: torch.Tensor, side: int, ratio: int, step: int) -> torch.Tensor:
    pooled = roi_align(features[None], [boxes], side, 1 / STRIDE, ratio, aligned=True)
    return pooled[:, :, ::step, ::step].permute(0, 2, 3, 1).reshape(-1, len(features))


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, step=STEPS)
def test_bins_are_roi_aligns(image: tuple[Size, torch.Tensor], side: int, ratio: int, step: int) -> None:
    grid, boxes = image
    features = noise(2, *grid)
    found = gathered(features, bin_taps(boxes, grid, 0, STRIDE, side, ratio, step))
    torch.testing.assert_close(found, aligned(features, boxes, side, ratio, step), rtol=1e-5, atol=1e-5)


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, step=STEPS)
def test_gradients_are_roi_aligns(image: tuple[Size, torch.Tensor], side: int, ratio: int, step: int) -> None:
    grid, boxes = image
    ours, theirs = noise(2, *grid).requires_grad_(), noise(2, *grid).requires_grad_()
    found = gathered(ours, bin_taps(boxes, grid, 0, STRIDE, side, ratio, step))
    weights = noise(*found.shape)
    (found * weights).sum().backward()
    (aligned(theirs, boxes, side, ratio, step) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5 * (1 + side))


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, step=STEPS)
def test_the_weights_of_a_bin_sum_to_one(image: tuple[Size, torch.Tensor], side: int, ratio: int, step: int) -> None:
    grid, boxes = image
    sums = gathered(torch.ones(1, *grid), bin_taps(boxes, grid, 0, STRIDE, side, ratio, step))
    torch.testing.assert_close(sums, torch.ones_like(sums))


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, first_row=st.integers(0, 1000))
def test_taps_lie_in_their_own_map(image: tuple[Size, torch.Tensor], side: int, ratio: int, first_row: int) -> None:
    grid, boxes = image
    rows = bin_taps(boxes, grid, first_row, STRIDE, side, ratio).rows
    assert ((rows >= first_row) & (rows < first_row + grid.height * grid.width)).all()


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, step=STEPS)
def test_a_region_is_pooled_alike_alone_and_among_others(
    image: tuple[Size, torch.Tensor], side: int, ratio: int, step: int
) -> None:
    grid, boxes = image
    features = noise(2, *grid)
    together = gathered(features, bin_taps(boxes, grid, 0, STRIDE, side, ratio, step))
    alone = [gathered(features, bin_taps(box[None], grid, 0, STRIDE, side, ratio, step)) for box in boxes]
    torch.testing.assert_close(together, torch.cat([together[:0], *alone]), rtol=1e-6, atol=1e-6)


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS)
def test_a_steps_bins_are_among_all_bins(image: tuple[Size, torch.Tensor], side: int, ratio: int) -> None:
    grid, boxes = image
    features = noise(2, *grid)
    every = gathered(features, bin_taps(boxes, grid, 0, STRIDE, side, ratio)).view(-1, side, side, 2)
    second = gathered(features, bin_taps(boxes, grid, 0, STRIDE, side, ratio, 2))
    torch.testing.assert_close(second, every[:, ::2, ::2].reshape(-1, 2), rtol=1e-6, atol=1e-6)


@QUICK
@given(image=images(), side=SIDES, ratio=RATIOS, step=STEPS)
def test_compression_changes_no_sum(image: tuple[Size, torch.Tensor], side: int, ratio: int, step: int) -> None:
    grid, boxes = image
    features = noise(2, *grid)
    loose, tight = (bin_taps(boxes, grid, 0, STRIDE, side, ratio, step, compress=each) for each in (False, True))
    torch.testing.assert_close(gathered(features, loose), gathered(features, tight), rtol=1e-5, atol=1e-5)
