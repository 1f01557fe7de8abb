"""The folder that a data set is written to in another format, with an account of what was not as in the source."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from detector.data.raw.material import Picture


@dataclass
class Output:
    """A folder that is being written.

    Attributes:
        folder: new or empty.
        link: images are linked, not copied.
        lost: how much of each kind has no place in the output.
        notes: what is in it but may surprise, with counts.
        names: for each image file that could not keep its name, that name.
    """

    folder: Path
    link: bool
    lost: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    names: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, data: bytes | str) -> None:
        """A new file, text as UTF-8; the folders above it are made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def place(self, picture: Picture, folder: str, name: str) -> None:
        """Brings an image into a folder of the output, its bytes as they are."""
        path = self.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            path.symlink_to(os.path.realpath(picture.path))
        else:
            shutil.copy2(picture.path, path)
        if name != picture.file_name:
            self.names[f"{folder}/{name}"] = picture.file_name
