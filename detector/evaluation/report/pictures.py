"""Pictures for a page that may not grow beyond a size."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

# Longest width and JPEG quality, tried in turn until all pictures fit; below the last one labels cannot be read.
_STEPS = ((1600, 85), (1280, 80), (1000, 75), (800, 70), (640, 65))


@dataclass(frozen=True)
class Picture:
    """One image, ground truth beside detections.

    Attributes:
        title: of the image, such as its id.
        errors: how many errors of each kind it holds.
        classes: those that an error has to do with.
        jpeg: the encoded picture.
    """

    title: str
    errors: dict[str, int]
    classes: tuple[str, ...]
    jpeg: bytes

    def data_uri(self) -> str:
        """The picture as the address of itself."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()

    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        with Image.open(io.BytesIO(self.jpeg)) as image:
            return image.width, image.height


def fit(pictures: Sequence[Picture], room: int) -> list[Picture]:
    """The pictures, if need be smaller ones, if need be fewer.

    Args:
        pictures: the most telling first; the last ones go first.
        room: bytes that they may take within a page.
    """
    shown = list(pictures)
    for width, quality in _STEPS:
        if sum(map(_bytes_in_page, shown)) <= room:
            return shown
        shown = [_shrink(picture, width, quality) for picture in pictures]
    while shown and sum(map(_bytes_in_page, shown)) > room:
        shown.pop()
    return shown


def _bytes_in_page(picture: Picture) -> int:
    return 4 * -(-len(picture.jpeg) // 3)  # base64


def _shrink(picture: Picture, width: int, quality: int) -> Picture:
    """No wider than asked for; unchanged if that would not make it smaller."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture.jpeg)) as image:
        image.thumbnail((width, image.height), Image.Resampling.LANCZOS)
        image.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return replace(picture, jpeg=buffer.getvalue()) if buffer.tell() < len(picture.jpeg) else picture
