"""COCO's "instances" format with whatever is wrong in it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from detector.data.coco_columns import MAX_SIDE
from detector.data.findings import Finding
from detector.data.raw.structure import RawSet, Source
from detector.errors import DatasetError, quote
from detector.strict_json import is_number, read_json
from detector.structures import ImageId

_KEYS = ("images", "annotations", "categories")


def read_raw_coco(source: Source) -> RawSet:
    """Reads a file of annotations; images are not looked for.

    Classes come by rising id. A category whose id or name is there already adds no class; its objects are counted
    with the class of that name.

    Raises:
        DatasetError: the file is no COCO file at all, or lists no images.
    """
    content = read_json(source.annotations)
    if not isinstance(content, dict):
        hint = " (this looks like a file of results)" if isinstance(content, list) else ""
        raise DatasetError(f"{source.annotations}: must be an object with images, annotations and categories{hint}")
    for key in _KEYS:
        if not isinstance(content.get(key), list):
            found = f"got {quote(content[key])}" if key in content else "it is missing"
            raise DatasetError(f"{source.annotations}: {key} must be a list; {found}")
    if not content["images"]:
        raise DatasetError(f"{source.annotations}: images is empty; there is nothing to work on")
    reader = _Reader(source)
    reader.read_categories(content["categories"])
    for position, record in enumerate(content["images"]):
        reader.read_image(position, record)
    for position, record in enumerate(content["annotations"]):
        reader.read_annotation(position, record)
    reader.look_at_annotation_ids(content["annotations"])
    return reader.finish()


def unsafe_name(name: str) -> str | None:
    """What makes the name of a file unfit to be opened below the images folder; None where nothing does."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name):
        return "leaves the images folder"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not valid text"
    return "is not valid text" if "\0" in name else None


class _Reader:
    """One file on its way to a ``RawSet``."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.file = str(source.annotations)
        self.findings: list[Finding] = []
        self.names: dict[ImageId, str] = {}  # of the categories that are classes
        self.label_of: dict[ImageId, int] = {}
        self.image_ids: list[ImageId] = []
        self.file_names: list[str] = []
        self.image_records: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.image_of: dict[ImageId, int] = {}
        self.image_with: dict[str, int] = {}
        # One entry an object.
        self.images: list[int] = []
        self.labels: list[int] = []
        self.boxes: list[list[float]] = []
        self.areas: list[float] = []
        self.flags: list[tuple[bool, bool]] = []
        self.positions: list[int] = []
        self.object_records: list[str] = []

    def find(self, kind: str, record: str, what: str, image: int = -1, row: int = -1) -> None:
        """Notes what is amiss."""
        self.findings.append(Finding(kind, self.source.split, self.file, record, what, image, row))

    def read_categories(self, records: list[Any]) -> None:
        """Takes the classes; what is there twice goes with the first of its kind."""
        id_of: dict[str, ImageId] = {}
        twins: dict[ImageId, ImageId] = {}
        for position, record in enumerate(records):
            where = f"categories[{position}]"
            problem = _problem_of(record, "name", "text")
            if problem:
                self.find("annotation-unreadable", where, problem)
                continue
            category_id, name = record["id"], record["name"]
            if category_id in self.names or category_id in twins:
                self.find("category-twice", where, f"the id {quote(category_id)} is there twice")
            elif name in id_of:
                self.find("category-twice", where, f"the name {quote(name)} is also that of id {quote(id_of[name])}")
                twins[category_id] = id_of[name]
            else:
                self.names[category_id] = name
                id_of[name] = category_id
        self.names = dict(sorted(self.names.items(), key=lambda item: (isinstance(item[0], str), item[0])))
        self.label_of = {category_id: label for label, category_id in enumerate(self.names)}
        self.label_of |= {category_id: self.label_of[first] for category_id, first in twins.items()}

    def read_image(self, position: int, record: Any) -> None:
        """Takes an image, unless it has no id or no name."""
        where = f"images[{position}]"
        problem = _problem_of(record, "file_name", "the name of a file")
        if problem:
            self.find("annotation-unreadable", where, f"{problem}; the image cannot be told apart")
            return
        image, image_id, name = len(self.image_ids), record["id"], record["file_name"]
        where = f"{where} (id {quote(image_id)})"
        first = self.image_of.setdefault(image_id, image)
        if first != image:
            what = f"the id {quote(image_id)} is also that of {quote(self.file_names[first])}, which gets its objects"
            self.find("image-id-twice", where, what, image)
        reason = unsafe_name(name)
        if reason:
            self.find("file-name-unsafe", where, f"file_name {quote(name)} {reason}", image)
        listed = self.image_with.setdefault(name, image)
        if listed != image:
            what = f"file_name {quote(name)} is also that of {self.image_records[listed]}"
            self.find("file-name-twice", where, what, image)
        self.image_ids.append(image_id)
        self.file_names.append(name)
        self.image_records.append(where)
        self.sizes.append(self._size(record, where, image))

    def _size(self, record: dict[str, Any], where: str, image: int) -> tuple[int, int]:
        height: Any = record.get("height")
        width: Any = record.get("width")
        if height is None and width is None:
            return 0, 0
        if not all(is_number(side) and 1 <= side <= MAX_SIDE and side % 1 == 0 for side in (height, width)):
            what = f"width and height must be pixels, got {quote(width)} x {quote(height)}"
            self.find("recorded-size-differs", where, what, image)
            return 0, 0
        return int(height), int(width)

    def read_annotation(self, position: int, record: Any) -> None:
        """Takes an object; what it lacks becomes -1 or NaN."""
        where = f"annotations[{position}]"
        if not isinstance(record, dict):
            self.find("annotation-unreadable", where, f"must be an object, got {quote(record)}")
            return
        if _is_id(record.get("id")):
            where = f"{where} (id {quote(record['id'])})"
        row = len(self.labels)
        image = self._lookup(record, "image_id", self.image_of)
        if image < 0:
            what = f"image_id {quote(record.get('image_id'))} is not among the images"
            self.find("unknown-image", where, what, row=row)
        label = self._lookup(record, "category_id", self.label_of)
        if label < 0:
            what = f"category_id {quote(record.get('category_id'))} is not among the categories"
            self.find("unknown-category", where, what, image, row)
        self.images.append(image)
        self.labels.append(label)
        self.positions.append(position)
        self.object_records.append(where)
        self.boxes.append(self._box(record.get("bbox"), where, image, row))
        self.areas.append(self._area(record.get("area"), where, image, row))
        self.flags.append((self._flag(record, "iscrowd", where, image), self._flag(record, "difficult", where, image)))

    @staticmethod
    def _lookup(record: dict[str, Any], key: str, known: dict[ImageId, int]) -> int:
        value: Any = record.get(key)
        # 1.0 and true equal 1, and a list cannot be looked up.
        return known.get(value, -1) if _is_id(value) else -1

    def _box(self, box: Any, where: str, image: int, row: int) -> list[float]:
        if isinstance(box, list) and len(box) == 4 and all(map(is_number, box)):
            return box
        what = f"bbox must be four numbers [x, y, width, height], got {quote(box)}"
        self.find("box-unreadable", where, what, image, row)
        return [np.nan] * 4

    def _area(self, area: Any, where: str, image: int, row: int) -> float:
        if area is None:
            return np.nan
        if is_number(area):
            return float(area)
        self.find("annotation-unreadable", where, f"area must be a number, got {quote(area)}", image, row)
        return np.nan

    def _flag(self, record: dict[str, Any], key: str, where: str, image: int) -> bool:
        value = record.get(key)
        if value in (None, 0, 1):
            return bool(value)
        what = f"{key} must be 0 or 1, got {quote(value)}"
        self.find("annotation-unreadable", where, what, image, len(self.labels) - 1)
        return False

    def look_at_annotation_ids(self, records: list[Any]) -> None:
        """One finding an id that is there twice, and one for the id 0."""
        row_of = dict(zip(self.positions, range(len(self.positions)), strict=True))
        first: dict[ImageId, int] = {}
        again: dict[ImageId, list[int]] = {}
        for position, record in enumerate(records):
            if position in row_of and _is_id(record.get("id")) and first.setdefault(record["id"], position) != position:
                again.setdefault(record["id"], []).append(position)
        if 0 in first:
            self._find_id(row_of[first[0]], "the id is 0")
        for annotation_id, places in again.items():
            what = f"the id is there {len(places) + 1} times, first in annotations[{first[annotation_id]}]"
            self._find_id(row_of[places[0]], what)

    def _find_id(self, row: int, what: str) -> None:
        self.find("annotation-id-twice", self.object_records[row], what, self.images[row], row)

    def finish(self) -> RawSet:
        """All that was taken."""
        flags = np.array(self.flags, dtype=bool).reshape(-1, 2)
        return RawSet(
            "coco",
            self.source.split,
            self.source.annotations,
            self.source.images,
            tuple(self.image_ids),
            tuple(self.file_names),
            (self.file,) * len(self.image_ids),
            tuple(self.image_records),
            np.array(self.sizes, dtype=np.int64).reshape(-1, 2),
            tuple(self.names),
            tuple(self.names.values()),
            np.array(self.images, dtype=np.int64),
            np.array(self.labels, dtype=np.int64),
            np.array(self.boxes, dtype=np.float64).reshape(-1, 4),
            np.array(self.areas, dtype=np.float64),
            flags[:, 0],
            flags[:, 1],
            np.array(self.positions, dtype=np.int64),
            tuple(self.object_records),
            tuple(self.findings),
        )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _problem_of(record: Any, key: str, wanted: str) -> str | None:
    """What a category or image lacks: an id, or its name."""
    if not isinstance(record, dict):
        return f"must be an object, got {quote(record)}"
    if not _is_id(record.get("id")):
        return f"id must be a whole number or text, got {quote(record.get('id'))}"
    name = record.get(key)
    return None if isinstance(name, str) and name else f"{key} must be {wanted}, got {quote(name)}"
