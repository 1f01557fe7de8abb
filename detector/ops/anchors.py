"""Anchors, the reference boxes of the RPN (Faster R-CNN, section 3.1.1).

Shape letters: A anchors a cell, H and W cells of the feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.structures import Size


def cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, centred on the origin; aspect ratio varies fastest.

    Exact, as in detectron2: the original code rounded widths and heights to whole pixels.

    Args:
        sizes: square roots of the areas, in pixels.
        aspect_ratios: height / width.

    Returns:
        ``(A, 4)`` boxes, A = len(sizes) * len(aspect_ratios).
    """
    size, ratio = torch.meshgrid(
        torch.tensor(sizes, dtype=torch.float64), torch.tensor(aspect_ratios, dtype=torch.float64), indexing="ij"
    )
    width = (size**2 / ratio).sqrt().flatten()
    height = width * ratio.flatten()
    return torch.stack([-width, -height, width, height], dim=1).div(2).float()


def grid_anchors(cell: Tensor, grid: Size, stride: int) -> Tensor:
    """The anchors of a whole feature map, centred on each cell's upper left corner.

    Args:
        cell: ``(A, 4)`` from ``cell_anchors``; its device is the result's.
        grid: height and width of the feature map, in cells.
        stride: pixels a cell.

    Returns:
        ``(H * W * A, 4)`` boxes, row by row, the anchors of a cell together.
    """
    y = torch.arange(grid.height, device=cell.device, dtype=cell.dtype) * stride
    x = torch.arange(grid.width, device=cell.device, dtype=cell.dtype) * stride
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1)
    return (shifts[:, :, None] + cell).reshape(-1, 4)
