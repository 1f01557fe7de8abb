"""Names under which files can be written in every format and on every system."""

from __future__ import annotations

import os
import warnings
from collections import Counter

from PIL import Image

from detector.data.images import FORMATS, SUFFIXES

_FORBIDDEN = set('/\\<>:"|?*')  # in names on Windows
_MAX_BYTES = 200  # of the 255 that a name may have
SUFFIX_OF = {"PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "PPM": ".ppm"}


class UniqueNames:
    """Gives out each name once; capitals alone make no difference, since some systems do not see them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def take(self, wanted: str) -> str:
        """The name, with a number before its suffix where it is taken."""
        stem, suffix = os.path.splitext(wanted)
        name = wanted
        while (key := os.path.normpath(name).casefold()) in self._taken:
            self._numbers[wanted] += 1
            name = f"{stem}_{self._numbers[wanted] + 1}{suffix}"
        self._taken.add(key)
        return name


def flat_stem(file_name: str) -> str:
    """A file's name without folder and suffix, with ``_`` for all that a list of names or a system may not hold."""
    stem, suffix = os.path.splitext(file_name)
    stem = stem if suffix.lower() in SUFFIXES else file_name
    fit = "".join(
        "_" if char in _FORBIDDEN or char.isspace() or not char.isprintable() else char for char in stem
    )  # what is not text (lone surrogates) is not printable
    fit = "_" + fit[1:] if fit.startswith(".") else fit
    return fit.encode()[:_MAX_BYTES].decode(errors="ignore")


def plain_suffix(path: str) -> str:
    """The suffix of an image in small letters; where it is none that readers know, that of what the file holds."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return suffix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            return SUFFIX_OF.get(image.format or "", ".jpg")
