"""PASCAL VOC's layout: Annotations/NAME.xml, ImageSets/Main/SPLIT.txt, JPEGImages/NAME.jpg.

The devkit's boxes count whole pixels from 1, both ends included. They are stored as
``[xmin - 1, ymin - 1, xmax, ymax]``, in which plain width, height and IoU equal the devkit's (with its "+ 1").
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException

from detector.data.dataset import FileDataset
from detector.data.images import SUFFIXES
from detector.data.limited_xml import ExcessError, read_xml
from detector.data.reading import ObjectCollector
from detector.errors import DatasetError, one_line, quote
from detector.regular_file import read_regular
from detector.structures import Size, is_class_name

_log = logging.getLogger(__name__)

_MAX_LIST_BYTES = 256 * 1024**2


def open_voc(
    root: str | Path,
    split: str,
    classes: Sequence[str] | None,
    drop_bad_boxes: bool,
    max_pixels: int,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> FileDataset:
    """Opens a data set for training or evaluation.

    Args:
        root: the folder that holds Annotations, ImageSets and JPEGImages.
        split: name of a list in ImageSets/Main.
        classes: class names in the order of labels, others are left out; None takes all that occur, sorted.
        drop_bad_boxes: leave out boxes without area or outside their image.
        max_pixels: larger images are refused when they are read.
        aliases: names in the files that mean another class, such as {"car": "vehicle"}.

    Raises:
        DatasetError: says which file and object is wrong.
    """
    names = _read_split(Path(root), split)
    records = [parse_annotation(os.path.join(root, "Annotations", f"{name}.xml")) for name in names]
    if classes is None:
        found = {
            _name(item, f"{path}: object[{number}]")
            for path, tree in records
            for number, item in enumerate(tree.findall("object"))
        }
        if not found:
            raise DatasetError(f"{root}: no object in any of the {len(names)} images of {split}")
        classes = sorted(found)
    label_of = {name: label for label, name in enumerate(classes)}
    label_of |= {alias: label_of[name] for alias, name in aliases.items()}
    collector = ObjectCollector(str(root), drop_bad_boxes)
    sizes = []
    for image, (path, tree) in enumerate(records):
        sizes.append(_size(tree, path))
        for number, item in enumerate(tree.findall("object")):
            _read_object(item, f"{path}: object[{number}]", image, sizes[-1], label_of, collector)
    annotations = collector.finish(names, classes, range(1, len(classes) + 1))
    for note in collector.notes():
        _log.warning("%s", note)
    folder = Path(root) / "JPEGImages"
    return FileDataset(
        annotations,
        folder,
        [_image_name(folder, name) for name in names],
        np.array([size or (0, 0) for size in sizes]),
        max_pixels,
    )


def _read_split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    try:
        lines = read_regular(path, _MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        known = sorted(item.stem for item in path.parent.glob("*.txt"))
        raise DatasetError(f"{path}: no such split; there is {', '.join(known) or 'none'}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a list of names") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None
    # A list of one class has a second column, which says whether the class is in the image.
    names: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = line.split()[0]
        if "/" in name or "\\" in name or name.startswith("."):
            raise DatasetError(f"{path}:{number}: {quote(name)} must be the name of an image without its folder")
        if name in names:
            raise DatasetError(f"{path}:{number}: {quote(name)} is listed twice (first in line {names[name]})")
        names[name] = number
    if not names:
        raise DatasetError(f"{path}: lists no images; there is nothing to work on")
    return list(names)


def parse_annotation(path: str) -> tuple[str, Element]:
    """Parses the annotation of one image.

    Returns:
        The path as it stands in a message, and the outermost element.

    Raises:
        DatasetError: it is missing, too large, no XML, holds a DOCTYPE or is no annotation.
    """
    where = one_line(path)
    try:
        root = read_xml(path)
        if root.tag != "annotation":
            raise DatasetError(f"{where}: is no annotation: its outermost element must be <annotation>")
        return where, root
    except ParseError as error:
        raise DatasetError(f"{where}:{error.position[0]}: not valid XML: {error.msg}") from None
    except DefusedXmlException:
        raise DatasetError(f"{where}: a DOCTYPE is not allowed in an annotation") from None
    except FileNotFoundError:
        raise DatasetError(f"{where}: no such annotation, though the split lists it") from None
    except ExcessError as error:
        raise DatasetError(f"{where}: {error}; this is no annotation of one image") from None
    except OSError as error:
        too_large = error.errno == errno.EFBIG
        how = (
            f"{error.strerror}; this is no annotation of one image"
            if too_large
            else f"cannot be read: {error.strerror}"
        )
        raise DatasetError(f"{where}: {how}") from None
    except (ValueError, LookupError) as error:
        raise DatasetError(f"{where}: cannot be read: {quote(str(error), 120)}") from None


def _text(element: Element, tag: str, where: str) -> str:
    value = (element.findtext(tag) or "").strip()
    if not value:
        raise DatasetError(f"{where}: <{tag}> is missing or empty")
    return value


def _name(item: Element, where: str) -> str:
    name = _text(item, "name", where)
    if not is_class_name(name):
        raise DatasetError(f"{where}: <name> {quote(name)} holds control characters")
    return name


def _number(element: Element, tag: str, where: str) -> float:
    text = _text(element, tag, where)
    try:
        if "_" in text or not text.isascii():  # of which Python makes numbers, too
            raise ValueError
        return float(text)
    except ValueError:
        raise DatasetError(f"{where}: <{tag}> must be a number, got {quote(text)}") from None


def _size(tree: Element, path: str) -> Size | None:
    """The recorded size; some tools leave it out or write zeros."""
    size = tree.find("size")
    if size is None:
        return None
    height, width = _number(size, "height", path), _number(size, "width", path)
    return Size(int(height), int(width)) if 1 <= height < 1e6 and 1 <= width < 1e6 else None


def _read_object(
    item: Element, where: str, image: int, size: Size | None, label_of: dict[str, int], collector: ObjectCollector
) -> None:
    name = _name(item, where)
    where = f"{where} ({quote(name)})"
    if name not in label_of:
        collector.leave_out(name)
        return
    box = item.find("bndbox")
    if box is None:
        raise DatasetError(f"{where}: <bndbox> is missing")
    x1, y1, x2, y2 = (_number(box, tag, where) for tag in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (item.findtext("difficult") or "0").strip()
    if difficult not in ("0", "1"):
        raise DatasetError(f"{where}: <difficult> must be 0 or 1, got {quote(difficult)}")
    # Only a box that is not reversed includes its last pixel.
    width, height = (end - start + (end >= start) for start, end in ((x1, x2), (y1, y2)))
    collector.add(where, image, label_of[name], (x1 - 1, y1 - 1, width, height), size, difficult=difficult == "1")


def _image_name(folder: Path, name: str) -> str:
    """The devkit has .jpg alone; other tools write this layout with other kinds of image."""
    files = [name + suffix for suffix in SUFFIXES]
    return next((file for file in files if os.path.isfile(folder / file)), files[0])
