"""Boxes as deltas from reference boxes, and back (R-CNN, appendix C; Faster R-CNN, section 3.1.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# A region cannot grow by more than this: exp of an untrained output would overflow. 1000 px from a stride of 16.
MAX_LOG_SCALE = math.log(1000 / 16)

UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def encode_boxes(boxes: Tensor, references: Tensor, weights: tuple[float, ...] = UNIT_WEIGHTS) -> Tensor:
    """Deltas that lead from reference boxes to boxes.

    Args:
        boxes: ``(..., 4)`` in pixels, of positive width and height.
        references: ``(..., 4)`` in pixels, of positive width and height.
        weights: factors on dx, dy, dw, dh that bring each to about unit variance.

    Returns:
        ``(..., 4)`` as (dx, dy, dw, dh): the shift of the centre in reference widths and heights, and the
        logarithm of the change in size.
    """
    width, height, x, y = _size_and_centre(references)
    new_width, new_height, new_x, new_y = _size_and_centre(boxes)
    deltas = (new_x - x) / width, (new_y - y) / height, (new_width / width).log(), (new_height / height).log()
    # One after another: a tensor of weights would make a GPU wait for its copy.
    return torch.stack([delta * weight for delta, weight in zip(deltas, weights, strict=True)], dim=-1)


def decode_boxes(deltas: Tensor, references: Tensor, weights: tuple[float, ...] = UNIT_WEIGHTS) -> Tensor:
    """Applies deltas to reference boxes; the inverse of ``encode_boxes``.

    Args:
        deltas: ``(..., 4)`` as (dx, dy, dw, dh); dw and dh are capped at log(1000 / 16).
        references: ``(..., 4)`` in pixels; broadcast against the deltas.
        weights: as given to ``encode_boxes``.

    Returns:
        ``(..., 4)`` boxes in pixels.
    """
    width, height, x, y = _size_and_centre(references)
    dx, dy, dw, dh = (delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True))
    new_x, new_y = dx * width + x, dy * height + y
    half_width = dw.clamp(max=MAX_LOG_SCALE).exp() * width / 2
    half_height = dh.clamp(max=MAX_LOG_SCALE).exp() * height / 2
    return torch.stack([new_x - half_width, new_y - half_height, new_x + half_width, new_y + half_height], dim=-1)


def _size_and_centre(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    width, height = x2 - x1, y2 - y1
    return width, height, x1 + width / 2, y1 + height / 2
