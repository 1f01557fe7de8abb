"""What was read from a large annotation file, kept as arrays that the next start maps into memory.

An index belongs to the contents of its file (by sha256) and to how it was read. It holds no decision of its own:
without it everything is read again, to the same arrays. Arrays in files are shared by all processes that map them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detector.data.packed import PackedNumbers, PackedTexts, pack_ids
from detector.durable import checksum, make_folders, new_file, remove_folder, rename
from detector.structures import Annotations, ImageId

_log = logging.getLogger(__name__)

WORTH_BYTES = 16_000_000  # smaller files are read again in less than a second
_FORMAT = 1
_OBJECTS = ("rows", "labels", "boxes_xywh", "areas", "crowd", "difficult")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Indexed:
    """What a data set in files consists of.

    Attributes:
        annotations: the ground truth.
        names: the file of each image, relative to the images' folder.
        sizes: ``(N, 2)`` int32: height and width as noted, 0 where not.
        notes: what reading had to say.
    """

    annotations: Annotations
    names: PackedTexts
    sizes: np.ndarray
    notes: Sequence[str]


class Index:
    """The place of one index.

    Args:
        folder: of all indices.
        file: the annotation file.
        how: everything else that the result depends on.
    """

    def __init__(self, folder: Path, file: Path, how: Sequence[object]) -> None:
        key = hashlib.sha256(json.dumps([_FORMAT, checksum(file), *map(repr, how)]).encode()).hexdigest()
        self.path = folder / f"{key[:32]}"

    def load(self) -> Indexed | None:
        """The arrays, mapped; None if there are none, or damaged ones."""
        if not self.path.is_dir():
            return None
        try:
            manifest = json.loads((self.path / _MANIFEST).read_text(encoding="utf-8"))
            for name, wanted in manifest["checksums"].items():
                if checksum(self.path / name) != wanted:
                    raise ValueError(f"{name} is damaged")
            return self._mapped(manifest)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            _log.warning("%s: not used (%s); %s", self.path, error, "the annotations are read again")
            remove_folder(self.path)
            return None

    def save(self, found: Indexed) -> None:
        """Writes the arrays; where that fails, the next start takes longer, and nothing else."""
        temporary = self.path.with_name(f".tmp-{self.path.name}-{os.getpid()}")
        try:
            make_folders(temporary)
            self._write(temporary, found)
            rename(temporary, self.path)
        except OSError as error:
            if not self.path.is_dir():  # else another process was faster
                _log.warning("%s: not kept for the next start (%s)", self.path, error.strerror or error)
            remove_folder(temporary)

    def _write(self, folder: Path, found: Indexed) -> None:
        annotations = found.annotations
        arrays = {name: getattr(annotations, name) for name in _OBJECTS} | {"sizes": found.sizes}
        arrays |= {"names": found.names.bytes_, "name_ends": found.names.ends}
        ids = annotations.image_ids
        if isinstance(ids, PackedNumbers):
            arrays["ids"] = ids.values
        elif isinstance(ids, PackedTexts):
            arrays |= {"id_texts": ids.bytes_, "id_ends": ids.ends}
        checksums = {}
        for name, array in arrays.items():
            with new_file(folder / f"{name}.npy") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
            checksums[f"{name}.npy"] = file.sha256
        manifest = {
            "checksums": checksums,
            "class_names": annotations.class_names,
            "category_ids": annotations.category_ids,
            "notes": list(found.notes),
            "mixed_ids": list(ids) if isinstance(ids, tuple) else None,
        }
        with new_file(folder / _MANIFEST) as file:
            file.write(json.dumps(manifest).encode())

    def _mapped(self, manifest: dict[str, object]) -> Indexed:
        files = manifest["checksums"]
        assert isinstance(files, dict)
        # "c" for copy on write: torch warns of arrays that cannot be written.
        arrays = {name[:-4]: np.asarray(np.load(self.path / name, "c", allow_pickle=False)) for name in files}
        ids: Sequence[ImageId]
        if "ids" in arrays:
            ids = PackedNumbers(arrays["ids"])
        elif "id_texts" in arrays:
            ids = PackedTexts(arrays["id_texts"], arrays["id_ends"])
        else:
            ids = pack_ids(manifest["mixed_ids"])  # type: ignore[arg-type]
        annotations = Annotations(
            ids,
            tuple(manifest["class_names"]),  # type: ignore[arg-type]
            tuple(manifest["category_ids"]),  # type: ignore[arg-type]
            *(arrays[name] for name in _OBJECTS),
        )
        names = PackedTexts(arrays["names"], arrays["name_ends"])
        return Indexed(annotations, names, arrays["sizes"], manifest["notes"])  # type: ignore[arg-type]
