"""Mended YOLO text files, lists and data.yaml."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.data.doctor.mending.description import described_by, write_description
from detector.data.doctor.mending.draft import Draft
from detector.data.doctor.mending.layout import Layout
from detector.data.images import read_size


def write_yolo(drafts: Sequence[Draft], layout: Layout) -> None:
    """Writes the annotations of all splits, and what describes them.

    Args:
        drafts: say what becomes of them.
        layout: the places of the files.

    Raises:
        OSError: as the system reports it.
    """
    splits: dict[Path, dict[str, Path]] = {}
    for draft in drafts:
        kept = draft.kept()
        for image in draft.images():
            _write_text(draft, image, kept, layout)
        description = described_by(draft.raw)
        if description.source.images.is_file():
            _write_list(draft, description.source.images, layout)
        layout.place(draft.raw.folder).mkdir(parents=True, exist_ok=True)
        layout.place(draft.raw.source).mkdir(parents=True, exist_ok=True)
        places = splits.setdefault(description.folder, {})
        places[description.source.split] = layout.place(description.source.images)
    for folder, places in splits.items():
        write_description(folder, layout.place(folder), places)


def _write_text(draft: Draft, image: int, kept: np.ndarray, layout: Layout) -> None:
    old = draft.raw.annotation_files[image]
    if not os.path.isfile(old):
        return
    stem = os.path.splitext(os.path.basename(draft.name(image)))[0]
    new = layout.place(old).with_name(f"{stem}.txt")
    new.parent.mkdir(parents=True, exist_ok=True)
    rows = draft.rows_of(image)
    gone = {int(draft.raw.positions[row]) for row in rows if not kept[row]}
    gone |= {_line(record) for file, record in draft.unread if file == old}
    redrawn = {int(draft.raw.positions[row]): draft.boxes[row] for row in rows if row in draft.redrawn}
    if not gone and not redrawn:
        shutil.copy2(old, new)
        return
    size = np.array(read_size(draft.origin(image)), dtype=np.float64)[::-1]
    lines = Path(old).read_text(encoding="utf-8-sig").splitlines()
    edited = [
        _edited(line, redrawn[position] / np.tile(size, 2)) if position in redrawn else line
        for position, line in enumerate(lines)
        if position not in gone
    ]
    new.write_text("".join(f"{line}\n" for line in edited), encoding="utf-8")


def _edited(line: str, box: np.ndarray) -> str:
    """A line with another box, given in shares of the image; of a polygon, what lies inside it is kept."""
    label, *old = line.split()
    if len(old) == 4:
        values = [*(box[:2] + box[2:] / 2).tolist(), *box[2:].tolist()]
    else:
        points = np.array(old, dtype=np.float64).reshape(-1, 2)
        values = points.clip(box[:2], box[:2] + box[2:]).flatten().tolist()
    return " ".join([label, *map(repr, values)])


def _line(record: str) -> int:
    """The position of "line 3"; -1 for what is no line."""
    found = re.fullmatch(r"line (\d+)", record)
    return int(found[1]) - 1 if found else -1


def _write_list(draft: Draft, path: Path, layout: Layout) -> None:
    new = layout.place(path)
    new.parent.mkdir(parents=True, exist_ok=True)
    folder = layout.place(draft.raw.folder)
    lines = [
        f"./{Path(os.path.relpath(folder / draft.name(image), new.parent)).as_posix()}" for image in draft.images()
    ]
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
