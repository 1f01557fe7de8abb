"""YOLO's format with whatever is wrong in it: a text file an image, a line an object, in fractions of the image.

A line holds the class's number and the box's centre, width and height; or the class and a polygon, whose bounding
box is taken. The fractions are of the upright image.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detector.data.findings import Finding
from detector.data.images import SUFFIXES, read_size
from detector.data.raw.coco import unsafe_name
from detector.data.raw.structure import RawSet, Source
from detector.errors import DatasetError, ImageError, quote
from detector.strict_json import is_number

MAX_TEXT_BYTES = 4 * 1024**2
_MAX_LIST_BYTES = 512 * 1024**2


def read_raw_yolo(source: Source) -> RawSet:
    """Reads a split; of images with objects the size is read, since boxes are fractions of it.

    Where ``source.images`` is a list of files, they are relative to the folder ``source.annotations``, and each has
    its text file where "labels" stands for the last "images" of its path, or else beside it.

    Raises:
        DatasetError: the list or folder of images cannot be read, or has none.
    """
    reader = _Reader(source)
    if source.images.is_file():
        names = reader.listed_names()
        texts = [text_file_of(source.annotations / name) for name in names]
    else:
        names = reader.names_in_folder()
        texts = [(source.annotations / name).with_suffix(".txt") for name in names]
    for name, text in zip(names, texts, strict=True):
        reader.read_image(name, text)
    return reader.finish()


def text_file_of(image: Path) -> Path:
    """Where the objects of an image are: in labels/ as the image is in images/, or else beside it."""
    parts = list(image.parts)
    folders = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files of these kinds in a folder and those inside it, relative to it and sorted."""
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(suffixes)
    )


@dataclass
class _Row:
    """An object; what it lacks is -1 or NaN."""

    image: int
    label: int
    box: list[float]
    line: int


@dataclass
class _Reader:
    """One split on its way to a ``RawSet``."""

    source: Source
    names: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder = self.source.annotations if self.source.images.is_file() else self.source.images
        # A class that is declared twice counts as the first of its name.
        self.classes = {name: number for number, name in reversed(list(enumerate(self.source.class_names)))}
        self.classes = dict(sorted(self.classes.items(), key=lambda item: item[1]))
        label_of = {name: label for label, name in enumerate(self.classes)}
        self.labels = [label_of[name] for name in self.source.class_names]
        for number, name in enumerate(self.source.class_names):
            if self.classes[name] != number:
                what = f"the class {quote(name)} has the numbers {self.classes[name]} and {number}"
                self.find("category-twice", str(self.source.annotations), "", what)

    def find(self, kind: str, file: str, record: str, what: str, image: int = -1, row: int = -1) -> None:
        """Notes what is amiss."""
        self.findings.append(Finding(kind, self.source.split, file, record, what, image, row))

    def listed_names(self) -> list[str]:
        """The images of a list, relative to its root, each once."""
        path, root = self.source.images, self.source.annotations
        lines = _read_text(path, _MAX_LIST_BYTES).splitlines()
        if not any(line.strip() for line in lines):
            raise DatasetError(f"{path}: lists no images; there is nothing to work on")
        names: dict[str, int] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name, where = os.path.relpath(os.path.join(root, line.strip()), root), f"line {number}"
            reason = "names a folder" if name == "." else unsafe_name(name)
            if reason:
                self.find("file-name-unsafe", str(path), where, f"{quote(line.strip())} {reason}; it is left out")
            elif name in names:
                what = f"{quote(name)} is listed twice (first in line {names[name]})"
                self.find("file-name-twice", str(path), where, what)
            else:
                names[name] = number
        return list(names)

    def names_in_folder(self) -> list[str]:
        """The images of the folder, and one for each text file without an image."""
        folder, texts = self.source.images, self.source.annotations
        if not texts.is_dir():
            raise DatasetError(f"{texts}: no such folder of text files, though {folder} has images")
        found = files_below(folder, SUFFIXES)
        stems = {os.path.splitext(name)[0] for name in found}
        alone = [os.path.splitext(name)[0] for name in files_below(texts, (".txt",)) if name != "classes.txt"]
        found += [stem + SUFFIXES[0] for stem in alone if stem not in stems]
        if not found:
            raise DatasetError(f"{folder}: holds no images; there is nothing to work on")
        return found

    def read_image(self, name: str, text: Path) -> None:
        """Takes an image with its objects."""
        image = len(self.names)
        self.names.append(name)
        self.texts.append(str(text))
        if not text.is_file():
            return
        try:
            lines = _read_text(text, MAX_TEXT_BYTES).splitlines()
        except DatasetError as error:
            what = str(error).removeprefix(f"{text}: ")
            self.find("annotation-unreadable", str(text), "", what, image)
            return
        first = len(self.rows)
        for number, line in enumerate(lines):
            if line.strip():
                self._read_line(line.split(), image, number)
        if len(self.rows) > first:
            self._scale(first, image)

    def _read_line(self, words: list[str], image: int, number: int) -> None:
        file, where, row = self.texts[image], f"line {number + 1}", len(self.rows)
        values = [_number(word) for word in words]
        if math.isnan(values[0]) or values[0] % 1:
            what = f"must begin with the number of a class, got {quote(words[0])}"
            self.find("annotation-unreadable", file, where, what, image)
            return
        label = self.labels[int(values[0])] if 0 <= values[0] < len(self.labels) else -1
        if label < 0:
            what = f"the class {int(values[0])} is not among the {len(self.labels)} names"
            self.find("unknown-category", file, where, what, image, row)
        box = _box_of(values[1:])
        if box is None:
            what = f"must be a class with four numbers or a polygon, got {quote(' '.join(words))}"
            self.find("box-unreadable", file, where, what, image, row)
        self.rows.append(_Row(image, label, box or [np.nan] * 4, number))

    def _scale(self, first: int, image: int) -> None:
        """From fractions to pixels."""
        try:
            height, width = map(float, read_size(self.folder / self.names[image]))
        except ImageError:
            height, width = np.nan, np.nan  # the image itself is looked at elsewhere
        for row in self.rows[first:]:
            row.box = [value * side for value, side in zip(row.box, (width, height) * 2, strict=True)]

    def finish(self) -> RawSet:
        """All that was taken."""
        self._look_at_shared_files()
        rows = self.rows
        return RawSet(
            "yolo",
            self.source.split,
            self.source.annotations,
            self.folder,
            _image_ids(self.names),
            tuple(self.names),
            tuple(self.texts),
            ("",) * len(self.names),
            np.zeros((len(self.names), 2), dtype=np.int64),
            tuple(self.classes.values()),
            tuple(self.classes),
            np.array([row.image for row in rows], dtype=np.int64),
            np.array([row.label for row in rows], dtype=np.int64),
            np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
            np.full(len(rows), np.nan),
            np.zeros(len(rows), dtype=bool),
            np.zeros(len(rows), dtype=bool),
            np.array([row.line for row in rows], dtype=np.int64),
            tuple(f"line {row.line + 1}" for row in rows),
            tuple(self.findings),
        )

    def _look_at_shared_files(self) -> None:
        """a.jpg and a.png both have the objects of a.txt."""
        owners: dict[str, int] = {}
        for image, text in enumerate(self.texts):
            owner = owners.setdefault(text, image)
            if owner != image:
                what = f"holds the objects of {quote(self.names[owner])} and of {quote(self.names[image])}"
                self.find("image-id-twice", text, "", what, image)


def _image_ids(names: list[str]) -> tuple[str, ...]:
    """The names without folder and suffix; with the folder where images of two folders have one name."""
    paths = [os.path.splitext(name)[0] for name in names]
    stems = [os.path.basename(path) for path in paths]
    return tuple(stems if len(set(stems)) == len(set(paths)) else paths)


def _read_text(path: Path, limit: int) -> str:
    try:
        if path.stat().st_size > limit:
            raise DatasetError(f"{path}: larger than {limit} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from None


def _number(word: str) -> float:
    """The number that a word is, or NaN."""
    try:
        value = float(word)
    except ValueError:
        return np.nan
    return value if is_number(value) else np.nan


def _box_of(values: list[float]) -> list[float] | None:
    """Left, top, width and height, from centre, width and height or from a polygon; None from anything else."""
    if any(map(math.isnan, values)):
        return None
    if len(values) == 4:
        x, y, width, height = values
        return [x - width / 2, y - height / 2, width, height]
    if len(values) >= 6 and len(values) % 2 == 0:
        left, top = min(values[0::2]), min(values[1::2])
        return [left, top, max(values[0::2]) - left, max(values[1::2]) - top]
    return None
