"""Images in folders, one folder a class, which names it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from detector.data.classification.labelled import choose_classes, label_annotations, labelled_sample
from detector.data.dataset import FileDataset
from detector.data.images import SUFFIXES, read_image, read_reduced
from detector.data.packed import PackedTexts
from detector.errors import DatasetError, one_line, quote
from detector.structures import Sample, is_class_name

_log = logging.getLogger(__name__)

_TRAINING = ("train", "training")
_VALIDATION = ("val", "valid", "validation", "test", "testing")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


class FolderDataset(FileDataset):
    """Image files with one label each."""

    def __getitem__(self, index: int) -> Sample:
        """Decodes an image.

        Raises:
            ImageError: it cannot be decoded.
        """
        info = self.info(index)
        if self.short_side is None:
            image = read_image(info.path, self.max_pixels)
        else:
            image, _ = read_reduced(info.path, self.max_pixels, self.short_side)
        return labelled_sample(image, int(self.annotations.labels[index]), info)


def open_folder(
    root: Path, classes: Sequence[str] | None, aliases: Mapping[str, str], max_pixels: int, prefix: str = ""
) -> FolderDataset:
    """Opens a folder that holds a folder for each class, with images at any depth below that.

    Args:
        root: the folder.
        classes: class names in the order of labels, others are left out; None takes all folders, sorted.
        aliases: names of folders that mean another class, such as {"car": "vehicle"}.
        max_pixels: larger images are refused when they are read.
        prefix: what the image ids begin with, before the path of the file below the root.

    Raises:
        DatasetError: the root has another layout, or a class has no images.
    """
    folders = _class_folders(root)
    if len(folders) < 2 and classes is None:
        raise DatasetError(
            f"{one_line(root)}: holds the one folder {quote(folders[0])}; a classifier needs two classes, "
            "each with a folder of its own"
        )
    class_names, label_of = choose_classes(folders, classes, aliases, one_line(root))
    names, labels = _collect(root, label_of)
    packed = PackedTexts.of(names)
    ids = PackedTexts.of(prefix + name for name in names) if prefix else packed
    annotations = label_annotations(ids, class_names, labels)
    return FolderDataset(annotations, root, packed, np.zeros((len(names), 2)), max_pixels)


def _collect(root: Path, label_of: Mapping[str, int]) -> tuple[list[str], np.ndarray]:
    """The image files of the wanted classes, relative to the root, and their labels."""
    names: list[str] = []
    labels: list[np.ndarray] = []
    others = 0
    owners: dict[str, str] = {}
    for name, label in label_of.items():
        found, ignored = _images_below(root, name, owners)
        if not found:
            raise DatasetError(
                f"{one_line(root / name)}: no image in this folder of a class ({', '.join(SUFFIXES)}); "
                "add some, or remove the folder"
            )
        names += sorted(found)
        labels.append(np.full(len(found), label, dtype=np.int64))
        others += ignored
    if others:
        _log.warning("%s: ignored %d files that are not images by their names", one_line(root), others)
    return names, np.concatenate(labels)


def _class_folders(root: Path) -> list[str]:
    """The names of the classes, sorted."""
    if root.is_file():
        way = "unpack it first" if root.suffix.lower() in _ARCHIVES else "name the folder that holds a folder a class"
        raise DatasetError(f"{one_line(root)}: is a file, not a folder; {way}")
    folders, files = _list(root)
    if not folders:
        if any(_is_image(name) for name in files):
            raise DatasetError(f"{one_line(root)}: holds images but no folders; put them into one folder a class")
        raise DatasetError(f"{one_line(root)}: holds no folders; images are wanted here, in one folder a class")
    _refuse_splits(root, folders)
    for name in folders:
        if not is_class_name(name):
            raise DatasetError(f"{one_line(root)}: the folder {quote(name)} cannot name a class: rename it")
    return folders


def _refuse_splits(root: Path, folders: list[str]) -> None:
    """Where train/ and val/ stand in the place of classes, the classes are one level further down."""
    known = {name.lower(): name for name in folders}
    if set(known) - {*_TRAINING, *_VALIDATION} or not any(_list(root / name)[0] for name in folders):
        return
    train = next((known[name] for name in _TRAINING if name in known), None)
    val = next((known[name] for name in _VALIDATION if name in known), None)
    ways = [f"{one_line(root / name)} in data.{split}" for name, split in ((train, "train"), (val, "val")) if name]
    raise DatasetError(f"{one_line(root)}: holds {', '.join(folders)} instead of classes; name {' and '.join(ways)}")


def _images_below(root: Path, name: str, owners: dict[str, str]) -> tuple[list[str], int]:
    """The image files of a class, relative to the root, and the number of other files.

    Args:
        root: the folder of the classes.
        name: of the class.
        owners: the class of each real folder that has been seen; is added to.
    """
    found: list[str] = []
    seen: set[str] = set()
    others = 0
    pending = [name]
    while pending:
        inner = pending.pop()
        place = os.path.realpath(root / inner)  # links may lead in circles
        owner = owners.setdefault(place, name)
        if owner != name:
            raise DatasetError(
                f"{one_line(root / inner)}: links lead here from the classes {quote(owner)} and {quote(name)}; "
                "remove one of them"
            )
        if place in seen:
            continue
        seen.add(place)
        folders, files = _list(root / inner)
        images = [file for file in files if _is_image(file)]
        pending += [f"{inner}/{folder}" for folder in folders]
        found += [f"{inner}/{file}" for file in images]
        others += len(files) - len(images)
    return found, others


def _list(folder: Path) -> tuple[list[str], list[str]]:
    """The folders and the files in a folder, sorted; hidden ones are left out."""
    try:
        with os.scandir(folder) as entries:
            kinds = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"{one_line(folder)}: cannot be read: {error.strerror}") from None
    kinds.sort()
    return [name for name, is_folder in kinds if is_folder], [name for name, is_folder in kinds if not is_folder]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
