"""COCO's "instances" format (cocodataset.org, "Data format").

Category and image ids may be any whole numbers or texts; they end here and come back in results. Optional keys
may be missing: ``iscrowd`` is then 0 and ``area`` that of the box. Annotation ids are not used at all, since files
in which they start at 0 or repeat are common. ``difficult`` (0 or 1) is read as VOC's flag of that name.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from detector.data.coco_columns import AnnotationColumns, AnnotationPiece, ImagePiece
from detector.data.coco_lists import CocoLists, read_lists
from detector.data.coco_records import Annotation, read_annotation, read_category, read_image
from detector.data.dataset import FileDataset
from detector.data.images import read_size
from detector.data.index import WORTH_BYTES, Index, Indexed
from detector.data.packed import PackedTexts
from detector.data.reading import ObjectCollector, Objects
from detector.errors import DatasetError, ImageError, quote
from detector.structures import Annotations, ImageId, Size

_log = logging.getLogger(__name__)

NO_ALIASES: Mapping[str, str] = MappingProxyType({})

_UNSAFE = re.compile(r"^[/\\]|^[A-Za-z]:|\0|(?:^|[/\\])\.\.(?:[/\\]|$)")


# Two of these can mean one file.
_ROUNDABOUT = re.compile(r"(?:^|/)(?:\.?/|\.$)|/$")


def open_coco(
    images: str | Path,
    annotations: str | Path,
    classes: Sequence[str] | None,
    drop_bad_boxes: bool,
    max_pixels: int,
    aliases: Mapping[str, str] = NO_ALIASES,
    index_folder: Path | None = None,
) -> FileDataset:
    """Opens a data set for training or evaluation.

    Args:
        images: folder of the images.
        annotations: JSON file.
        classes: class names in the order of labels, others are left out; None takes all categories by rising id.
        drop_bad_boxes: leave out boxes without area or outside their image.
        max_pixels: larger images are refused when they are read.
        aliases: names in the file that mean another class, such as {"car": "vehicle"}.
        index_folder: where to keep what was read of a large file, for the next start.

    Raises:
        DatasetError: says which record of the file is wrong, or which image is missing.
    """
    file, index = Path(annotations), None
    if index_folder is not None and file.is_file() and file.stat().st_size >= WORTH_BYTES:
        index = Index(index_folder, file, (str(images), classes, sorted(aliases.items()), drop_bad_boxes))
    found = index.load() if index else None
    if found is None:
        found = _read(images, file, classes, aliases, drop_bad_boxes)
        if index:
            index.save(found)
    for note in found.notes:
        _log.warning("%s", note)
    return FileDataset(found.annotations, images, found.names, found.sizes, max_pixels)


def _read(
    images: str | Path,
    annotations: Path,
    classes: Sequence[str] | None,
    aliases: Mapping[str, str],
    drop_bad_boxes: bool,
) -> Indexed:
    reader = _Reader(str(annotations), classes, aliases, drop_bad_boxes)
    if not os.path.isdir(images):
        raise DatasetError(f"{images}: no such folder of images")
    reader.folder = str(images)
    names = PackedTexts.of(reader.file_names())
    return Indexed(reader.collect(), names, reader.sizes.astype(np.int32), reader.collector.notes())


def read_coco_annotations(path: str | Path) -> Annotations:
    """Reads a ground-truth file for scoring; images are neither needed nor looked for.

    As in pycocotools, annotations of categories that the file does not declare are left out (and counted), and boxes
    without area stay.

    Raises:
        DatasetError: says which record of the file is wrong.
    """
    reader = _Reader(str(path), None, NO_ALIASES, drop_bad_boxes=False, for_scoring=True)
    annotations = reader.collect()
    for note in reader.collector.notes():
        _log.warning("%s", note)
    return annotations


class _Reader:
    """Reads one file; what it has found so far are its attributes."""

    def __init__(
        self,
        path: str,
        classes: Sequence[str] | None,
        aliases: Mapping[str, str],
        drop_bad_boxes: bool,
        for_scoring: bool = False,
    ) -> None:
        self.path, self.for_scoring = path, for_scoring
        self.collector = ObjectCollector(path, drop_bad_boxes, keep_empty=for_scoring)
        self.folder: str | None = None
        self.lists = read_lists(path)
        self._read_categories(self.lists.categories, classes, aliases)
        self.ids: list[ImageId] = []
        self.names: list[Any] = []
        self.sizes = self._read_images(self.lists)
        self.position_of = {image_id: position for position, image_id in enumerate(self.ids)}
        if len(self.position_of) < len(self.ids):
            position, image_id = _first_repeated(self.ids)
            raise DatasetError(f"{path}: images[{position}]: the id {quote(image_id)} is there twice")
        if not self.ids and not for_scoring:
            raise DatasetError(f"{path}: images is empty; there is nothing to work on")

    def collect(self) -> Annotations:
        """Reads all annotations; can be called once."""
        position = 0
        for piece in self.lists.annotations():
            taken = piece.columns is not None and self._take_columns(piece.columns, piece, position)
            position += len(piece.columns.boxes) if taken and piece.columns else self._take_records(piece, position)
        del self.lists, self.position_of  # a file of gigabytes is not needed while its arrays are put together
        return self.collector.finish(self.ids, self.class_names, self.category_ids)

    def file_names(self) -> list[str]:
        """The file of each image, relative to the images folder and inside it."""
        for position, name in enumerate(self.names):
            if not isinstance(name, str) or not name or _UNSAFE.search(name) or not name.isascii():
                self._check_name(name, f"{self.path}: images[{position}]")
            if _ROUNDABOUT.search(name):
                self.names[position] = posixpath.normpath(name)
        if len(set(self.names)) < len(self.names):
            position, name = _first_repeated(self.names)
            raise DatasetError(
                f"{self.path}: images[{position}]: file_name {quote(name)} is also that of "
                f"images[{self.names.index(name)}]"
            )
        return self.names

    def _check_name(self, name: Any, where: str) -> None:
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{where}: file_name must be the name of a file, got {quote(name)}")
        if _UNSAFE.search(name):
            raise DatasetError(f"{where}: file_name {quote(name)} leaves the images folder")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DatasetError(f"{where}: file_name {quote(name)} is not valid text") from None

    def _read_categories(
        self, records: Iterable[Any], classes: Sequence[str] | None, aliases: Mapping[str, str]
    ) -> None:
        names: dict[ImageId, str] = {}
        known: set[str] = set()
        for position, record in enumerate(records):
            category_id, name = read_category(record, f"{self.path}: categories[{position}]")
            if category_id in names or name in known:
                raise DatasetError(
                    f"{self.path}: categories[{position}]: {quote(name)} (id {quote(category_id)}) is there twice"
                )
            names[category_id] = name
            known.add(name)
        if not names and not self.for_scoring:
            raise DatasetError(f"{self.path}: categories is empty")
        by_id = sorted(names, key=lambda item: (isinstance(item, str), item))
        self.declared = names
        self.class_names = list(classes or [names[category_id] for category_id in by_id])
        label_of_name = {name: label for label, name in enumerate(self.class_names)}
        labels = {
            category_id: label_of_name.get(aliases.get(names[category_id], names[category_id])) for category_id in by_id
        }
        self.label_of = {category_id: label for category_id, label in labels.items() if label is not None}
        if classes and not self.label_of:
            raise DatasetError(
                f"{self.path}: none of the wanted classes ({quote(', '.join(classes))}) "
                f"is among its categories ({quote(', '.join(names.values()))})"
            )
        first = {label: category_id for category_id, label in reversed(self.label_of.items())}
        # A wanted class that this file lacks still needs a place of its own.
        self.category_ids: list[ImageId] = [first.get(label, name) for label, name in enumerate(self.class_names)]

    def _read_images(self, lists: CocoLists) -> np.ndarray:
        """Fills ids and names; gives sizes, ``(N, 2)``, 0 where none is noted."""
        sizes = [np.zeros((0, 2), dtype=np.int64)]
        for piece in lists.images():
            if piece.columns is not None:
                self.ids += piece.columns.ids
                self.names += piece.columns.file_names
                sizes.append(piece.columns.sizes)
            else:
                sizes.append(self._read_image_records(piece))
        return np.concatenate(sizes)

    def _read_image_records(self, piece: ImagePiece) -> np.ndarray:
        sizes = []
        for record in piece.records():
            image_id, name, size = read_image(record, f"{self.path}: images[{len(self.ids)}]")
            self.ids.append(image_id)
            self.names.append(name)
            sizes.append(size or (0, 0))
        return np.array(sizes, dtype=np.int64).reshape(-1, 2)

    def _take_columns(self, columns: AnnotationColumns, piece: AnnotationPiece, first: int) -> bool:
        """Takes a whole piece; False if one of its records names what is not there."""
        count = len(columns.boxes)
        images = np.fromiter(map(self.position_of.get, columns.image_ids, repeat(-1)), np.int64, count)
        labels = np.fromiter(map(self.label_of.get, columns.category_ids, repeat(-1)), np.int64, count)
        unwanted = np.flatnonzero(labels < 0).tolist()
        names = Counter(self._name_of_unwanted(columns.category_ids[row]) for row in unwanted)
        if (images < 0).any() or None in names:
            return False
        for name, number in names.items():
            self.collector.leave_out(str(name), number)
        objects = Objects(images, labels, columns.boxes, columns.areas, columns.crowd, columns.difficult)
        rows = np.flatnonzero(labels >= 0)
        if unwanted:
            objects = objects.keep(rows)

        def where(row: int) -> str:
            return self._place(piece.records()[rows[row]], first + int(rows[row]))

        self.collector.add_many(objects, self._sizes_of_boxes(objects), where)
        return True

    def _take_records(self, piece: AnnotationPiece, first: int) -> int:
        records = piece.records()
        for position, record in enumerate(records, start=first):
            self._take_record(read_annotation(record, self._place(record, position)), self._place(record, position))
        return len(records)

    def _take_record(self, found: Annotation, where: str) -> None:
        if found.image_id not in self.position_of:
            raise DatasetError(f"{where}: image_id {quote(found.image_id)} is not among the images")
        if found.category_id not in self.label_of:
            name = self._name_of_unwanted(found.category_id)
            if name is None:
                raise DatasetError(f"{where}: category_id {quote(found.category_id)} is not among the categories")
            self.collector.leave_out(name)
            return
        image = self.position_of[found.image_id]
        size = self._size_of_box(image, found.box)
        area = None if np.isnan(found.area) else found.area
        label = self.label_of[found.category_id]
        self.collector.add(where, image, label, found.box, size, area, found.crowd, found.difficult)

    def _place(self, record: Any, position: int) -> str:
        own = record.get("id") if isinstance(record, dict) else None
        note = f" (id {quote(own)})" if isinstance(own, int | str) else ""
        return f"{self.path}: annotations[{position}]{note}"

    def _name_of_unwanted(self, category_id: ImageId) -> str | None:
        """What is left out and counted; None for what must not be there."""
        name = self.declared.get(category_id)
        return f"undeclared category {category_id}" if name is None and self.for_scoring else name

    def _sizes_of_boxes(self, objects: Objects) -> np.ndarray | None:
        """The size that each box must fit, as in ``_size_of_box``; 0 where none is noted."""
        if self.folder is None:
            return None
        sizes: np.ndarray = self.sizes[objects.images]
        ends = objects.boxes_xywh[:, :2] + objects.boxes_xywh[:, 2:]
        beyond = (sizes[:, 0] > 0) & (ends > sizes[:, ::-1] + 1).any(axis=1)
        upright = {image: self._upright_size(image) for image in np.unique(objects.images[beyond]).tolist()}
        if upright:
            sizes[beyond] = [upright[image] for image in objects.images[beyond].tolist()]
        return sizes

    def _size_of_box(self, image: int, box: tuple[float, float, float, float]) -> Size | None:
        """The size that a box must fit: as noted, or turned where only the upright image holds it."""
        noted = Size(*self.sizes[image].tolist())
        if self.folder is None or not all(noted):
            return None
        x, y, width, height = box
        return noted if x + width <= noted.width + 1 and y + height <= noted.height + 1 else self._upright_size(image)

    def _upright_size(self, image: int) -> Size:
        noted = Size(*self.sizes[image].tolist())
        turned = Size(noted.width, noted.height)
        try:
            return turned if read_size(os.path.join(self.folder or "", self.names[image])) == turned else noted
        except ImageError:
            return noted  # told when it is decoded


def _first_repeated(items: Sequence[Any]) -> tuple[int, Any]:
    seen = set()
    for position, item in enumerate(items):
        if item in seen:
            return position, item
        seen.add(item)
    raise AssertionError("nothing is there twice")
