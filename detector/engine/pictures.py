"""The images that users hand in from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detector.data.images import read_image, rgb_array
from detector.errors import ImageError

Picture = str | Path | Image.Image | np.ndarray


def read_picture(picture: Picture, max_pixels: int) -> np.ndarray:
    """The pixels of an image, ``(H, W, 3)`` uint8, RGB.

    Args:
        picture: a path, a PIL image or an RGB uint8 array ``(H, W, 3)``.
        max_pixels: larger files are refused before they are decoded.

    Raises:
        ImageError: the file cannot be read, the array is not of that form, or it is something else.
    """
    if isinstance(picture, Image.Image):
        return rgb_array(picture)
    if isinstance(picture, str | Path):
        return read_image(picture, max_pixels)
    if not isinstance(picture, np.ndarray):
        raise _strange(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise ImageError(f"an image array must be RGB uint8 (height, width, 3), got {picture.dtype} {picture.shape}")
    return picture


def in_batches(pictures: Sequence[Picture], size: int) -> Iterator[Sequence[Picture]]:
    """A list of images in pieces of at most ``size``.

    Raises:
        ImageError: it is no list.
    """
    if not isinstance(pictures, Sequence) or isinstance(pictures, bytes):
        raise _strange(pictures)
    for start in range(0, len(pictures), size):
        yield pictures[start : start + size]


def _strange(thing: object) -> ImageError:
    return ImageError(
        f"an image must be a path, a PIL image or a uint8 array, or a list of such, got {type(thing).__name__}"
    )
