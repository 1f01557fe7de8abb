"""The three lists of a COCO file, by pieces where that can be, else whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.data.coco_columns import AnnotationPiece, ImagePiece, annotation_pieces, cut_lists, image_pieces
from detector.errors import DatasetError, quote
from detector.strict_json import MAX_FILE_BYTES, parse_json, read_json

_MAX_BYTES = 16 * 1024**3


@dataclass(frozen=True)
class CocoLists:
    """What a file holds.

    Attributes:
        images: gives the pieces of "images"; DatasetError where a record cannot be parsed.
        annotations: those of "annotations".
        categories: all records of "categories", unchecked.
    """

    images: Callable[[], Iterator[ImagePiece]]
    annotations: Callable[[], Iterator[AnnotationPiece]]
    categories: list[Any]


def read_lists(path: str) -> CocoLists:
    """Opens a file.

    Raises:
        DatasetError: it is missing, no JSON, or lacks one of the lists.
    """
    lists = cut_lists(_bytes_of(path))
    if lists is None:
        return _whole(path)
    images, annotations, categories = lists
    return CocoLists(
        lambda: (ImagePiece(piece.columns, _named(path, piece.records)) for piece in image_pieces(images)),
        lambda: (
            AnnotationPiece(piece.columns, _named(path, piece.records)) for piece in annotation_pieces(annotations)
        ),
        _named(path, lambda: list(parse_json(bytes(categories))))(),
    )


def _bytes_of(path: str) -> bytes:
    """The file's content; nothing where ``read_json`` has something to say about the file."""
    try:
        file = Path(path)
        return file.read_bytes() if file.is_file() and file.stat().st_size <= _MAX_BYTES else b""
    except (OSError, ValueError):
        return b""


def _whole(path: str) -> CocoLists:
    if os.path.isfile(path) and os.path.getsize(path) > MAX_FILE_BYTES:
        raise DatasetError(
            f"{path}: no JSON object with lists of images, annotations and categories; cut off, or a key twice? "
            "(so large a file is not read closer)"
        )
    content = read_json(path)
    if not isinstance(content, dict):
        hint = " (this looks like a file of results)" if isinstance(content, list) else ""
        raise DatasetError(f"{path}: must be an object with images, annotations and categories{hint}")
    for key in ("images", "categories", "annotations"):
        if not isinstance(content.get(key), list):
            found = "it is missing" if key not in content else f"got {quote(content[key])}"
            raise DatasetError(f"{path}: {key} must be a list; {found}")
    return CocoLists(
        lambda: iter([ImagePiece(None, lambda: content["images"])]),
        lambda: iter([AnnotationPiece(None, lambda: content["annotations"])]),
        content["categories"],
    )


def _named(path: str, records: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
    def read() -> list[Any]:
        try:
            return records()
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: {quote(str(error), 120)[1:-1]}") from None

    return read
