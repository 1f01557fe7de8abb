"""RoIAlign as a sparse weighted sum of rows, with only the bins that are used.

A pooled bin is a sum of cells of the feature map, weighted bilinearly. Since the grid of samples is a product of two
axes, so are the weights: the samples of a bin are merged along each axis first. Written as (cells, channels) rows, the
sum reads whole rows of memory, where RoIAlign on (channels, cells) jumps.

Shape letters: N regions, P rows of all feature maps together, T taps (the cells that a bin sums).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detector.structures import Size


@dataclass(frozen=True)
class Taps:
    """Which rows each bin sums, and with which weights.

    Attributes:
        rows: ``(T,)`` int32, which sorts ten times faster than int64.
        weights: ``(T,)`` float32.
        starts: ``(bins + 1,)`` int32: bin ``i`` owns the taps ``starts[i] .. starts[i + 1]``.
    """

    rows: Tensor
    weights: Tensor
    starts: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Taps]) -> Taps:
        """Those of several images, one after another."""
        if len(parts) == 1:
            return parts[0]
        starts, total = [parts[0].starts[:1]], 0
        for part in parts:
            starts.append(part.starts[1:] + total)
            total += len(part.rows)
        return cls(
            torch.cat([part.rows for part in parts]), torch.cat([part.weights for part in parts]), torch.cat(starts)
        )


def bin_taps(
    regions: Tensor,
    grid: Size,
    first_row: int,
    stride: int,
    side: int,
    sampling_ratio: int,
    step: int = 1,
    compress: bool = True,
) -> Taps:
    """The taps of every ``step``-th bin of each axis, region after region and row by row.

    Args:
        regions: ``(N, 4)`` boxes of one image in pixels, finite and inside the image.
        grid: height and width of its feature map, in cells.
        first_row: where the rows of that map begin.
        stride: pixels a cell.
        side: bins of each axis, of which every ``step``-th is pooled.
        sampling_ratio: samples a bin and axis; 0 takes ceil(region / side).
        step: 2 where a convolution of stride 2 reads the bins.
        compress: leave out taps of weight zero. A GPU would have to be waited for; there zeros fill what a region as
            large as the image would need.
    """
    # In this order of operations, which is torchvision's: a sample on the border falls on the same side.
    x1, y1, x2, y2 = (regions * (1 / stride) - 0.5).unbind(1)
    tall, wide = y2 - y1, x2 - x1
    longest = float(torch.maximum(tall, wide).max()) if compress and len(regions) else max(grid)
    span = max(1, math.ceil(longest / side)) + 2
    y, weights_y = _axis(y1, tall, grid.height, side, step, sampling_ratio, span)
    x, weights_x = _axis(x1, wide, grid.width, side, step, sampling_ratio, span)
    weights = weights_y[:, :, None, :, None] * weights_x[:, None, :, None, :]
    rows = first_row + y[:, :, None, :, None] * grid.width + x[:, None, :, None, :]
    weights, rows = weights.reshape(-1, span * span), rows.reshape(-1, span * span)
    if not compress:
        starts = torch.arange(len(rows) + 1, device=rows.device, dtype=torch.int32) * span**2
        return Taps(rows.flatten(), weights.flatten(), starts)
    used = weights != 0
    starts = F.pad(used.sum(dim=1, dtype=torch.int32).cumsum(0, dtype=torch.int32), (1, 0))
    chosen = used.flatten().nonzero().flatten()
    return Taps(rows.flatten()[chosen], weights.flatten()[chosen], starts)


def _axis(
    start: Tensor, length: Tensor, cells: int, side: int, step: int, sampling_ratio: int, span: int
) -> tuple[Tensor, Tensor]:
    """The cells of one axis that each bin sums, and their weights: both ``(N, bins, span)``."""
    bins = torch.arange(0, side, step, device=start.device)[:, None]
    sample = torch.arange(sampling_ratio or span - 2, device=start.device)
    start, bin_length = start[:, None, None], length[:, None, None] / side
    samples = torch.full_like(bin_length, sampling_ratio) if sampling_ratio else bin_length.ceil()
    # A box that rounding leaves no extent has no samples, there as here.
    divisor = samples.clamp(min=1)
    position = start + bins * bin_length + (sample + 0.5) * bin_length / divisor
    weight = ((sample < samples) & (position >= -1) & (position <= cells)) / divisor
    position = position.clamp(0, cells - 1)
    first = torch.where(weight > 0, position, cells - 1).amin(dim=2, keepdim=True).floor()
    cell = first + torch.arange(span, device=start.device)
    # Each sample falls on two cells. Summed and not scattered, since a GPU scatters in any order.
    share = (1 - (position[..., None] - cell[:, :, None]).abs()).clamp(min=0)
    return cell.clamp(max=cells - 1).int(), (share * weight[..., None]).sum(dim=2)


def gather(rows: Tensor, taps: Taps) -> Tensor:
    """Sums the rows of each bin: ``(P, C)`` to ``(bins, C)``, in the precision of the rows, differentiable in these.

    Its backward is the transposed sum, which unlike RoIAlign's on a GPU adds in a fixed order.
    """
    return _Gather.apply(rows, taps.rows, taps.weights, taps.starts)  # type: ignore[no-any-return]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, taps: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(taps, weights, starts)
        ctx.count = len(rows)
        return _weighted_sum(rows, taps, weights, starts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        taps, weights, starts = ctx.saved_tensors
        bins = torch.arange(len(gradient), device=taps.device, dtype=torch.int32)
        owners = torch.repeat_interleave(bins, starts.diff(), output_size=len(taps))
        taps, order = taps.sort(stable=True)
        every_row = torch.arange(ctx.count + 1, device=taps.device, dtype=torch.int32)
        row_starts = torch.searchsorted(taps, every_row, out_int32=True)
        return _weighted_sum(gradient.contiguous(), owners[order], weights[order], row_starts), None, None, None


def _weighted_sum(rows: Tensor, taps: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    return F.embedding_bag(
        taps, rows, starts, mode="sum", per_sample_weights=weights.to(rows.dtype), include_last_offset=True
    )
