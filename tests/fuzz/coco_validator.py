"""What a COCO file means, worked out anew and without haste: what must be refused, and what must be read."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.dataset import FileDataset
from detector.structures import Annotations, Sample
from tests.fuzz.json_text import Strict, plain_number, proper_id

_PLAUSIBLE = 1e9


@dataclass(frozen=True)
class Wanted:
    """What is asked of a reader.

    Attributes:
        classes: the classes wanted, or None.
        drop: bad boxes are left out.
        files: name -> true (height, width) of the images that exist.
        folder: of the images.
        scoring: read for scoring, without images.
    """

    classes: list[str] | None = None
    drop: bool = False
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    folder: Path = Path()
    scoring: bool = False


@dataclass
class Row:
    """An object as it must be read."""

    image: Any
    label: int
    box: list[float]
    area: float
    crowd: bool
    difficult: bool


class Expected:
    """The outcome of reading one file.

    Attributes:
        faults: why it must be refused.
        doubts: why it may be refused.
        image_ids: in the order of the file.
        class_names: in the order of labels.
        rows: grouped by image.
    """

    def __init__(self, content: Strict, wanted: Wanted) -> None:
        self.faults, self.doubts = list(content.faults), list(content.doubts)
        self.wanted = wanted
        self.image_ids: list[Any] = []
        self.class_names: list[str] = []
        self.rows: list[Row] = []
        self.sizes: dict[Any, tuple[int, int] | None] = {}
        self.names: dict[Any, Any] = {}
        top = content.value
        if self.faults or not isinstance(top, dict):
            self.faults.append("no object")
            return
        for key in ("images", "annotations", "categories"):
            if not isinstance(top.get(key), list) or not all(isinstance(item, dict) for item in top[key]):
                self.faults.append(f"{key} is no list of objects")
        if self.faults:
            return
        if not wanted.scoring and not (top["images"] and top["categories"]):
            self.faults.append("no images or no categories")
        self._images(top["images"])
        self._categories(top["categories"])
        if not self.faults:
            for item in top["annotations"]:
                self._annotation(item)
        order = {image_id: position for position, image_id in enumerate(self.image_ids)} if not self.faults else {}
        self.rows.sort(key=lambda row: order.get(row.image, 0))

    @property
    def sound(self) -> bool | None:
        """True: must be accepted; None: may be refused, or must be."""
        return None if self.faults or self.doubts else True

    def _images(self, records: list[dict[str, Any]]) -> None:
        self.image_ids = [item.get("id") for item in records]
        if not all(map(proper_id, self.image_ids)):
            self.faults.append("an image id is no id")
        elif len(set(self.image_ids)) < len(records):
            self.faults.append("an image id is there twice")
        if self.faults:
            return
        for item in records:
            self.sizes[item["id"]] = self._size(item)
            self.names[item["id"]] = item.get("file_name")
            if not self.wanted.scoring:
                self._file_name(item.get("file_name"))
                if self.sizes[item["id"]] != self.wanted.files.get(os.path.normpath(str(item.get("file_name")))):
                    self.doubts.append("the image may have another size, which is told when it is decoded")
        names = [os.path.normpath(name) for name in self.names.values() if isinstance(name, str)]
        if not self.wanted.scoring and len(set(names)) < len(names):
            self.faults.append("a file is there twice")

    def _size(self, item: dict[str, Any]) -> tuple[int, int] | None:
        height: Any = item.get("height")
        width: Any = item.get("width")
        if height is None and width is None:
            return None
        for side in (height, width):
            if not plain_number(side) or side != int(side) or not 1 <= side <= 1_000_000:
                self.faults.append(f"size {height!a:.40} x {width!a:.40}")
                return None
        return int(height), int(width)

    def _file_name(self, name: Any) -> None:
        if not isinstance(name, str) or not name or "\0" in name:
            self.faults.append("file_name is no name")
            return
        folder = os.path.realpath(self.wanted.folder)
        try:
            path = os.path.realpath(os.path.join(folder, name))
        except (UnicodeEncodeError, OSError):
            self.faults.append("file_name is no name")
            return
        if not path.startswith(folder + os.sep):
            self.faults.append("file_name leaves the folder")
        elif os.path.relpath(path, folder) not in self.wanted.files:
            self.faults.append("no such file")
        elif ".." in name.replace("\\", "/").split("/") or name != os.path.normpath(name):
            self.doubts.append("an unusual way to name a file")

    def _categories(self, records: list[dict[str, Any]]) -> None:
        ids = [item.get("id") for item in records]
        names: list[Any] = [item.get("name") for item in records]
        if not all(map(proper_id, ids)) or not all(isinstance(name, str) and name for name in names):
            self.faults.append("a category lacks id or name")
            return
        if len(set(ids)) < len(ids) or len(set(names)) < len(names):
            self.faults.append("a category is there twice")
        for name in names:
            if any(0xD800 <= ord(letter) < 0xE000 for letter in name):
                self.faults.append("a name is no text")
            elif not name.isprintable() or len(name) > 200:
                self.doubts.append("an unusual name")
        self.declared: dict[Any, Any] = dict(zip(ids, names, strict=True))
        numbers, texts = (
            [item for item in ids if isinstance(item, int)],
            [item for item in ids if isinstance(item, str)],
        )
        by_id = [self.declared[item] for item in sorted(numbers) + sorted(texts)] if not self.faults else []
        self.class_names = self.wanted.classes or by_id
        if self.wanted.classes and not set(self.wanted.classes) & set(names):
            self.faults.append("no wanted class")

    def _annotation(self, item: dict[str, Any]) -> None:
        image, category = item.get("image_id"), item.get("category_id")
        if not proper_id(image) or not proper_id(category) or image not in self.sizes:
            self.faults.append("an annotation without image or category")
            return
        if category not in self.declared:
            if not self.wanted.scoring:
                self.faults.append("an unknown category")
            else:
                self.doubts.append("of the rest of an annotation that is left out nothing is promised")
            return
        box, area = item.get("bbox"), item.get("area")
        flags = [item.get(key) for key in ("iscrowd", "difficult")]
        proper = isinstance(box, list) and len(box) == 4 and all(map(plain_number, box))
        proper = proper and (area is None or plain_number(area))
        proper = proper and all(flag is None or (isinstance(flag, int | float) and flag in (0, 1)) for flag in flags)
        if self.declared[category] not in self.class_names:
            if not proper:
                self.doubts.append("of an annotation that is left out nothing is promised")
            return
        if not proper or not isinstance(box, list):
            self.faults.append(f"a wrong value: {box!a:.60}, {area!a:.60}, {flags!a:.60}")
            return
        if any(isinstance(flag, bool | float) for flag in flags):
            self.doubts.append("a flag that is no 0 or 1 but equals it")
        self._object(item, [float(value) for value in box])

    def _object(self, item: dict[str, Any], box: list[float]) -> None:
        _, _, width, height = box
        bad = width < 0 or height < 0 or max(map(abs, box)) >= _PLAUSIBLE
        if not self.wanted.scoring:
            bad = bad or width == 0 or height == 0 or self._outside(item["image_id"], box)
        if bad and not self.wanted.drop:
            self.faults.append(f"a bad box {box}")
        if bad:
            return
        area = item.get("area")
        self.rows.append(
            Row(
                item["image_id"],
                self.class_names.index(self.declared[item["category_id"]]),
                box,
                width * height if area is None else float(area),
                bool(item.get("iscrowd")),
                bool(item.get("difficult")),
            )
        )

    def _outside(self, image: Any, box: list[float]) -> bool:
        """Whether nothing of it is in the image; a turned image is as its file has it if the box tells so."""
        noted = self.sizes[image]
        if noted is None:
            return False
        height, width = noted
        x, y = box[0] + box[2], box[1] + box[3]
        true = self.wanted.files.get(os.path.normpath(str(self.names[image])))
        if (x > width + 1 or y > height + 1) and true == (width, height):
            height, width = true
        return box[0] >= width or box[1] >= height or x <= 0 or y <= 0


def compare(expected: Expected, found: Annotations) -> list[str]:
    """What is wrong with annotations that were accepted."""
    if expected.faults:
        return [f"accepted, though {expected.faults[0]}"]
    if list(found.image_ids) != expected.image_ids or list(found.class_names) != expected.class_names:
        return ["image ids or classes differ"]
    if len(found.labels) != len(expected.rows):
        return [f"{len(found.labels)} objects instead of {len(expected.rows)}"]
    counts = Counter(row.image for row in expected.rows)
    wrong = []
    if [counts[item] for item in found.image_ids] != np.diff(found.rows).tolist():
        wrong.append("objects are with other images")
    if found.labels.tolist() != [row.label for row in expected.rows]:
        wrong.append("labels differ")
    if found.boxes_xywh.tolist() != [row.box for row in expected.rows]:
        wrong.append("boxes differ")
    if found.areas.tolist() != [row.area for row in expected.rows]:
        wrong.append("areas differ")
    if found.crowd.tolist() != [row.crowd for row in expected.rows]:
        wrong.append("crowds differ")
    if found.difficult.tolist() != [row.difficult for row in expected.rows]:
        wrong.append("difficult objects differ")
    return wrong + ([] if len(found.fingerprint()) == 16 else ["no fingerprint"])


def compare_sample(expected: Expected, dataset: FileDataset, sample: Sample) -> list[str]:
    """What is wrong with an image as it is trained on."""
    if expected.faults:
        return []  # told by ``compare``
    wrong = faults_of_sample(sample, len(expected.class_names))
    folder = os.path.realpath(expected.wanted.folder) + os.sep
    for index in range(len(dataset)):
        info = dataset.info(index)
        if not os.path.realpath(info.path).startswith(folder):
            wrong.append(f"{info.path!a}: outside the folder")
        if info.size != expected.sizes[info.image_id]:
            wrong.append(f"size {info.size}")
    return wrong


def faults_of_sample(sample: Sample, classes: int) -> list[str]:
    """What no sample may be."""
    boxes, (height, width) = sample.boxes, sample.image.shape[:2]
    wrong = []
    if not np.isfinite(boxes).all() or not (boxes[:, :2] < boxes[:, 2:]).all():
        wrong.append("a box of a sample has no area")
    if (boxes < 0).any() or (boxes[:, 0::2] > width).any() or (boxes[:, 1::2] > height).any():
        wrong.append("a box of a sample is outside")
    if ((sample.labels < 0) | (sample.labels >= classes)).any():
        wrong.append("a label out of range")
    return wrong
