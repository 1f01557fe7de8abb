"""Any image file to upright RGB, or one clear line that says why not."""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from detector.errors import ImageError, MachineError, one_line, quote
from detector.structures import Size

# Others (EPS, PDF, ...) start outside programs or are no pictures to train on.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
MAX_PIXELS = 64_000_000
MAX_SCANS = 100  # of a progressive JPEG; libtiff has the same limit, and encoders write about ten

_START_OF_SCAN = b"\xff\xda"
_TIFF_SIDES = (256, 257)  # tags of width and height
# What Pillow's decoders are seen to raise on damaged files.
_DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, struct.error,
)  # fmt: skip


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file.

    Rotation recorded in EXIF is applied, gray and palette images become RGB, transparency is dropped, 16-bit
    values are scaled to 8 bits, and of an animation the first frame is taken.

    Args:
        path: a JPEG, PNG, BMP, WebP, TIFF, GIF or PPM file; its contents decide, not its name.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        ImageError: the file is missing, empty, damaged, no image, too large, or holds fractions.
    """
    with _open(path) as file, _no_warnings():
        return _to_rgb(_decode(file, one_line(path), max_pixels), one_line(path))


def read_reduced(path: str | Path, max_pixels: int, short_side: int) -> tuple[np.ndarray, Size]:
    """As ``read_image``, but a JPEG is decoded at a half, a quarter or an eighth while that leaves enough.

    It takes a third of the time for a photo of 4000 x 3000 that keeps 800 pixels; the pixels are close to those of a
    resized image, not equal.

    Args:
        path: as there.
        max_pixels: as there; of the whole image.
        short_side: the shorter side keeps at least so many pixels.

    Returns:
        The image, and the size of the whole one.

    Raises:
        ImageError: as ``read_image``.
    """
    with _open(path) as file, _no_warnings():
        image = _to_rgb(_decode(file, one_line(path), max_pixels, short_side), one_line(path))
    return image, read_size(path)


def read_size(path: str | Path) -> Size:
    """Height and width of an image file after rotation by EXIF, from its header alone.

    Raises:
        ImageError: as ``read_image``.
    """
    with _open(path) as file, _no_warnings():
        try:
            with Image.open(file, formats=FORMATS) as image:
                # Not PNG's own getexif, which decodes the image.
                turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
                width, height = image.size
                if isinstance(image, TiffImagePlugin.TiffImageFile):  # which some versions turn here already
                    width, height = (int(image.tag_v2[tag]) for tag in _TIFF_SIDES)
                return Size(width, height) if turned else Size(height, width)
        except (*_DAMAGE, Image.DecompressionBombError) as error:
            raise ImageError(f"{one_line(path)}: {_reason(error)}") from None


def rgb_array(image: Image.Image) -> np.ndarray:
    """A Pillow image in memory as ``(H, W, 3)`` uint8 RGB, by the same rules as a file.

    Raises:
        ImageError: it cannot be converted.
    """
    return _to_rgb(image, "image")


def _open(path: str | Path) -> IO[bytes]:
    name = one_line(path)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: not a regular file")
        if status.st_size == 0:
            raise ImageError(f"{name}: the file is empty; fetch it again or take it out of the data set")
        return open(path, "rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such image file") from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise MachineError(
                f"{name}: {error.strerror}; raise the limit (ulimit -n 65536) or lower data.workers"
            ) from None
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name}: cannot be read: {reason}") from None


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of large images and of damage with lines of its own; what matters here is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode(file: IO[bytes], path: str, max_pixels: int, short_side: int | None = None) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ImageError(
                f"{path}: {image.width} x {image.height} is more than the {max_pixels} pixels that are allowed; "
                "shrink the image or raise data.max_image_pixels"
            )
        if image.info.get("progressive"):
            _refuse_many_scans(file, path)
        if short_side is not None:
            scale = min(1.0, short_side / min(image.size))
            image.draft(None, (math.ceil(image.width * scale), math.ceil(image.height * scale)))
        image.load()
        return image
    except Image.DecompressionBombError:
        raise ImageError(f"{path}: has more than the {max_pixels} pixels that are allowed; shrink the image") from None
    except _DAMAGE as error:
        raise ImageError(f"{path}: {_reason(error)}") from None


def _refuse_many_scans(file: IO[bytes], path: str) -> None:
    """Each scan of a progressive JPEG goes over the whole image, and needs no more than some bytes to do so."""
    place = file.tell()
    file.seek(0)
    scans = file.read().count(_START_OF_SCAN)
    file.seek(place)
    if scans > MAX_SCANS:
        raise ImageError(f"{path}: a JPEG of {scans} scans, which takes very long to decode; save it anew")


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image that can be read (JPEG, PNG, BMP, WebP, TIFF, GIF or PPM)"
    if "truncated" in str(error):
        return "the image is truncated; fetch it again or take it out of the data set"
    return f"the image is damaged: {quote(str(error), 120)}"


def _to_rgb(image: Image.Image, path: str) -> np.ndarray:
    if image.mode == "F":
        raise ImageError(f"{path}: holds fractions; only images of 8 or 16 bits a channel are read")
    try:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = _eight_bits(image, path)
        elif image.mode == "PA" or "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _DAMAGE as error:
        raise ImageError(f"{path}: {_reason(error)}") from None


def _eight_bits(image: Image.Image, path: str) -> Image.Image:
    values = np.asarray(image)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ImageError(f"{path}: holds 32-bit values; only images of 8 or 16 bits a channel are read")
    return Image.fromarray((values >> 8).astype(np.uint8))
