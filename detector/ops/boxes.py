"""Boxes and images: what torchvision.ops does not have."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.structures import Size


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """Cuts ``(..., 4)`` boxes to an image of the given size."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        [x1.clamp(0, size.width), y1.clamp(0, size.height), x2.clamp(0, size.width), y2.clamp(0, size.height)], dim=-1
    )


def rescale_boxes(boxes: Tensor, old: Size, new: Size) -> Tensor:
    """Carries ``(..., 4)`` boxes from an image of size ``old`` to the same image resized to ``new``."""
    x, y = new.width / old.width, new.height / old.height
    return boxes * boxes.new_tensor([x, y, x, y])


def usable_boxes(boxes: Tensor) -> Tensor:
    """``(N,)`` bool: finite, and of positive width and height.

    What fails this must not reach RoIAlign: torchvision's CPU kernel crashes the process on a NaN.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    return torch.isfinite(boxes).all(dim=1) & (sizes > 0).all(dim=1)
