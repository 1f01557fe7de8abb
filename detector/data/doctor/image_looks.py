"""What image files are: each is opened and decoded once, by worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import stat
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import blake2b

from PIL import ExifTags, Image

from detector.data.doctor.likeness import DECODED_SIDE, thumbnail
from detector.data.images import FORMATS, read_reduced, read_size
from detector.errors import ImageError, MachineError, WorkerError, one_line
from detector.structures import Size

THUMBNAIL = 32
UNKNOWN = Size(0, 0)
_CHUNK = 16  # images a worker gets at a time

# By what ``read_image`` says of a file; anything else it refuses is unreadable.
_KIND_OF = {
    "no such image file": "image-missing",
    "the file is empty": "image-empty",
    "the image is truncated": "image-truncated",
    "pixels that are allowed": "image-oversized",
}

_COLOURS = {
    "1": "1 bit a pixel", "P": "a palette", "PA": "a palette", "CMYK": "CMYK", "LA": "gray with transparency",
    "RGBA": "transparency", "YCbCr": "YCbCr", "LAB": "Lab",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What one file is.

    Attributes:
        kind: of finding, if it cannot be read; else empty.
        what: is wrong then.
        size: upright, (0, 0) where not known.
        format: as Pillow calls it.
        orientation: of EXIF, 1 to 8.
        unusual: what it is beside 8-bit RGB or gray.
        thumbnail: the pixels' bytes, if it can be read.
        digest: of the contents.
    """

    kind: str = ""
    what: str = ""
    size: Size = UNKNOWN
    format: str = ""
    orientation: int = 1
    unusual: tuple[str, ...] = ()
    thumbnail: bytes = b""
    digest: bytes = b""


def look_at_files(paths: Sequence[str], max_pixels: int, workers: int) -> Iterator[Look]:
    """Decodes image files, each once.

    Args:
        paths: the files.
        max_pixels: larger images are not decoded.
        workers: processes that do it; 0 for this one alone.

    Raises:
        WorkerError: a process was lost.
        MachineError: there are too few open files or too little memory.
    """
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    try:
        if not workers:
            for chunk in chunks:
                yield from _look_at_all(chunk, max_pixels)
            return
        with ProcessPoolExecutor(min(workers, max(1, len(chunks))), initializer=_prepare) as pool:
            yield from _collect(pool, [(chunk, pool.submit(_look_at_all, chunk, max_pixels)) for chunk in chunks])
    except MemoryError:
        raise MachineError(
            f"out of memory while decoding images; use fewer than {workers} workers"
            if workers
            else "out of memory while decoding an image; lower data.max_image_pixels"
        ) from None


def _collect(pool: ProcessPoolExecutor, jobs: Sequence[tuple[Sequence[str], Future[list[Look]]]]) -> Iterator[Look]:
    try:
        for chunk, job in jobs:
            try:
                looks = job.result()
            except BrokenProcessPool:
                raise WorkerError(
                    f"a process that looks at images was lost, at {one_line(chunk[0])} or one of the next; it was "
                    "killed, perhaps for lack of memory: use fewer workers (0 decodes in the main process)"
                ) from None
            yield from looks
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    """Run by each worker at its start: the main process decides about stopping, and none outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    assert main is not None

    def end_with_main() -> None:
        main.join()
        os._exit(1)

    threading.Thread(target=end_with_main, daemon=True).start()


def _look_at_all(paths: Sequence[str], max_pixels: int) -> list[Look]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damaged EXIF and the like, which name no file
        return [_look_at(path, max_pixels) for path in paths]


def _look_at(path: str, max_pixels: int) -> Look:
    try:
        pixels, size = read_reduced(path, max_pixels, DECODED_SIDE)
    except ImageError as error:
        what = str(error).removeprefix(f"{one_line(path)}: ")
        kind = next((kind for text, kind in _KIND_OF.items() if text in what), "image-unreadable")
        size = UNKNOWN
        with contextlib.suppress(ImageError):
            size = read_size(path)
        return Look(kind, what, size, digest=_digest(path))
    format_, orientation, unusual = _read_header(path)
    return Look("", "", size, format_, orientation, unusual, thumbnail(pixels, size).tobytes(), _digest(path))


def _read_header(path: str) -> tuple[str, int, tuple[str, ...]]:
    """Format, orientation and what is unusual, of a file that was read before."""
    with Image.open(path, formats=FORMATS) as image:
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        format_ = (image.format or "").replace("MPO", "JPEG")  # a photograph with a preview in it
        unusual = [_COLOURS[image.mode]] if image.mode in _COLOURS else []
        # Pillow has no mode for colours of 16 bits, but its decoder is told.
        if image.mode.startswith("I") or any(";16" in _raw_mode(tile[3]) for tile in image.tile):
            unusual.append("16 bits a channel")
        if "transparency" in image.info and "transparency" not in " ".join(unusual):
            unusual.append("transparency")
        frames = False
        # The first frame is whole, but what comes after it may be damaged.
        with contextlib.suppress(OSError, ValueError, LookupError, EOFError, SyntaxError, struct.error):
            frames = image.format != "MPO" and getattr(image, "is_animated", False)
        unusual += ["several frames, of which the first is taken"] if frames else []
        return format_, orientation if orientation in range(1, 9) else 1, tuple(unusual)


def _raw_mode(arguments: object) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _digest(path: str) -> bytes:
    """Of a file's contents; empty where there are none."""
    digest = blake2b(digest_size=16)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return b""
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):
        return b""
    return digest.digest()
