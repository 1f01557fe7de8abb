"""What becomes of one split in the mended copy, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import one_line
from detector.structures import ImageId, Size


@dataclass(frozen=True)
class Change:
    """One difference between a data set and its mended copy.

    Attributes:
        file: of the data set.
        record: the record within that file; empty for the whole file.
        what: what became of it; one line.
    """

    file: str
    record: str
    what: str

    def __str__(self) -> str:
        place = f"{one_line(self.file)}: {self.record}" if self.record else one_line(self.file)
        return f"{place}: {self.what}"


class Draft:
    """One split on its way into the copy.

    Args:
        raw: the split as it is.
        sizes: ``(N, 2)`` height and width of the upright images, 0 where not known.

    Attributes:
        sizes: those; and of files that were found under another name.
        boxes: ``(M, 4)`` as in ``RawSet``, mended.
        owners: ``(M,)`` the image that each object belongs to.
        kept_images: ``(N,)`` bool.
        kept_rows: ``(M,)`` bool; objects of images that are not kept go with these.
        redrawn: the rows whose box is written anew.
        turned: those that were turned with their image.
        origins: the file that an image is copied from, where it is not the recorded one.
        names: new file names.
        new_ids: new image ids.
        new_sizes: sizes to be recorded; None for none.
        named_right: images whose annotation gets the right <filename>.
        upright: images that are written without rotation by EXIF.
        touched: images whose boxes are to be looked at once more.
        unread: records that go and are in no array, as (annotation file, place).
        renumbered: annotations are counted from 1.
        changes: what was done, in words.
    """

    def __init__(self, raw: RawSet, sizes: np.ndarray) -> None:
        self.raw = raw
        self.sizes = sizes.copy()
        self.boxes = raw.boxes.copy()
        self.owners = raw.images.copy()
        self.kept_images = np.ones(len(raw), dtype=bool)
        self.kept_rows = np.ones(len(raw.labels), dtype=bool)
        self.redrawn: set[int] = set()
        self.turned: set[int] = set()
        self.origins: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.new_ids: dict[int, ImageId] = {}
        self.new_sizes: dict[int, Size | None] = {}
        self.named_right: set[int] = set()
        self.upright: set[int] = set()
        self.touched: set[int] = set()
        self.unread: set[tuple[str, str]] = set()
        self.renumbered = False
        self.changes: list[Change] = []
        self._order = np.argsort(raw.images, kind="stable")
        self._starts = np.searchsorted(raw.images[self._order], np.arange(len(raw) + 1))

    def rows_of(self, image: int) -> list[int]:
        """The rows that the file gives to an image."""
        rows: list[int] = self._order[self._starts[image] : self._starts[image + 1]].tolist()
        return rows

    def images(self) -> Iterator[int]:
        """The images that are kept."""
        return iter(np.flatnonzero(self.kept_images).tolist())

    def kept(self) -> np.ndarray:
        """``(M,)`` bool: the objects that are in the copy."""
        listed: np.ndarray = self.kept_rows & (self.owners >= 0)
        listed[listed] = self.kept_images[self.owners[listed]]
        return listed

    def is_unchanged(self) -> bool:
        """Whether the annotations say the same as before."""
        edits = (self.redrawn, self.names, self.new_ids, self.new_sizes, self.unread)
        return bool(self.kept_images.all() and self.kept().all()) and not any(edits) and not self.renumbered

    def origin(self, image: int) -> str:
        """The file that an image is copied from."""
        return self.origins.get(image, self.raw.path(image))

    def name(self, image: int) -> str:
        """An image's file name in the copy."""
        return self.names.get(image, self.raw.file_names[image])

    def size(self, image: int) -> Size | None:
        """An image's upright size, None where it is not known."""
        height, width = self.sizes[image].tolist()
        return Size(height, width) if height and width else None

    def drop_image(self, image: int, reason: str) -> None:
        """Takes an image and its objects out."""
        if not self.kept_images[image]:
            return
        self.kept_images[image] = False
        count = sum(bool(self.kept_rows[row] and self.owners[row] == image) for row in self.rows_of(image))
        objects = f" with its {count} object{'s' * (count > 1)}" if count else ""
        self.note_image(image, f"{reason}: taken out of {one_line(self.raw.split)}{objects}")

    def drop_row(self, row: int, reason: str) -> None:
        """Takes an object out."""
        if self.kept_rows[row]:
            self.kept_rows[row] = False
            self.note_row(row, f"{reason}: taken out")

    def drop_unread(self, finding: Finding) -> None:
        """Takes out what is in no array."""
        self.unread.add((finding.file, finding.record))
        self.note(finding.file, finding.record, f"{finding.what}: taken out")

    def note(self, file: str, record: str, what: str) -> None:
        """A line about anything."""
        self.changes.append(Change(file, record, what))

    def note_image(self, image: int, what: str) -> None:
        """A line about an image."""
        self.note(self.raw.path(image), self.raw.image_records[image], what)

    def note_row(self, row: int, what: str) -> None:
        """A line about an object."""
        image = int(self.raw.images[row])
        file = self.raw.annotation_files[image] if image >= 0 else str(self.raw.source)
        self.note(file, self.raw.object_records[row], what)

    def show(self, box: np.ndarray) -> str:
        """A box as the file's own format has it; YOLO's in pixels."""
        x, y, width, height = box.tolist()
        if self.raw.format == "voc":
            corners = (x + 1, y + 1, x + width + (width < 0), y + height + (height < 0))
            return "[" + ", ".join(f"{value:g}" for value in corners) + "]"
        return f"[{x:g}, {y:g}, {width:g}, {height:g}]"


def write_changes(changes: list[Change], folder: Path) -> None:
    """Writes ``changes.json`` and ``changes.txt``.

    Raises:
        OSError: as the system reports it.
    """
    lines = [str(change) for change in changes] or ["Nothing had to be changed."]
    (folder / "changes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content = {"changes": [asdict(change) for change in changes]}
    (folder / "changes.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
