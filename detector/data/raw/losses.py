"""What a data set holds that another format has no place for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from detector.data.limited_xml import read_xml
from detector.data.raw.material import Material
from detector.data.raw.structure import Format, RawSet
from detector.errors import one_line
from detector.strict_json import read_json

COCO_KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "categories": {"id", "name"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "difficult"},
}
# Those of <annotation> that are not here say where the file once was, or are read again from the image.
_VOC_PLACES = {"folder", "filename", "path", "size", "object"}
_VOC_OBJECT = {"name", "bndbox", "difficult"}
_SAYS_NOTHING = {"", "0", "unknown", "unspecified"}


def count_losses(material: Material, to: Format) -> Counter[str]:
    """How much of each kind is lost; what depends on the names of the new files is not in it.

    Args:
        material: what is converted.
        to: the new format.
    """
    lost: Counter[str] = Counter()
    for raw in material.sets:
        if to != "coco":
            lost["crowd flags" + (" (written as difficult)" if to == "voc" else "")] += int(raw.crowd.sum())
            lost["areas that are not their box's"] += _own_areas(raw)
        if to == "yolo":
            lost["difficult flags"] += int(raw.difficult.sum())
        if raw.format != to:
            lost += _OTHER_CONTENT[raw.format](raw)
    if any(raw.format == "coco" for raw in material.sets):
        lost["category ids"] += 0 if to == "coco" and material.ids_kept else len(material.class_names)
    if to == "voc":
        used = {label for pictures in material.splits.values() for picture in pictures for label in picture.labels}
        lost["classes without objects"] += len(material.class_names) - len(used)
    return +lost


def _own_areas(raw: RawSet) -> int:
    of_box = raw.boxes[:, 2] * raw.boxes[:, 3]
    return int((np.isfinite(raw.areas) & ~np.isclose(raw.areas, of_box, rtol=1e-6, atol=0)).sum())


def _in_coco(raw: RawSet) -> Counter[str]:
    content: dict[str, Any] = read_json(raw.source)
    lost = Counter({f"{one_line(key, 60)} of the file": 1 for key in content if key not in COCO_KEYS and content[key]})
    lost["annotation ids"] = sum("id" in record for record in content["annotations"])
    for group, known in COCO_KEYS.items():
        for record in content[group]:
            lost.update(
                f"{one_line(key, 60)} of {group}"
                for key, value in record.items()
                if key not in known and value not in (None, "", [], {})
            )
    return lost


def _in_voc(raw: RawSet) -> Counter[str]:
    lost: Counter[str] = Counter()
    for path in raw.annotation_files:
        root = read_xml(path)
        lost.update(f"<{tag}> of images" for tag in _telling(root, _VOC_PLACES))
        for item in root.findall("object"):
            lost.update(f"<{tag}> of objects" for tag in _telling(item, _VOC_OBJECT))
    return lost


def _telling(parent: Element, known: Iterable[str]) -> list[str]:
    """The tags of further children that hold more than a default."""
    return [
        one_line(child.tag, 60)
        for child in parent
        if child.tag not in known and {text.strip().lower() for text in child.itertext()} - _SAYS_NOTHING
    ]


def read_lines(raw: RawSet, image: int) -> list[str]:
    """The lines of an image's text file, of which there need be none."""
    path = Path(raw.annotation_files[image])
    return path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []


def _in_yolo(raw: RawSet) -> Counter[str]:
    lines = (line for image in range(len(raw)) for line in read_lines(raw, image))
    return Counter({"polygons (written as their boxes)": sum(len(line.split()) > 5 for line in lines)})


_OTHER_CONTENT: dict[Format, Callable[[RawSet], Counter[str]]] = {"coco": _in_coco, "voc": _in_voc, "yolo": _in_yolo}
