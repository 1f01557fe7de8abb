"""Image files of all formats that are read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from detector.data.images import read_image, read_reduced, read_size
from detector.structures import Size
from tests.fuzz import raw_bytes
from tests.fuzz.cases import Case, Reading

MAX_PIXELS = 4_000_000
_NUMBERS = (0, 1, 2, 3, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def encodings() -> dict[str, bytes]:
    """A small picture in each way that files have it."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    gradient = np.linspace(0, 255, 40 * 56 * 3).reshape(40, 56, 3).astype(np.uint8)
    picture = Image.fromarray(np.concatenate([noise[:20], gradient[20:]]))
    deep = Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56) * 29)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    made: dict[str, bytes] = {}

    def add(name: str, image: Image.Image, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        made[name] = buffer.getvalue()

    add("rgb.png", picture, "PNG")
    add("alpha.png", picture.convert("RGBA"), "PNG", pnginfo=None)
    add("gray-alpha.png", picture.convert("LA"), "PNG")
    add("palette.png", picture.quantize(64), "PNG", transparency=3)
    add("bit.png", picture.convert("1"), "PNG")
    add("deep.png", deep, "PNG", exif=exif)
    add("animated.png", picture, "PNG", save_all=True, append_images=[picture.rotate(90)])
    add("rgb.jpg", picture, "JPEG", quality=80)
    add("progressive.jpg", picture, "JPEG", progressive=True)
    add("turned.jpg", picture, "JPEG", exif=exif)
    add("gray.jpg", picture.convert("L"), "JPEG", icc_profile=b"x" * 300)
    add("cmyk.jpg", picture.convert("CMYK"), "JPEG")
    add("plain.gif", picture.quantize(32), "GIF", transparency=0)
    add("animated.gif", picture.quantize(32), "GIF", save_all=True, append_images=[picture.rotate(90).quantize(8)])
    add("rgb.bmp", picture, "BMP")
    add("palette.bmp", picture.quantize(16), "BMP")
    add("lossy.webp", picture, "WEBP", exif=exif)
    add("lossless.webp", picture.convert("RGBA"), "WEBP", lossless=True)
    add("animated.webp", picture, "WEBP", save_all=True, append_images=[picture.rotate(90)])
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(f"{compression}.tif", picture, "TIFF", compression=compression)
    add("group4.tif", picture.convert("1"), "TIFF", compression="group4")
    add("deep.tif", deep, "TIFF")
    add("cmyk.tif", picture.convert("CMYK"), "TIFF", exif=exif)
    add("float.tif", picture.convert("F"), "TIFF")
    add("pages.tif", picture, "TIFF", save_all=True, append_images=[picture])
    add("rgb.ppm", picture, "PPM")
    add("gray.pgm", picture.convert("L"), "PPM")
    add("bit.pbm", picture.convert("1"), "PPM")
    made["plain.ppm"] = b"P3\n4 3\n255\n" + b" ".join(b"%d" % value for value in range(36))
    return made


class ImagesTarget:
    """Damaged files of all encodings; what is read must be an image of the size that the header tells."""

    name = "images"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        self.files = encodings()

    def case(self, random: Random) -> Case:
        """Damage anywhere, or where headers have numbers."""
        name = random.choice(list(self.files))
        data = self.files[name]
        case = Case(notes=[name])
        kind = random.random()
        header = _HEADERS.get(name.split(".")[1])
        if kind < 0.15:
            length = random.randrange(len(data) + 1)
            data, note = data[:length], f"cut to {length} of {len(data)}"
            case.arguments["half"] = length < len(self.files[name]) * 0.5 and "animated" not in name
        elif kind < 0.5 and header:
            data, note = header(random, data)
        elif kind < 0.6:
            data, note = _number_near_start(random, data)
        else:
            data, note = raw_bytes.mutate(random, data, random.choice(list(self.files.values())))
        case.notes.append(note)
        case.files["image"] = data
        return case

    def readings(self, case: Case) -> Sequence[Reading]:
        """Decoded whole, decoded smaller, and its size alone."""
        path = self.folder / "image"
        half = case.arguments.get("half", False)

        def faults(image: np.ndarray, size: Size) -> list[str]:
            found = _faults(image)
            if half:
                found.append("accepted, though half of it is missing")
            if size != read_size(path):
                found.append(f"{size} and {read_size(path)}")
            return found

        return (
            Reading(
                "read_image",
                lambda: read_image(path, MAX_PIXELS),
                lambda image: faults(image, Size(*image.shape[:2])),
                None,
                (str(path),),
            ),
            Reading(
                "read_reduced",
                lambda: read_reduced(path, MAX_PIXELS, 20),
                lambda found: faults(*found),
                None,
                (str(path),),
            ),
            Reading("read_size", lambda: read_size(path), _faults_of_size, None, (str(path),)),
        )


def _faults(image: np.ndarray) -> list[str]:
    sound = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and 0 < image.size <= MAX_PIXELS * 3
    return [] if sound else [f"an image of {image.dtype} {image.shape}"]


def _faults_of_size(size: Size) -> list[str]:
    return [] if size.height > 0 and size.width > 0 else [f"a size of {size}"]


def _number_near_start(random: Random, data: bytes) -> tuple[bytes, str]:
    place, number = random.randrange(min(len(data), 80)), random.choice(_NUMBERS)
    format_ = random.choice(("<H", ">H", "<I", ">I"))
    new = struct.pack(format_, number % 2 ** (8 * struct.calcsize(format_)))
    return data[:place] + new + data[place + len(new) :], f"{number} at {place}"


def _png(random: Random, data: bytes) -> tuple[bytes, str]:
    """Chunks changed with their checksums made right."""
    chunks, place = [], 8
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    operation = random.choice(("header", "copy", "remove", "insert", "change", "inflate"))
    position = random.randrange(len(chunks))
    if operation == "header":
        numbers = list(struct.unpack(">IIBBBBB", chunks[0][1]))
        field = random.randrange(7)
        numbers[field] = random.choice(_NUMBERS) if field < 2 else random.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", *numbers))
    elif operation == "copy":
        chunks.insert(random.randrange(len(chunks) + 1), chunks[position])
    elif operation == "remove":
        chunks.pop(position)
    elif operation == "insert":
        kind = random.choice(
            (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"PLTE", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"pHYs")
        )
        content = random.choice((b"", b"a\0b", b"a\0\0" + zlib.compress(b"\0" * 2_000_000), random.randbytes(30)))
        chunks.insert(random.randrange(1, len(chunks)), (kind, content))
    elif operation == "change":
        chunks[position] = (chunks[position][0], raw_bytes.flip(random, chunks[position][1]))
    else:
        chunks = [(kind, zlib.compress(b"\0" * 5_000_000) if kind == b"IDAT" else body) for kind, body in chunks]
    return data[:8] + b"".join(map(_chunk, chunks)), f"chunk: {operation}"


def _chunk(chunk: tuple[bytes, bytes]) -> bytes:
    kind, body = chunk
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _jpeg(random: Random, data: bytes) -> tuple[bytes, str]:
    """The frame's numbers, a marker, or EXIF."""
    marks = [place for place in range(len(data) - 9) if data[place] == 0xFF and data[place + 1] in (0xC0, 0xC2)]
    if marks and random.random() < 0.5:
        place = marks[0] + random.choice((5, 7))
        return data[:place] + struct.pack(">H", random.choice(_NUMBERS) % 65536) + data[place + 2 :], "frame"
    if b"Exif" in data and random.random() < 0.5:
        place = data.index(b"Exif") + random.randrange(60)
        return data[:place] + random.randbytes(2) + data[place + 2 :], "EXIF"
    place = random.choice([place for place in range(len(data) - 1) if data[place] == 0xFF])
    return data[: place + 1] + bytes([random.randrange(256)]) + data[place + 2 :], "marker"


def _tiff(random: Random, data: bytes) -> tuple[bytes, str]:
    """One number of an entry of the directory."""
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entry = start + 2 + 12 * random.randrange(max(1, count))
    offset, format_ = random.choice(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<I")))
    new = struct.pack(format_, random.choice((*_NUMBERS, *range(20))) % 2 ** (8 * struct.calcsize(format_)))
    return data[: entry + offset] + new + data[entry + offset + len(new) :], f"directory entry + {offset}"


def _gif(random: Random, data: bytes) -> tuple[bytes, str]:
    """The frame's place and size."""
    place = data.index(b",", 13) + 1 + 2 * random.randrange(4) if random.random() < 0.7 else 6 + 2 * random.randrange(2)
    return data[:place] + struct.pack("<H", random.choice(_NUMBERS) % 65536) + data[place + 2 :], "frame"


def _bmp(random: Random, data: bytes) -> tuple[bytes, str]:
    place = random.choice((10, 14, 18, 22, 28, 30, 34, 46))
    new = struct.pack("<i", random.choice((*_NUMBERS[:11], -1, -40, -(2**31))))
    return data[:place] + new + data[place + 4 :], f"header {place}"


def _webp(random: Random, data: bytes) -> tuple[bytes, str]:
    place = random.choice((4, 12, 16, 20, 24, 26, 28, 30))
    return data[:place] + random.choice((b"\xff\xff", b"\0\0", random.randbytes(3))) + data[
        place + 2 :
    ], f"header {place}"


def _ppm(random: Random, data: bytes) -> tuple[bytes, str]:
    numbers = data.split(maxsplit=4)
    position = random.randrange(min(4, len(numbers)))
    numbers[position] = random.choice(
        (b"0", b"-1", b"99999999", b"65536", b"1", b"9" * 5000, b"#a", b"P6", b"P1", b"", b"1e9")
    )
    return b"\n".join(numbers), f"word {position}"


_HEADERS: dict[str, Callable[[Random, bytes], tuple[bytes, str]]] = {
    "png": _png, "jpg": _jpeg, "tif": _tiff, "gif": _gif, "bmp": _bmp, "webp": _webp, "ppm": _ppm, "pgm": _ppm,
    "pbm": _ppm,
}  # fmt: skip
