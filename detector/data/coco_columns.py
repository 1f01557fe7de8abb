"""COCO files of any size, read in pieces straight into columns.

``json.load`` makes a dictionary of every record first: ten times the size of the file in memory. Here the lists of a
file are cut into pieces of some megabytes, and of each piece only what is needed is decoded. A piece that holds
anything unusual is left to the reader of single records, which knows what to say about it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from detector.strict_json import parse_json
from detector.structures import ImageId

MAX_SIDE = 1_000_000
_PIECE = 8 * 1024**2
# A letter that is written as an escape could hide a key.
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_END_OF_RECORD = re.compile(rb"\}\s*,\s*(?=\{)")


class _Image(msgspec.Struct, gc=False):
    id: int | str
    file_name: str | UnsetType = UNSET
    height: int | UnsetType | None = UNSET
    width: int | UnsetType | None = UNSET


class _Annotation(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int | str
    bbox: tuple[float, float, float, float]
    area: float | UnsetType | None = UNSET
    iscrowd: int | UnsetType | None = UNSET
    difficult: int | UnsetType | None = UNSET


class _Lists(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


@dataclass(frozen=True)
class ImageColumns:
    """Image records of a piece.

    Attributes:
        ids: N.
        file_names: N; None for a missing one.
        sizes: ``(N, 2)`` int64: height and width, 0 where missing.
    """

    ids: list[ImageId]
    file_names: list[str | None]
    sizes: np.ndarray


@dataclass(frozen=True)
class AnnotationColumns:
    """Annotation records of a piece.

    Attributes:
        image_ids: M.
        category_ids: M.
        boxes: ``(M, 4)`` float64, as in the file.
        areas: ``(M,)`` float64, NaN where missing.
        crowd: ``(M,)`` bool.
        difficult: ``(M,)`` bool.
    """

    image_ids: list[ImageId]
    category_ids: list[ImageId]
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class ImagePiece:
    """Some image records.

    Attributes:
        columns: what was read of them at once; None where something is unusual.
        records: gives them as Python objects; raises ValueError where a key stands twice in one.
    """

    columns: ImageColumns | None
    records: Callable[[], list[Any]]


@dataclass(frozen=True)
class AnnotationPiece:
    """Some annotation records; see ``ImagePiece``."""

    columns: AnnotationColumns | None
    records: Callable[[], list[Any]]


def cut_lists(content: bytes) -> tuple[memoryview, memoryview, memoryview] | None:
    """The texts of "images", "annotations" and "categories", if the file is what it should be.

    Args:
        content: of the file.

    Returns:
        None if it is not valid JSON, lacks a list, or may hold a key twice: to be read the slow way.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        lists = msgspec.json.decode(content, type=_Lists)
    except (msgspec.DecodeError, RecursionError):
        return None
    views = memoryview(lists.images), memoryview(lists.annotations), memoryview(lists.categories)
    single = all(content.count(b'"%s"' % key) == 1 for key in (b"images", b"annotations", b"categories"))
    if not single or not all(bytes(view[:1]) == b"[" for view in views) or _ESCAPED_LETTER.search(content):
        return None
    return views if _is_utf8(content) else None


def image_pieces(text: memoryview) -> Iterator[ImagePiece]:
    """The "images" list in pieces."""
    for piece, records in _pieces(text, _Image):
        yield ImagePiece(None if records is None else _image_columns(records), partial(parse_json, piece))


def annotation_pieces(text: memoryview) -> Iterator[AnnotationPiece]:
    """The "annotations" list in pieces."""
    for piece, records in _pieces(text, _Annotation):
        yield AnnotationPiece(None if records is None else _annotation_columns(records), partial(parse_json, piece))


def _pieces(text: memoryview, kind: type[Any]) -> Iterator[tuple[bytes, list[Any] | None]]:
    """Pieces with their records; None for records that are not of the kind."""
    start, stop = 1, len(text) - 1  # between the brackets
    while start < stop:
        length = _PIECE
        while True:
            candidate = bytes(text[start : min(start + length, stop)])
            last = start + length >= stop
            ends = [len(candidate)] if last else [match.start() + 1 for match in _last_matches(candidate)]
            found = next((found for end in ends if (found := _decode(candidate[:end], kind)) is not None), None)
            if found is not None or last:
                break
            length *= 2  # one record is larger than a piece
        assert found is not None, "cut_lists has seen that the list is whole"
        piece, records, used = found
        yield piece, records
        start += used
        while start < stop and bytes(text[start : start + 1]) in b", \n\r\t":
            start += 1


def _last_matches(candidate: bytes) -> Sequence[re.Match[bytes]]:
    """Where the last record may end, the likeliest place first; braces within records look alike."""
    tail = max(0, len(candidate) - 65536)
    matches = list(_END_OF_RECORD.finditer(candidate, tail)) or list(_END_OF_RECORD.finditer(candidate))
    return matches[-8:][::-1]


def _decode(records: bytes, kind: type[Any]) -> tuple[bytes, list[Any] | None, int] | None:
    """A piece and its records; None if it ends within a record."""
    piece = b"[" + records + b"]"
    try:
        decoded = msgspec.json.decode(piece, type=list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError:
        # It may end within a record all the same.
        return (piece, None, len(records)) if _is_json(piece) else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return piece, None if _has_keys_twice(piece, decoded, kind) else decoded, len(records)


def _has_keys_twice(piece: bytes, records: list[Any], kind: type[Any]) -> bool:
    """Whether a key that is read may stand twice in a record: its word is there more often than there are values."""
    optional = set(kind.__struct_fields__[-len(kind.__struct_defaults__) :]) if kind.__struct_defaults__ else set()
    for key in kind.__struct_fields__:
        missing = list(map(attrgetter(key), records)).count(UNSET) if key in optional else 0
        if piece.count(b'"%s"' % key.encode()) != len(records) - missing:
            return True
    return False


def _is_json(piece: bytes) -> bool:
    try:
        msgspec.json.decode(piece, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _image_columns(records: list[_Image]) -> ImageColumns | None:
    names: list[Any] = [record.file_name for record in records]
    sides: list[Any] = [side for record in records for side in (record.height, record.width)]
    if UNSET in names:
        names = [None if name is UNSET else name for name in names]
    if all(side is UNSET or side is None for side in sides):
        sizes = np.zeros((len(records), 2), dtype=np.int64)
    elif all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        sizes = np.array(sides, dtype=np.int64).reshape(-1, 2)
    else:
        return None
    return ImageColumns([record.id for record in records], names, sizes)


def _annotation_columns(records: list[_Annotation]) -> AnnotationColumns | None:
    count = len(records)
    boxes = np.fromiter(chain.from_iterable(record.bbox for record in records), np.float64, 4 * count)
    try:
        areas, crowd, difficult = (_numbers(map(attrgetter(key), records)) for key in ("area", "iscrowd", "difficult"))
    except OverflowError:  # a whole number beyond all floats
        return None
    if (np.abs(boxes) >= 1e15).any() or (np.abs(areas) >= 1e15).any():
        return None
    if not all(((flags == 0) | (flags == 1) | np.isnan(flags)).all() for flags in (crowd, difficult)):
        return None
    return AnnotationColumns(
        [record.image_id for record in records],
        [record.category_id for record in records],
        boxes.reshape(-1, 4),
        areas,
        crowd == 1,
        difficult == 1,
    )


def _numbers(values: Iterable[float | UnsetType | None]) -> np.ndarray:
    """``(M,)`` float64, NaN for what is missing."""
    return np.array([np.nan if value is None or value is UNSET else value for value in values], dtype=np.float64)


def _is_utf8(content: bytes) -> bool:
    if content.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(content), _PIECE):
            decoder.decode(content[start : start + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
