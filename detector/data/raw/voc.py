"""PASCAL VOC's format with whatever is wrong in it: the devkit's folders, or XML files beside their images."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from detector.data.findings import Finding
from detector.data.images import SUFFIXES
from detector.data.raw.structure import RawSet, Source
from detector.data.voc import parse_annotation
from detector.errors import DatasetError, one_line, quote
from detector.strict_json import is_number

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_raw_voc(source: Source) -> RawSet:
    """Reads a split; image files are looked for by name and not opened.

    Classes are all names that occur, sorted, with ids from 1.

    Raises:
        DatasetError: the list of names cannot be read, or lists nothing.
    """
    devkit = (source.images / "Annotations").is_dir()
    annotations = source.images / "Annotations" if devkit else source.images
    reader = _Reader(source, annotations, source.images / "JPEGImages" if devkit else source.images)
    for name in reader.listed_names() if source.annotations.is_file() else names_of_annotations(annotations):
        reader.read_image(name)
    return reader.finish()


def names_of_annotations(folder: Path) -> list[str]:
    """The names of a folder's XML files, without suffix.

    Raises:
        DatasetError: there are none, or the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error.strerror}") from None
    found = [name[:-4] for name in names if name.endswith(".xml")]
    if not found:
        raise DatasetError(f"{folder}: holds no XML files; there is nothing to work on")
    return found


def images_by_stem(folder: Path) -> dict[str, str]:
    """The image files of a folder by their names without suffix; of several, the kind that comes first."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return {}
    found: dict[str, str] = {}
    for suffix in SUFFIXES:
        for name in sorted(name for name in names if name.lower().endswith(suffix)):
            found.setdefault(name[: -len(suffix)], name)
    return found


@dataclass
class _Row:
    """An object; what it lacks is -1 or NaN."""

    image: int
    name: str
    box: list[float]
    difficult: bool
    position: int
    record: str


@dataclass
class _Reader:
    """One split on its way to a ``RawSet``."""

    source: Source
    annotations: Path
    folder: Path
    names: list[str] = field(default_factory=list)
    file_names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.found = images_by_stem(self.folder)

    def find(self, kind: str, file: str, record: str, what: str, image: int = -1, row: int = -1) -> None:
        """Notes what is amiss."""
        self.findings.append(Finding(kind, self.source.split, file, record, what, image, row))

    def listed_names(self) -> list[str]:
        """The names of the split, each once."""
        path = self.source.annotations
        lines = lines_of_list(path)
        if not any(line.strip() for line in lines):
            raise DatasetError(f"{path}: lists no images; there is nothing to work on")
        names: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name = line.split()[0]  # a list of one class has a second column
            if "/" in name or "\\" in name or name.startswith(".") or "\0" in name:
                what = f"{quote(name)} must be the name of an image without its folder; it is left out"
                self.find("file-name-unsafe", str(path), f"line {number}", what)
            elif name in names:
                what = f"{quote(name)} is listed twice (first in line {names[name]})"
                self.find("file-name-twice", str(path), f"line {number}", what)
            else:
                names[name] = number
        return list(names)

    def read_image(self, name: str) -> None:
        """Takes an image with its objects."""
        image, path = len(self.names), str(self.annotations / f"{name}.xml")
        self.names.append(name)
        self.file_names.append(self.found.get(name, name + SUFFIXES[0]))
        self.sizes.append((0, 0))
        if not os.path.isfile(path):
            self.find("annotation-missing", path, "", "no such annotation, though the split lists it", image)
            return
        try:
            tree = parse_annotation(path)[1]
        except DatasetError as error:
            what = str(error).removeprefix(one_line(path)).removeprefix(":").strip()
            self.find("annotation-unreadable", path, "", re.sub(r"^(\d+):", r"line \1:", what), image)
            return
        self._check_name(tree, path, image)
        self.sizes[image] = self._size(tree, path, image)
        for position, item in enumerate(tree.findall("object")):
            self._read_object(item, path, image, position)

    def _check_name(self, tree: Element, path: str, image: int) -> None:
        """Compares <filename>, which some tools write with a folder and VOC 2012's without a suffix."""
        recorded = re.split(r"[/\\]", (tree.findtext("filename") or "").strip())[-1]
        name = self.names[image]
        known = [self.file_names[image]] if name in self.found else [name + suffix for suffix in SUFFIXES]
        if recorded and recorded not in (name, *known):
            what = f"<filename> says {quote(recorded)}, the image is {quote(self.file_names[image])}"
            self.find("recorded-name-differs", path, "", what, image)

    def _size(self, tree: Element, path: str, image: int) -> tuple[int, int]:
        size = tree.find("size")
        if size is None:
            return 0, 0
        height, width = _number(size, "height"), _number(size, "width")
        if not (0 <= height < 1e6 and 0 <= width < 1e6):
            what = f"must be pixels, got {_shown(size, 'width')} x {_shown(size, 'height')}"
            self.find("recorded-size-differs", path, "size", what, image)
            return 0, 0
        return (int(height), int(width)) if height and width else (0, 0)  # some tools write zeros

    def _read_object(self, item: Element, path: str, image: int, position: int) -> None:
        where, name = f"object[{position}]", (item.findtext("name") or "").strip()
        if not name:
            self.find("annotation-unreadable", path, where, "<name> is missing or empty", image)
            return
        row, where = len(self.rows), f"{where} ({quote(name)})"
        corners = item.find("bndbox")
        box = _box(corners)
        if box is None:
            shown = "nothing" if corners is None else ", ".join(_shown(corners, tag) for tag in _CORNERS)
            what = f"<bndbox> must hold the numbers xmin, ymin, xmax and ymax, got {shown}"
            self.find("box-unreadable", path, where, what, image, row)
        difficult = (item.findtext("difficult") or "").strip() or "0"
        if difficult not in ("0", "1"):
            what = f"<difficult> must be 0 or 1, got {quote(difficult)}"
            self.find("annotation-unreadable", path, where, what, image, row)
        self.rows.append(_Row(image, name, box or [np.nan] * 4, difficult == "1", position, where))

    def finish(self) -> RawSet:
        """All that was taken."""
        rows, classes = self.rows, sorted({row.name for row in self.rows})
        label_of = {name: label for label, name in enumerate(classes)}
        return RawSet(
            "voc",
            self.source.split,
            self.source.images,
            self.folder,
            tuple(self.names),
            tuple(self.file_names),
            tuple(str(self.annotations / f"{name}.xml") for name in self.names),
            ("",) * len(self.names),
            np.array(self.sizes, dtype=np.int64).reshape(-1, 2),
            tuple(range(1, len(classes) + 1)),
            tuple(classes),
            np.array([row.image for row in rows], dtype=np.int64),
            np.array([label_of[row.name] for row in rows], dtype=np.int64),
            np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
            np.full(len(rows), np.nan),
            np.zeros(len(rows), dtype=bool),
            np.array([row.difficult for row in rows], dtype=bool),
            np.array([row.position for row in rows], dtype=np.int64),
            tuple(row.record for row in rows),
            tuple(self.findings),
        )


def lines_of_list(path: Path) -> list[str]:
    """The lines of a split's list.

    Raises:
        DatasetError: it cannot be read as text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not a list of names") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def _number(element: Element, tag: str) -> float:
    """The number in a tag; NaN where there is none."""
    try:
        value = float(element.findtext(tag) or "")
    except ValueError:
        return np.nan
    return value if is_number(value) else np.nan


def _shown(element: Element, tag: str) -> str:
    text = element.findtext(tag)
    return "nothing" if text is None else quote(text.strip())


def _box(corners: Element | None) -> list[float] | None:
    """x, y, width and height; None where there are no four numbers."""
    xmin, ymin, xmax, ymax = (np.nan if corners is None else _number(corners, tag) for tag in _CORNERS)
    if any(map(math.isnan, (xmin, ymin, xmax, ymax))):
        return None
    # Only a box that is not reversed includes its last pixel.
    return [xmin - 1, ymin - 1, xmax - xmin + (xmax >= xmin), ymax - ymin + (ymax >= ymin)]
