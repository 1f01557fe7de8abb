"""Mended VOC annotations and lists: elements that the toolkit does not use stay as they are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np

from detector.data.doctor.mending.draft import Draft
from detector.data.doctor.mending.layout import Layout
from detector.data.raw.voc import lines_of_list as lines_of
from detector.data.voc import parse_annotation
from detector.structures import Size

_DECIMALS = 6  # of a pixel
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Edit:
    """What becomes of one XML file, which several splits may list.

    Attributes:
        gone: positions of objects that are taken out.
        boxes: new boxes by position.
        name: the new <filename>; empty for the old one.
        sizes: the new size, if any; None for no size at all.
    """

    gone: set[int] = field(default_factory=set)
    boxes: dict[int, np.ndarray] = field(default_factory=dict)
    name: str = ""
    sizes: list[Size | None] = field(default_factory=list)

    def is_empty(self) -> bool:
        """Whether the file stays as it is."""
        return not (self.gone or self.boxes or self.name or self.sizes)


def write_voc(drafts: Sequence[Draft], layout: Layout) -> None:
    """Writes the annotations of all splits and the lists.

    Args:
        drafts: say what becomes of them, and get a line for each list that is empty.
        layout: the places of the files.

    Raises:
        OSError: as the system reports it.
    """
    edits: dict[str, _Edit] = {}
    for draft in drafts:
        _gather(draft, edits)
    for file, edit in edits.items():
        path = layout.place(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if edit.is_empty():
            shutil.copy2(file, path)
        else:
            tree = parse_annotation(file)[1]
            _apply(edit, tree)
            ElementTree(tree).write(path, encoding="utf-8")
    for root in dict.fromkeys(draft.raw.source for draft in drafts):
        lists = root / "ImageSets" / "Main"
        for path in sorted(lists.glob("*.txt")):
            _write_list(path, [draft for draft in drafts if draft.raw.source == root], layout)


def _gather(draft: Draft, edits: dict[str, _Edit]) -> None:
    raw, kept = draft.raw, draft.kept()
    for image in draft.images():
        edit = edits.setdefault(raw.annotation_files[image], _Edit())
        rows = draft.rows_of(image)
        edit.gone.update(int(raw.positions[row]) for row in rows if not kept[row])
        edit.boxes.update({int(raw.positions[row]): draft.boxes[row] for row in rows if row in draft.redrawn})
        if image in draft.names or image in draft.named_right:
            edit.name = os.path.basename(draft.name(image))
        if image in draft.new_sizes:
            edit.sizes = [draft.new_sizes[image]]
    for file, record in draft.unread:
        found = re.match(r"object\[(\d+)\]", record)
        if found and file in edits:
            edits[file].gone.add(int(found[1]))


def _apply(edit: _Edit, root: Element) -> None:
    items = root.findall("object")
    for position, box in edit.boxes.items():
        corners = items[position].find("bndbox")
        assert corners is not None  # else there were no four numbers
        for tag, value in zip(_CORNERS, _as_corners(box), strict=True):
            _child(corners, tag).text = value
    for position in edit.gone:
        root.remove(items[position])
    if edit.name:
        _child(root, "filename").text = edit.name
    for size in edit.sizes:
        _record_size(root, size)


def _record_size(root: Element, size: Size | None) -> None:
    if size is not None:
        element = _child(root, "size")
        _child(element, "width").text, _child(element, "height").text = str(size.width), str(size.height)
        return
    for element in root.findall("size"):
        root.remove(element)


def _child(parent: Element, tag: str) -> Element:
    found = parent.find(tag)
    return SubElement(parent, tag) if found is None else found


def _as_corners(box: np.ndarray) -> list[str]:
    """Pixels from 1, both ends included."""
    x, y, width, height = box.tolist()
    corners = [round(value, _DECIMALS) for value in (x + 1, y + 1, x + width, y + height)]
    return [str(int(value)) if value.is_integer() else repr(value) for value in corners]


def _write_list(path: Path, drafts: Sequence[Draft], layout: Layout) -> None:
    """Writes a list of names without those that are not in the copy, each once."""
    own = [draft for draft in drafts if _plain_split(draft) == path.stem]
    # Lists of one class are called CLASS_SPLIT.
    own = own or [draft for draft in drafts if path.stem.endswith(f"_{_plain_split(draft)}")] or list(drafts)
    names = {str(draft.raw.image_ids[image]) for draft in own for image in draft.images()}
    lines = [line for line in lines_of(path) if line.strip()]
    kept: dict[str, str] = {}
    for line in lines:
        if line.split()[0] in names:
            kept.setdefault(line.split()[0], line)
    new = layout.place(path)
    new.parent.mkdir(parents=True, exist_ok=True)
    if len(kept) == len(lines):
        shutil.copy2(path, new)
        return
    new.write_text("".join(f"{line}\n" for line in kept.values()), encoding="utf-8")
    if not kept:
        own[0].note(str(path), "", "the list is empty now")


def _plain_split(draft: Draft) -> str:
    """The name of the split's list; of several data sets side by side, splits have the folder's name added."""
    return draft.raw.split.removesuffix(f"-{draft.raw.source.name}")
