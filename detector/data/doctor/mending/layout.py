"""Where the files of a mended copy go: as they lay to each other in the original."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from detector.data.doctor.mending.description import described_by
from detector.data.raw.structure import RawSet
from detector.errors import UsageError, one_line

_NEAR = 3  # folders between a data set's root and its files


class Layout:
    """Places of files in the copy.

    Args:
        raws: the splits.
        folder: of the copy.

    Attributes:
        root: the folder that holds all of the original.
        folder: of the copy.
    """

    def __init__(self, raws: Sequence[RawSet], folder: Path) -> None:
        places = [os.path.abspath(place) for raw in raws for place in _folders_of(raw)]
        self.root = Path(os.path.commonpath(places))
        # Of a data set whose parts lie far apart, the folder above all may be that of all data.
        near = all(len(Path(place).relative_to(self.root).parts) <= _NEAR for place in places)
        self._guarded = [self.root] if near else [Path(place) for place in places]
        self.folder = folder

    def refuse_inside(self, folder: Path) -> None:
        """Sees to it that the copy will not lie in what is copied.

        Raises:
            UsageError: it would.
        """
        for place in self._guarded:
            if folder.resolve().is_relative_to(place.resolve()):
                raise UsageError(f"{one_line(folder)}: lies in the data set itself; choose a folder outside of it")

    def place(self, path: str | Path) -> Path:
        """Where a file or folder of the original is in the copy."""
        return self.folder / os.path.relpath(os.path.abspath(path), self.root)


def _folders_of(raw: RawSet) -> list[Path]:
    match raw.format:
        case "coco":
            return [raw.source.parent, raw.folder]
        case "voc":
            return [raw.source]
        case "yolo":
            return [raw.source, raw.folder, described_by(raw).folder]
