"""What can be amiss with image files. Shape letters: N images."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from detector.data.doctor.image_looks import THUMBNAIL, Look, look_at_files
from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import quote
from detector.structures import Size

MIN_SIDE = 16
MAX_ASPECT = 8.0

_SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "others": (".heic", ".heif", ".avif", ".jp2", ".jxl", ".psd", ".svg", ".ico"),
}
CLAIMS = {suffix: name for name, suffixes in _SUFFIXES_OF.items() for suffix in suffixes}

_TURNS = {
    2: "mirrors it",
    3: "turns it by 180 degrees",
    4: "turns it upside down and mirrors it",
    5: "turns it by 90 degrees and mirrors it",
    6: "turns it by 90 degrees to the right",
    7: "turns it by 90 degrees to the left and mirrors it",
    8: "turns it by 90 degrees to the left",
}


@dataclass(frozen=True)
class Inspection:
    """What the image files of a split are.

    Attributes:
        findings: what is amiss.
        sizes: ``(N, 2)`` int64: true heights and widths, upright; 0 where the file's header cannot be read.
        thumbnails: ``(N, 32, 32)`` uint8: upright, gray, each pixel the mean of its share; 0 where not ``readable``.
        readable: ``(N,)`` bool: the image can be decoded.
        digests: N: of the files' contents; empty where there are none.
    """

    findings: list[Finding]
    sizes: np.ndarray
    thumbnails: np.ndarray
    readable: np.ndarray
    digests: list[bytes]


def inspect_images(raw: RawSet, max_pixels: int, workers: int, progress: bool) -> Inspection:
    """Decodes all images of a split; those with unsafe names are not opened.

    Args:
        raw: the split.
        max_pixels: larger images are not decoded.
        workers: processes that do it; 0 for this one alone.
        progress: show a bar.

    Raises:
        WorkerError: a process was lost.
        MachineError: there are too few open files or too little memory.
    """
    unsafe = raw.unsafe_images()
    images = [image for image in range(len(raw)) if image not in unsafe]
    looks: list[Look] = [Look()] * len(raw)
    found = look_at_files([raw.path(image) for image in images], max_pixels, workers)
    with tqdm(total=len(images), desc=f"images of {raw.split}", leave=False, disable=None if progress else True) as bar:
        for image, look in zip(images, found, strict=True):
            looks[image] = look
            bar.update()
    return Inspection(
        list(_with_suggestions(raw, [finding for image in images for finding in _findings(raw, image, looks[image])])),
        np.array([look.size for look in looks], dtype=np.int64).reshape(-1, 2),
        _thumbnails(looks),
        np.array([bool(look.thumbnail) for look in looks], dtype=bool),
        [look.digest for look in looks],
    )


def _thumbnails(looks: list[Look]) -> np.ndarray:
    thumbnails = np.zeros((len(looks), THUMBNAIL, THUMBNAIL), dtype=np.uint8)
    for thumbnail, look in zip(thumbnails, looks, strict=True):
        if look.thumbnail:
            thumbnail[:] = np.frombuffer(look.thumbnail, dtype=np.uint8).reshape(THUMBNAIL, THUMBNAIL)
    return thumbnails


def _findings(raw: RawSet, image: int, look: Look) -> Iterator[Finding]:
    if look.kind:
        yield raw.about_image(look.kind, image, look.what)
        return
    claim = CLAIMS.get(os.path.splitext(raw.file_names[image])[1].lower())
    if claim and claim != look.format:
        yield raw.about_image("image-mislabelled", image, f"the file is a {look.format}")
    if look.unusual:
        yield raw.about_image("image-unusual", image, ", ".join(look.unusual))
    yield from _size_findings(raw, image, look)


def _size_findings(raw: RawSet, image: int, look: Look) -> Iterator[Finding]:
    size, recorded = look.size, Size(*raw.sizes[image].tolist())
    stored = Size(size.width, size.height) if look.orientation >= 5 else size
    if look.orientation != 1:
        what = f"EXIF orientation {look.orientation} {_TURNS[look.orientation]}"
        if stored != size and recorded in (stored, size):
            what += f"; the recorded size, {_show(recorded)}, is that {'after' if recorded == size else 'before'} it"
        yield raw.about_image("image-rotated", image, what)
        if stored != size and _fit(raw, image, stored) and not _fit(raw, image, size):
            what = f"the boxes lie inside {_show(stored)} pixels, but EXIF turns the image to {_show(size)}"
            yield raw.about_image("boxes-not-turned", image, what)
    if min(recorded) > 0 and recorded not in (size, stored):
        what = f"the image is {_show(size)}, but its annotation says {_show(recorded)}"
        yield raw.about_image("recorded-size-differs", image, what)
    if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        yield raw.about_image("image-extreme", image, f"{_show(size)} pixels")


def _fit(raw: RawSet, image: int, size: Size) -> bool:
    """Whether all boxes of an image lie inside a size, but for a pixel; what is no box does not count."""
    boxes = raw.boxes[raw.images == image]
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    return bool((boxes[:, :2] + boxes[:, 2:] <= np.array([size.width, size.height]) + 1).all())


def _with_suggestions(raw: RawSet, findings: list[Finding]) -> Iterator[Finding]:
    """Says of missing images which file differs in its suffix or in capitals alone."""
    listings: dict[str, dict[str, str]] = {}
    for finding in findings:
        if finding.kind != "image-missing":
            yield finding
            continue
        folder, name = os.path.split(raw.path(finding.image))
        if folder not in listings:
            listings[folder] = _names_by_stem(folder)
        other = listings[folder].get(_stem(name))
        known = other is not None and other != name  # a link to nowhere has the very name
        yield replace(finding, what=f"{finding.what}; there is {quote(other)}") if known else finding


def _names_by_stem(folder: str) -> dict[str, str]:
    with contextlib.suppress(OSError):
        return {_stem(name): name for name in sorted(os.listdir(folder), reverse=True)}
    return {}


def _stem(name: str) -> str:
    # One text can be written in two ways; macOS changes one to the other.
    return unicodedata.normalize("NFC", os.path.splitext(name)[0]).casefold()


def _show(size: Size) -> str:
    return f"{size.width} x {size.height}"
