"""What VOC files mean, worked out anew with a parser of its own."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.parsers import expat

from detector.data.dataset import FileDataset
from detector.structures import Sample
from tests.fuzz.coco_validator import faults_of_sample

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_BYTES, _DEPTH, _ELEMENTS = 4 * 1024**2, 16, 200_000


@dataclass
class _Element:
    tag: str
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def first(self, tag: str) -> _Element | None:
        return next((child for child in self.children if child.tag == tag), None)

    def said(self, tag: str) -> str:
        """The text of the first such child, up to its own first child."""
        found = self.first(tag)
        return found.text.strip() if found else ""


class _Parsed:
    """A file as a tree, with what is not allowed in it."""

    def __init__(self, data: bytes) -> None:
        self.faults: list[str] = []
        self.root: _Element | None = None
        self._stack: list[_Element] = []
        self._count = 0
        if len(data) > _BYTES:
            self.faults.append("too large")
            return
        parser = expat.ParserCreate(None, "}")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self._text, self._doctype
        try:
            parser.Parse(data, True)
        except (expat.ExpatError, ValueError, LookupError, UnicodeError) as error:
            self.faults.append(f"no XML: {error}")

    def _start(self, tag: str, _: object) -> None:
        element = _Element(tag)
        self._count += 1
        if self._stack:
            self._stack[-1].children.append(element)
        else:
            self.root = element
        self._stack.append(element)
        if len(self._stack) > _DEPTH or self._count > _ELEMENTS:
            self.faults.append("too deep or too many elements")
            raise ValueError

    def _end(self, _: str) -> None:
        self._stack.pop()

    def _text(self, text: str) -> None:
        if not self._stack[-1].children:
            self._stack[-1].text += text

    def _doctype(self, *_: object) -> None:
        self.faults.append("a DOCTYPE")


@dataclass
class Row:
    """An object as it must be read."""

    image: int
    name: str
    box: list[float]
    difficult: bool


class Expected:
    """The outcome of reading a set.

    Args:
        files: of the case.
        split: the list among them.
        there: names of the images that exist.
        classes: the classes wanted, or None.
        drop: bad boxes are left out.
    """

    def __init__(
        self, files: dict[str, bytes | None], split: str, there: Sequence[str], classes: list[str] | None, drop: bool
    ) -> None:
        self.faults: list[str] = []
        self.doubts: list[str] = []
        self.rows: list[Row] = []
        self.drop = drop
        self.names = self._list(files[split] or b"", there)
        found = []
        for name in self.names:
            parsed = _Parsed(files.get(f"Annotations/{name}.xml") or b"")
            self.faults += parsed.faults
            if not parsed.faults and (parsed.root is None or parsed.root.tag != "annotation"):
                self.faults.append("no annotation")
            found.append(parsed.root)
        self.class_names = classes or []
        if self.faults:
            return
        objects = [[child for child in root.children if child.tag == "object"] for root in found if root]
        names = {item.said("name") for items in objects for item in items}
        for name in names - {""}:
            if not name.isprintable() or len(name) > 200:
                self.doubts.append("an unusual name")
        self.class_names = classes or sorted(names)
        if classes is None and ("" in names or not names):
            self.faults.append("a class without a name, or no classes")
        sizes = [self._size(root) for root in found if root]
        for image, (size, items) in enumerate(zip(sizes, objects, strict=True)):
            for item in items:
                self._object(item, image, size)

    @property
    def sound(self) -> bool | None:
        """True: must be accepted; None: may be refused, or must be."""
        return None if self.faults or self.doubts else True

    def _list(self, data: bytes, there: Sequence[str]) -> list[str]:
        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            self.faults.append("the list is no text")
            return []
        names = [line.split()[0] for line in lines if line.strip()]
        if len(set(names)) < len(names) or not names or not set(names) <= set(there):
            self.faults.append("the list names what is not there, or something twice, or nothing")
            return []
        return names

    def _number(self, element: _Element, tag: str) -> float:
        text = element.said(tag)
        if text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            return math.nan
        if not _NUMBER.fullmatch(text):
            self.faults.append(f"{tag} is {text[:40]!a}")
            return 0.0
        return float(text)

    def _size(self, root: _Element) -> tuple[float, float] | None:
        size = root.first("size")
        if size is None:
            return None
        if not all(_NUMBER.fullmatch(size.said(tag)) for tag in ("height", "width")):
            self.doubts.append("a size that is no number")
            return None
        height, width = self._number(size, "height"), self._number(size, "width")
        if height != int(min(height, 1e9)) or width != int(min(width, 1e9)):
            self.doubts.append("a size in parts of pixels")
        if (height, width) != (48, 64):
            self.doubts.append("the image may have another size, which is told when it is decoded")
        return (height, width) if 1 <= height < 1e6 and 1 <= width < 1e6 else None

    def _object(self, item: _Element, image: int, size: tuple[float, float] | None) -> None:
        name = item.said("name")
        if not name:
            self.faults.append("an object without a name")
            return
        corners, difficult = item.first("bndbox"), item.said("difficult") or "0"
        if name not in self.class_names:
            return
        flag = item.first("difficult")
        if flag and flag.text and not flag.text.strip():
            self.doubts.append("an empty flag")
        if corners is None or difficult not in ("0", "1"):
            self.faults.append("no box, or a wrong flag")
            return
        x1, y1, x2, y2 = (self._number(corners, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
        x, y = x1 - 1, y1 - 1
        width, height = x2 - x1 + (x2 >= x1), y2 - y1 + (y2 >= y1)
        bad = width <= 0 or height <= 0 or not all(abs(value) < 1e9 for value in (x, y, width, height))
        if size is not None:
            bad = bad or x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0
        if bad and not self.drop:
            self.faults.append(f"a bad box {x1, y1, x2, y2}")
        if not bad:
            self.rows.append(Row(image, name, [x, y, width, height], difficult == "1"))


def compare(expected: Expected, dataset: FileDataset, sample: Sample) -> list[str]:
    """What is wrong with a set that was accepted."""
    if expected.faults:
        return [f"accepted, though {expected.faults[0]}"]
    found = dataset.annotations
    if list(found.image_ids) != expected.names or list(found.class_names) != expected.class_names:
        return ["images or classes differ"]
    wrong = faults_of_sample(sample, len(expected.class_names))
    if found.image_index().tolist() != [row.image for row in expected.rows]:
        wrong.append("objects are with other images")
    elif found.labels.tolist() != [expected.class_names.index(row.name) for row in expected.rows]:
        wrong.append("labels differ")
    elif found.boxes_xywh.tolist() != [row.box for row in expected.rows]:
        wrong.append("boxes differ")
    elif found.difficult.tolist() != [row.difficult for row in expected.rows]:
        wrong.append("difficult objects differ")
    stems = [os.path.splitext(os.path.basename(dataset.info(index).path))[0] for index in range(len(dataset))]
    return wrong + ([] if stems == expected.names else ["the images are others"])
