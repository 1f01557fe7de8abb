"""The letters in pictures: Latin with all accents, Greek, Cyrillic and more, for class names of many languages."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont


@lru_cache(maxsize=32)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib; Pillow's own font knows little beyond English.

    Args:
        size: pixels.
    """
    matplotlib = find_spec("matplotlib")  # not imported, which takes time and a folder for its cache
    assert matplotlib is not None
    assert matplotlib.origin is not None
    return ImageFont.truetype(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)
