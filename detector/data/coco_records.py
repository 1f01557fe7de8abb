"""Single records of a COCO file, checked key by key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.data.coco_columns import MAX_SIDE
from detector.errors import DatasetError, quote
from detector.strict_json import is_number
from detector.structures import ImageId, Size, is_class_name


@dataclass(frozen=True)
class Annotation:
    """An annotation record.

    Attributes:
        image_id: as in the file.
        category_id: as in the file.
        box: x, y, width, height.
        area: NaN where missing.
        crowd: iscrowd.
        difficult: VOC's flag.
    """

    image_id: ImageId
    category_id: ImageId
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    difficult: bool


def read_category(record: Any, where: str) -> tuple[ImageId, str]:
    """Id and name.

    Raises:
        DatasetError: something is missing or of the wrong type; here as in the other functions.
    """
    category_id, name = _id(_object(record, where), "id", where), record.get("name")
    if not isinstance(name, str) or not name:
        raise DatasetError(f"{where}: name must be text, got {quote(name)}")
    if not is_class_name(name):
        raise DatasetError(f"{where}: name {quote(name)} holds control characters or no valid text")
    return category_id, name


def read_image(record: Any, where: str) -> tuple[ImageId, Any, Size | None]:
    """Id, file name (unchecked), and size if it is noted."""
    image_id = _id(_object(record, where), "id", where)
    return image_id, record.get("file_name"), _size(record, f"{where} (id {quote(image_id)})")


def read_annotation(record: Any, where: str) -> Annotation:
    """An annotation; whether its ids exist and its box fits is for others to say."""
    image_id, category_id = _id(_object(record, where), "image_id", where), _id(record, "category_id", where)
    box, area = record.get("bbox"), record.get("area")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise DatasetError(f"{where}: bbox must be four numbers [x, y, width, height], got {quote(box)}")
    if area is not None and not is_number(area):
        raise DatasetError(f"{where}: area must be a number, got {quote(area)}")
    return Annotation(
        image_id,
        category_id,
        (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
        np.nan if area is None else float(area),
        _flag(record, "iscrowd", where),
        _flag(record, "difficult", where),
    )


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DatasetError(f"{where} must be an object, got {quote(record)}")
    return record


def _id(record: dict[str, Any], key: str, where: str) -> ImageId:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DatasetError(f"{where}: {key} must be a whole number or text, got {quote(value)}")
    return value


def _size(image: dict[str, Any], where: str) -> Size | None:
    height, width = image.get("height"), image.get("width")
    if height is None and width is None:
        return None
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int | float) or not 1 <= side <= MAX_SIDE or side % 1:
            raise DatasetError(f"{where}: width and height must be pixels, got {quote(width)} x {quote(height)}")
    return Size(int(height), int(width))  # type: ignore[arg-type]


def _flag(record: dict[str, Any], key: str, where: str) -> bool:
    value = record.get(key)
    if value not in (None, 0, 1):
        raise DatasetError(f"{where}: {key} must be 0 or 1, got {quote(value)}")
    return bool(value)
