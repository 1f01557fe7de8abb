"""Boxes put right. They are ``(x, y, width, height)`` in pixels, as ``RawSet`` has them."""

from __future__ import annotations

import numpy as np

from detector.data.doctor.box_checks import MIN_SIDE, TOLERANCE
from detector.structures import Size


def mended_box(box: np.ndarray, size: Size | None, voc: bool) -> tuple[np.ndarray | None, str]:
    """A box with its corners in order and inside its image.

    Args:
        box: four numbers.
        size: of the image; None where it is not known.
        voc: both ends of a box belong to it, of a reversed one only one.

    Returns:
        The box, None where nothing of it is left; and what was wrong with it, empty for nothing.
    """
    wrong = []
    low, extent = box[:2].copy(), box[2:].copy()
    if (extent < 0).any():
        wrong.append("box reversed")
        low = np.where(extent < 0, low + extent, low)
        extent = np.where(extent < 0, voc - extent, extent)
    if size is not None:
        high, limit = low + extent, np.array([size.width, size.height], dtype=np.float64)
        if (low >= limit).any() or (high <= 0).any():
            return None, "box outside the image"
        if (low < -TOLERANCE).any() or (high > limit + TOLERANCE).any():
            wrong.append("box over the edge")
            low = low.clip(0)
            extent = high.clip(None, limit) - low
    if (extent - voc < MIN_SIDE).any():
        return None, "box without area"
    return np.concatenate([low, extent]), " and ".join(wrong)


def turned(boxes: np.ndarray, orientation: int, upright: Size) -> np.ndarray:
    """Boxes drawn on an image as it is stored, for the image as EXIF turns it.

    Args:
        boxes: ``(N, 4)``, none of them reversed.
        orientation: EXIF's number, 5 to 8: those that exchange height and width.
        upright: the size after the turn.
    """
    x, y, width, height = boxes.T
    left = upright.width - y - height if orientation in (6, 7) else y
    top = upright.height - x - width if orientation in (7, 8) else x
    return np.stack([left, top, height, width], axis=1)
