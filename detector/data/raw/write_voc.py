"""VOC's layout: Annotations/NAME.xml, ImageSets/Main/SPLIT.txt and JPEGImages/NAME.SUFFIX.

Boxes are in the devkit's convention: pixels count from 1 and both ends belong to the box. Coordinates that are not
whole keep their decimals.
"""

from __future__ import annotations

import hashlib
import os
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError, SubElement

import defusedxml.ElementTree
from tqdm import tqdm

from detector.data.limited_xml import read_xml
from detector.data.raw.file_names import UniqueNames, flat_stem, plain_suffix
from detector.data.raw.material import Material, Picture
from detector.data.raw.output import Output
from detector.errors import DatasetError, quote

# Of shares of an image (YOLO) come 99.99999999999997 and the like, which readers of whole numbers would cut to 99.
_NOISE = 1e-9


def write_voc(material: Material, output: Output) -> None:
    """Writes all splits.

    Args:
        material: what to write.
        output: where to.

    Raises:
        DatasetError: a class has a name that cannot stand in XML.
    """
    for name in material.class_names:
        _check_name(name)
    writer = _Writer(material, output)
    for split, pictures in material.splits.items():
        bar = tqdm(pictures, f"writing {split}", leave=False, disable=None)
        names = [writer.write(picture) for picture in bar]
        output.write(f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in names))


def _check_name(name: str) -> None:
    element = Element("name")
    element.text = name
    try:
        read = defusedxml.ElementTree.fromstring(ElementTree.tostring(element, "utf-8")).text or ""
    except ParseError:
        read = ""
    if not name or read.strip() != name:
        raise DatasetError(
            f"the class {quote(name)} has a name that VOC's XML cannot hold (control characters, or blanks at an end); "
            "rename it"
        )


class _Writer:
    """Writes each image once, even if several splits list it."""

    def __init__(self, material: Material, output: Output) -> None:
        self._class_names = material.class_names
        self._output = output
        self._names = UniqueNames()
        self._written: dict[tuple[str, bytes], str] = {}

    def write(self, picture: Picture) -> str:
        """Writes an image with its annotation and returns their name."""
        tree = self._tree(picture)
        key = (os.path.realpath(picture.path), hashlib.sha256(ElementTree.tostring(tree)).digest())
        if key not in self._written:
            name = self._written[key] = self._names.take(flat_stem(picture.file_name))
            image = name + plain_suffix(picture.path)
            _child(tree, "filename").text = image
            ElementTree.indent(tree)
            self._output.write(f"Annotations/{name}.xml", ElementTree.tostring(tree, "utf-8"))
            self._output.place(picture, "JPEGImages", image)
        name = self._written[key]
        self._output.lost["image ids"] += picture.raw.format == "coco" and picture.image_id != name
        return name

    def _tree(self, picture: Picture) -> Element:
        """The annotation, for which VOC's own is taken as it is."""
        raw = picture.raw
        own = raw.format == "voc"
        tree = read_xml(raw.annotation_files[picture.image]) if own else Element("annotation")
        _child(tree, "filename")
        size = _child(tree, "size")
        for tag, side in (("width", picture.size.width), ("height", picture.size.height)):
            _child(size, tag).text = str(side)
        if size.find("depth") is None:
            SubElement(size, "depth").text = "3"
        if not own:
            for row, label in zip(picture.rows, picture.labels, strict=True):
                difficult = bool(raw.difficult[row] or raw.crowd[row])
                tree.append(self._object(self._class_names[label], difficult, raw.boxes[row].tolist()))
        return tree

    def _object(self, class_name: str, difficult: bool, box: list[float]) -> Element:
        item = Element("object")
        SubElement(item, "name").text = class_name
        SubElement(item, "difficult").text = str(int(difficult))
        corners = SubElement(item, "bndbox")
        starts = [box[0] + 1, box[1] + 1]
        ends = [self._end(start, side) for start, side in zip(box[:2], box[2:], strict=True)]
        self._output.lost["boxes thinner than a pixel (written one pixel wide)"] += any(
            0 <= side < 1 for side in box[2:]
        )
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), starts + ends, strict=True):
            SubElement(corners, tag).text = _decimal(value)
        return item

    @staticmethod
    def _end(start: float, side: float) -> float:
        """The last pixel; a reversed box has no "+ 1" to take off."""
        return start + 1 + side if side < 0 else start + max(side, 1.0)


def _child(parent: Element, tag: str) -> Element:
    """A child, made if it is missing."""
    found = parent.find(tag)
    return SubElement(parent, tag) if found is None else found


def _decimal(value: float) -> str:
    whole = round(value)
    return str(whole) if abs(value - whole) < _NOISE else repr(value)
