"""CIFAR-10 and CIFAR-100 in the files that their author published (Krizhevsky 2009), unpacked.

There are two versions of equal content: pickles of Python 2, which are read without running what they say, and plain
bytes. N images are of 32 x 32 pixels; each stands in a file as its red, its green and its blue pixels.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from detector.data.classification.labelled import choose_classes, label_annotations, labelled_sample
from detector.errors import DatasetError, one_line, quote
from detector.numpy_pickle import DAMAGE, PickledArray, read_numpy_pickle
from detector.regular_file import read_regular
from detector.structures import Annotations, ImageInfo, Sample, Size, is_class_name

_log = logging.getLogger(__name__)

_SIZE = Size(32, 32)
_BYTES = 3 * 32 * 32
_MAX_BYTES = 2**29  # CIFAR-100's training images are 156 MB


@dataclass(frozen=True)
class _Version:
    """One form of a set: its folder, its archive, and the files in the folder.

    ``key`` names the labels in a pickle; plain bytes have none, but ``label_bytes`` before each image, of which the
    last counts.
    """

    folder: str
    archive: str
    names: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    key: str = ""
    label_bytes: int = 0


_VERSIONS = {
    "cifar10": (
        _Version(
            "cifar-10-batches-py", "cifar-10-python.tar.gz", "batches.meta",
            tuple(f"data_batch_{number}" for number in range(1, 6)), ("test_batch",), key="labels",
        ),
        _Version(
            "cifar-10-batches-bin", "cifar-10-binary.tar.gz", "batches.meta.txt",
            tuple(f"data_batch_{number}.bin" for number in range(1, 6)), ("test_batch.bin",), label_bytes=1,
        ),
    ),
    "cifar100": (
        _Version(
            "cifar-100-python", "cifar-100-python.tar.gz", "meta", ("train",), ("test",), key="fine_labels",
        ),
        _Version(
            "cifar-100-binary", "cifar-100-binary.tar.gz", "fine_label_names.txt", ("train.bin",), ("test.bin",),
            label_bytes=2,
        ),
    ),
}  # fmt: skip
_PUBLISHED = {"train": 50000, "test": 10000}


class CifarDataset:
    """Small images in memory.

    Args:
        name: of the set and the split.
        images: ``(N, 32, 32, 3)`` uint8, RGB.
        numbers: ``(N,)`` int64: of each image in its split.
        annotations: the labels.
    """

    def __init__(self, name: str, images: np.ndarray, numbers: np.ndarray, annotations: Annotations) -> None:
        self.name = name
        self.images = images
        self.numbers = numbers
        self.annotations = annotations

    def __len__(self) -> int:
        return len(self.images)

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        return ImageInfo(self.annotations.image_ids[index], f"{self.name}_{self.numbers[index]:05d}.png", _SIZE)

    def __getitem__(self, index: int) -> Sample:
        return labelled_sample(self.images[index].copy(), int(self.annotations.labels[index]), self.info(index))


def open_cifar(
    root: Path,
    kind: Literal["cifar10", "cifar100"],
    split: Literal["train", "test"],
    classes: Sequence[str] | None,
    aliases: Mapping[str, str],
) -> CifarDataset:
    """Opens one split.

    Args:
        root: the folder of the files, or the one that holds it.
        kind: which of the two sets; CIFAR-100 with its 100 fine classes.
        split: which images.
        classes: class names in the order of labels, others are left out; None takes all.
        aliases: names of classes that mean another class.

    Raises:
        DatasetError: files are missing, damaged, or of another kind.
    """
    folder, version = _find(root, kind)
    found = _read_names(folder / version.names, version)
    class_names, label_of = choose_classes(found, classes, aliases, one_line(root))
    files = version.train if split == "train" else version.test
    parts = [_read_batch(folder / file, version, len(found)) for file in files]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if len(labels) != _PUBLISHED[split]:
        _log.warning("%s: %d images of %s, where %d were published", folder, len(labels), split, _PUBLISHED[split])
    chosen = np.array([label_of.get(name, -1) for name in found], dtype=np.int64)[labels]
    numbers = np.flatnonzero(chosen >= 0)
    pixels = np.ascontiguousarray(images[numbers].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    ids = [f"{split}_{number:05d}" for number in numbers.tolist()]
    annotations = label_annotations(ids, class_names, chosen[numbers], _SIZE)
    return CifarDataset(f"{kind}_{split}", pixels, numbers, annotations)


def _find(root: Path, kind: str) -> tuple[Path, _Version]:
    """The folder of the files, and which version they are."""
    where = one_line(root)
    if root.is_file():
        way = f"unpack it (tar -xzf {where}) and " if root.suffix in (".gz", ".tgz", ".tar") else ""
        raise DatasetError(f"{where}: is a file; {way}name the folder that holds the files of the set")
    for version in _VERSIONS[kind]:
        for folder in (root, root / version.folder):
            if any((folder / name).is_file() for name in (version.names, *version.train, *version.test)):
                return folder, version
    for version in _VERSIONS[kind]:
        if (root / version.archive).is_file():
            raise DatasetError(
                f"{where}: {version.archive} is not unpacked: tar -xzf {one_line(root / version.archive)} -C {where}"
            )
    folders = " nor ".join(version.folder for version in _VERSIONS[kind])
    raise DatasetError(f"{where}: neither {folders} is here, as the archives of {kind} hold them")


def _read_names(path: Path, version: _Version) -> list[str]:
    if version.key:
        names = _read_pickle(path).get(version.key.replace("labels", "label_names"))
    else:
        names = [line.strip() for line in _read(path).decode("latin1").splitlines() if line.strip()]
    if not isinstance(names, list) or not all(isinstance(name, bytes | str) for name in names):
        raise DatasetError(f"{one_line(path)}: holds no names of classes; unpack the archive anew")
    texts = [_text(name) for name in names]
    if len(texts) < 2 or len(set(texts)) < len(texts) or not all(map(is_class_name, texts)):
        raise DatasetError(f"{one_line(path)}: holds no distinct names of classes; unpack the archive anew")
    return texts


def _read_batch(path: Path, version: _Version, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """``(n, 3072)`` uint8 and ``(n,)`` int64: the images of a file, and their labels."""
    images, labels = _read_pickled(path, version) if version.key else _read_bytes(path, version)
    if not len(labels):
        raise DatasetError(f"{one_line(path)}: holds no images; unpack the archive anew")
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(
            f"{one_line(path)}: labels must be 0..{classes - 1}, got {labels.min()}..{labels.max()}; is it of this set?"
        )
    return images, labels


def _read_bytes(path: Path, version: _Version) -> tuple[np.ndarray, np.ndarray]:
    content, length = _read(path), version.label_bytes + _BYTES
    if len(content) % length:
        raise DatasetError(
            f"{one_line(path)}: has {len(content)} bytes, which is no multiple of {length}, as an image and its label "
            "take; unpack the archive anew"
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    return records[:, version.label_bytes :], records[:, version.label_bytes - 1].astype(np.int64)


def _read_pickled(path: Path, version: _Version) -> tuple[np.ndarray, np.ndarray]:
    content = _read_pickle(path)
    data, labels = content.get("data"), content.get(version.key)
    if not isinstance(data, PickledArray) or not isinstance(labels, list):
        raise DatasetError(f"{one_line(path)}: holds no data and {version.key}; is it of this set?")
    images = data.array
    if images.dtype != np.uint8 or images.shape != (len(labels), _BYTES):
        raise DatasetError(
            f"{one_line(path)}: data must be uint8 of {len(labels)} x {_BYTES}, as there are {len(labels)} labels, "
            f"got {images.dtype} of {' x '.join(map(str, images.shape))}"
        )
    if not all(isinstance(label, int) and abs(label) < 2**31 for label in labels):
        raise DatasetError(f"{one_line(path)}: {version.key} must be whole numbers")
    return images, np.array(labels, dtype=np.int64)


def _read_pickle(path: Path) -> dict[str, Any]:
    """What a batch or its names are pickled as, by name."""
    file = io.BytesIO(_read(path))
    try:
        content = read_numpy_pickle(file)
    except pickle.UnpicklingError as error:
        raise DatasetError(
            f"{one_line(path)}: is damaged, or holds more than arrays and plain values ({quote(error)})"
        ) from None
    except DAMAGE:
        raise DatasetError(f"{one_line(path)}: is damaged, or not of CIFAR; unpack the archive anew") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{one_line(path)}: is not of CIFAR: holds a {type(content).__name__}")
    return {_text(key): value for key, value in content.items() if isinstance(key, bytes | str)}


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_BYTES)
    except FileNotFoundError:
        raise DatasetError(f"{one_line(path)}: no such file, though others of its set are there") from None
    except OSError as error:
        raise DatasetError(f"{one_line(path)}: cannot be read: {error.strerror}") from None


def _text(value: bytes | str) -> str:
    """Python 2 wrote texts as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else value
