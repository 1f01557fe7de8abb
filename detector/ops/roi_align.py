"""Pooling of regions (Mask R-CNN, section 3: RoIAlign)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align


def pool_regions(
    features: Sequence[Tensor], regions: Sequence[Tensor], stride: int, side: int, sampling_ratio: int
) -> Tensor:
    """Pools every region of every image to the same size.

    The sampling grid is shifted by half a cell ("aligned"), so that a pooled value lies where its pixels lie.

    Args:
        features: a ``(C, H, W)`` map for each image.
        regions: ``(N, 4)`` boxes for each image, in pixels; finite (a NaN crashes torchvision's kernel).
        stride: pixels a cell.
        side: height and width of the result, in cells.
        sampling_ratio: samples a bin and axis; 0 takes ceil(region / side).

    Returns:
        ``(sum of N, C, side, side)``, image after image.
    """
    # In float32 whatever the precision of the features: bilinear weights in 8 bits of mantissa move boxes.
    pooled = [
        roi_align(image[None].float(), [boxes], side, 1 / stride, sampling_ratio, aligned=True)
        for image, boxes in zip(features, regions, strict=True)
    ]
    return torch.cat(pooled)
