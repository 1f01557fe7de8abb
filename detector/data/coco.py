"""COCO's "instances" format (cocodataset.org, "Data format").

Category and image ids may be any whole numbers or texts; they end here and come back in results. Optional keys
may be missing: ``iscrowd`` is then 0 and ``area`` that of the box. Annotation ids are not used at all, since files
in which they start at 0 or repeat are common. ``difficult`` (0 or 1) is read as VOC's flag of that name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.data.dataset import FileDataset
from detector.data.images import read_size
from detector.data.reading import ObjectCollector
from detector.errors import DatasetError, ImageError, quote
from detector.strict_json import is_number, read_json
from detector.structures import Annotations, ImageId, Size

_MAX_SIDE = 1_000_000


def open_coco(
    images: str | Path,
    annotations: str | Path,
    classes: Sequence[str] | None,
    drop_bad_boxes: bool,
    max_pixels: int,
) -> FileDataset:
    """Opens a data set for training or evaluation.

    Args:
        images: folder of the images.
        annotations: JSON file.
        classes: class names in the order of labels, others are left out; None takes all categories by rising id.
        drop_bad_boxes: leave out boxes without area or outside their image.
        max_pixels: larger images are refused when they are read.

    Raises:
        DatasetError: says which record of the file is wrong, or which image is missing.
    """
    reader = _Reader(str(annotations), classes, drop_bad_boxes)
    if not os.path.isdir(images):
        raise DatasetError(f"{images}: no such folder of images")
    reader.paths = [os.path.join(images, name) for name in reader.file_names()]
    return FileDataset(reader.collect(), reader.paths, list(reader.sizes.values()), max_pixels)


def read_coco_annotations(path: str | Path) -> Annotations:
    """Reads a ground-truth file for scoring; images are neither needed nor looked for.

    As in pycocotools, annotations of categories that the file does not declare are left out (and counted), and boxes
    without area stay.

    Raises:
        DatasetError: says which record of the file is wrong.
    """
    return _Reader(str(path), classes=None, drop_bad_boxes=False, for_scoring=True).collect()


class _Reader:
    """One file on its way to ``Annotations``.

    Attributes:
        sizes: each image id with the recorded size, in the order of the file.
        paths: the files of the images, where they are needed.
    """

    def __init__(
        self, path: str, classes: Sequence[str] | None, drop_bad_boxes: bool, for_scoring: bool = False
    ) -> None:
        self.path = path
        self.paths: list[str] = []
        self.for_scoring = for_scoring
        self.collector = ObjectCollector(path, drop_bad_boxes, keep_empty=for_scoring)
        content = read_json(path)
        if not isinstance(content, dict):
            hint = " (this looks like a file of results)" if isinstance(content, list) else ""
            raise DatasetError(f"{path}: must be an object with images, annotations and categories{hint}")
        self.images = self._records(content, "images")
        self.annotations = self._records(content, "annotations")
        if not self.images and not for_scoring:
            raise DatasetError(f"{path}: images is empty; there is nothing to work on")
        self._read_categories(self._records(content, "categories"), classes)
        self.sizes: dict[ImageId, Size | None] = {}
        for position, image in enumerate(self.images):
            image_id = self._id(image, "id", f"images[{position}]")
            if image_id in self.sizes:
                raise DatasetError(f"{path}: images[{position}]: the id {quote(image_id)} is there twice")
            self.sizes[image_id] = self._size(image, f"images[{position}] (id {quote(image_id)})")

    def collect(self) -> Annotations:
        """Reads all annotations."""
        position_of = {image_id: position for position, image_id in enumerate(self.sizes)}
        for position, record in enumerate(self.annotations):
            self._read_annotation(record, f"annotations[{position}]", position_of)
        return self.collector.finish(list(self.sizes), self.class_names, self.category_ids)

    def file_names(self) -> list[str]:
        """The file of each image, relative to the images folder and inside it."""
        names: dict[str, int] = {}
        for position, image in enumerate(self.images):
            where, name = f"{self.path}: images[{position}]", image.get("file_name")
            if not isinstance(name, str) or not name:
                raise DatasetError(f"{where}: file_name must be the name of a file, got {quote(name)}")
            parts = name.replace("\\", "/").split("/")
            if name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name) or "\0" in name:
                raise DatasetError(f"{where}: file_name {quote(name)} leaves the images folder")
            try:
                name.encode()
            except UnicodeEncodeError:
                raise DatasetError(f"{where}: file_name {quote(name)} is not valid text") from None
            if name in names:
                raise DatasetError(f"{where}: file_name {quote(name)} is also that of images[{names[name]}]")
            names[name] = position
        return list(names)

    def _records(self, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
        records = content.get(key)
        if not isinstance(records, list):
            found = "it is missing" if key not in content else f"got {quote(records)}"
            raise DatasetError(f"{self.path}: {key} must be a list; {found}")
        for position, record in enumerate(records):
            if not isinstance(record, dict):
                raise DatasetError(f"{self.path}: {key}[{position}] must be an object, got {quote(record)}")
        return records

    def _id(self, record: dict[str, Any], key: str, where: str) -> ImageId:
        value = record.get(key)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DatasetError(f"{self.path}: {where}: {key} must be a whole number or text, got {quote(value)}")
        return value

    def _size(self, image: dict[str, Any], where: str) -> Size | None:
        height, width = image.get("height"), image.get("width")
        if height is None and width is None:
            return None
        for side in (height, width):
            if isinstance(side, bool) or not isinstance(side, int | float) or not 1 <= side <= _MAX_SIDE or side % 1:
                raise DatasetError(
                    f"{self.path}: {where}: width and height must be pixels, got {quote(width)} x {quote(height)}"
                )
        return Size(int(height), int(width))  # type: ignore[arg-type]

    def _read_categories(self, records: list[dict[str, Any]], classes: Sequence[str] | None) -> None:
        names: dict[ImageId, str] = {}
        for position, record in enumerate(records):
            where = f"categories[{position}]"
            category_id, name = self._id(record, "id", where), record.get("name")
            if not isinstance(name, str) or not name:
                raise DatasetError(f"{self.path}: {where}: name must be text, got {quote(name)}")
            if category_id in names or name in names.values():
                raise DatasetError(f"{self.path}: {where}: {quote(name)} (id {quote(category_id)}) is there twice")
            names[category_id] = name
        if not names and not self.for_scoring:
            raise DatasetError(f"{self.path}: categories is empty")
        by_id = sorted(names, key=lambda item: (isinstance(item, str), item))
        self.declared = names
        wanted = classes or [names[category_id] for category_id in by_id]
        ids = {name: category_id for category_id, name in names.items()}
        if classes and not ids.keys() & set(classes):
            raise DatasetError(
                f"{self.path}: none of the wanted classes ({quote(', '.join(classes))}) "
                f"is among its categories ({quote(', '.join(ids))})"
            )
        self.class_names = list(wanted)
        # A wanted class that this file lacks still needs a place of its own.
        self.category_ids: list[ImageId] = [ids.get(name, name) for name in wanted]
        self.label_of = {category_id: label for label, category_id in enumerate(self.category_ids)}

    def _read_annotation(self, record: dict[str, Any], where: str, position_of: dict[ImageId, int]) -> None:
        if isinstance(record.get("id"), int | str):
            where = f"{where} (id {quote(record['id'])})"
        image_id, category_id = self._id(record, "image_id", where), self._id(record, "category_id", where)
        where = f"{self.path}: {where}"
        if image_id not in position_of:
            raise DatasetError(f"{where}: image_id {quote(image_id)} is not among the images")
        if category_id not in self.declared and not self.for_scoring:
            raise DatasetError(f"{where}: category_id {quote(category_id)} is not among the categories")
        if category_id not in self.label_of:
            self.collector.leave_out(self.declared.get(category_id, f"undeclared category {category_id}"))
            return
        x, y, width, height = self._box(record.get("bbox"), where)
        area = record.get("area")
        if area is not None and not is_number(area):
            raise DatasetError(f"{where}: area must be a number, got {quote(area)}")
        self.collector.add(
            where,
            position_of[image_id],
            self.label_of[category_id],
            (x, y, width, height),
            self._size_of_box(position_of[image_id], self.sizes[image_id], (x, y, width, height)),
            area,
            self._flag(record, "iscrowd", where),
            self._flag(record, "difficult", where),
        )

    def _size_of_box(self, position: int, noted: Size | None, box: tuple[float, ...]) -> Size | None:
        """The size that a box must fit: as noted, or turned where only the upright image holds it."""
        x, y, width, height = box
        if noted is None or not self.paths or (x + width <= noted.width + 1 and y + height <= noted.height + 1):
            return noted if self.paths else None
        turned = Size(noted.width, noted.height)
        try:
            return turned if read_size(self.paths[position]) == turned else noted
        except ImageError:
            return noted

    def _box(self, box: Any, where: str) -> tuple[float, float, float, float]:
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
            raise DatasetError(f"{where}: bbox must be four numbers [x, y, width, height], got {quote(box)}")
        return float(box[0]), float(box[1]), float(box[2]), float(box[3])

    def _flag(self, record: dict[str, Any], key: str, where: str) -> bool:
        value = record.get(key)
        if value not in (None, 0, 1):
            raise DatasetError(f"{where}: {key} must be 0 or 1, got {quote(value)}")
        return bool(value)
