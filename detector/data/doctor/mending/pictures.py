"""The image files of a mended copy: their names, and those that are written upright."""

from __future__ import annotations

import os
import shutil
import struct
import unicodedata
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageOps, JpegImagePlugin

from detector.data.doctor.image_checks import CLAIMS
from detector.data.images import FORMATS, SUFFIXES
from detector.data.raw.file_names import SUFFIX_OF, UniqueNames

_SUBSAMPLINGS_THAT_TURN = (0, 2)  # the others halve one side alone
_MAX_EXIF_BYTES = 65533  # in a JPEG


def orientation_of(path: str) -> int:
    """EXIF's number for how an image is turned, 1 for upright."""
    with _opened(path) as image:
        # Not PNG's own getexif, which decodes the image.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))


def right_suffix(path: str) -> str:
    """The suffix of the format that a file really has."""
    with _opened(path) as image:
        return SUFFIX_OF.get(str(image.format), ".jpg")


def has_right_suffix(path: str) -> bool:
    """Whether a file's name claims the format that it has, or none."""
    with _opened(path) as image:
        claim = CLAIMS.get(os.path.splitext(path)[1].lower())
        return claim is None or claim == str(image.format).replace("MPO", "JPEG")


def other_spelling(path: str) -> str | None:
    """The one image file beside whose name differs in capitals or suffix alone; None for none or several."""
    try:
        names = os.listdir(os.path.dirname(path))
    except OSError:
        return None
    names = [name for name in names if name.lower().endswith(SUFFIXES) and _key(name) == _key(os.path.basename(path))]
    return names[0] if len(names) == 1 else None


def _key(name: str) -> str:
    # One text can be written in two ways; macOS changes one to the other.
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()


def copy_image(old: str, new: Path, upright: bool) -> None:
    """Copies an image, or writes it upright without the note that turns it.

    Raises:
        OSError: as the system reports it.
    """
    new.parent.mkdir(parents=True, exist_ok=True)
    if upright:
        _write_upright(old, new)
    else:
        shutil.copy2(old, new)


def _write_upright(old: str, new: Path) -> None:
    with _opened(old) as image:
        kind = str(image.format).replace("MPO", "JPEG")
        options: dict[str, Any] = {"quality": 95}
        if kind == "JPEG":
            sampling = JpegImagePlugin.get_sampling(image)
            options["subsampling"] = sampling if sampling in _SUBSAMPLINGS_THAT_TURN else 0
        if image.info.get("icc_profile"):
            options["icc_profile"] = image.info["icc_profile"]
        turned = ImageOps.exif_transpose(image)
        turned.save(new, format=kind, exif=_exif_of(turned), **options)


def _exif_of(image: Image.Image) -> bytes:
    """What EXIF says beside the turn, if it can be written again."""
    try:
        exif = image.getexif().tobytes()
    except (ValueError, TypeError, KeyError, OverflowError, struct.error):
        return b""
    return exif if len(exif) <= _MAX_EXIF_BYTES else b""


def _opened(path: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=FORMATS)


class Names:
    """New names for images; splits that share a file agree on it, and no two files get the same one.

    Args:
        paths: of all images.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._owners = {path: path for path in paths}
        self._unique = UniqueNames()
        for path in self._owners:
            self._unique.take(path)
        self._given: dict[str, str] = {}

    def claim(self, found: str, missing: str) -> bool:
        """Whether a file can stand for one that is missing: it does so for one alone, and only if it is not listed."""
        if self._owners.setdefault(found, missing) != missing:
            return False
        self._unique.take(found)
        return True

    def with_suffix(self, folder: Path, name: str, suffix: str) -> str:
        """A file's name with another suffix; with a number, too, where that name is taken.

        Args:
            folder: of the images.
            name: relative to it.
            suffix: the new one.
        """
        old = os.path.join(folder, name)
        if old not in self._given:
            new = self._unique.take(os.path.join(folder, os.path.splitext(name)[0] + suffix))
            self._given[old] = new[len(os.path.join(folder, "")) :]
        return self._given[old]
