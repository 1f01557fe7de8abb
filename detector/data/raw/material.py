"""What is to be written in another format: all splits with one list of classes, refused where the source is faulty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from detector.data.findings import KINDS
from detector.data.images import read_size
from detector.data.raw.structure import RawSet
from detector.errors import DatasetError, ImageError, one_line
from detector.structures import ImageId, Size

_SHOWN = 10
_MAX_LINE = 390


@dataclass(frozen=True)
class Picture:
    """One image with its objects.

    Attributes:
        raw: the set that it is from.
        image: its index there.
        size: of the upright image, from the file.
        rows: its objects' rows there, in the order of the file.
        labels: the objects' labels among the classes of all splits.
    """

    raw: RawSet
    image: int
    size: Size
    rows: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def path(self) -> str:
        """The image's file."""
        return self.raw.path(self.image)

    @property
    def file_name(self) -> str:
        """The file as its annotations name it."""
        return self.raw.file_names[self.image]

    @property
    def image_id(self) -> ImageId:
        """Its id in the source."""
        return self.raw.image_ids[self.image]

    @property
    def boxes(self) -> np.ndarray:
        """``(N, 4)`` float64: x, y, width, height in pixels."""
        boxes: np.ndarray = self.raw.boxes[list(self.rows)]
        return boxes


@dataclass(frozen=True)
class Material:
    """All that is written.

    Attributes:
        sets: the sets that it is from.
        class_names: of all splits.
        category_ids: those of the source where it is COCO, else 1 and so on.
        ids_kept: the category ids are those of the source.
        splits: the images of each split.
    """

    sets: tuple[RawSet, ...]
    class_names: tuple[str, ...]
    category_ids: tuple[ImageId, ...]
    ids_kept: bool
    splits: dict[str, list[Picture]]


def prepare(sets: Sequence[RawSet]) -> Material:
    """Joins sets of one split and finds the classes of all.

    Args:
        sets: as read; several may be of one split.

    Raises:
        DatasetError: something in them cannot be converted; a line for each of the first ten faults.
    """
    names, ids, kept = _common_classes(sets)
    label_of = {name: label for label, name in enumerate(names)}
    splits: dict[str, list[Picture]] = {}
    faults: list[str] = []
    for raw in sets:
        # Images first: without its image's size a YOLO box is no four numbers.
        splits.setdefault(raw.split, []).extend(_pictures(raw, label_of, faults))
        faults += _faults_of_annotations(raw)
    if faults:
        raise DatasetError("\n".join([*faults[:_SHOWN], _summary(len(faults))]))
    return Material(tuple(sets), names, ids, kept, splits)


def _summary(count: int) -> str:
    stops = "1 fault stops" if count == 1 else f"{count} faults stop"
    hidden = f"; {count - _SHOWN} of them are not shown" if count > _SHOWN else ""
    return f"{stops} the conversion{hidden}; run check_dataset.py --fix and convert what it writes"


def _common_classes(sets: Sequence[RawSet]) -> tuple[tuple[str, ...], tuple[ImageId, ...], bool]:
    """Names, ids, and whether these are the source's."""
    pairs = dict.fromkeys(pair for raw in sets for pair in zip(raw.class_names, raw.category_ids, strict=True))
    names, ids = [name for name, _ in pairs], [category_id for _, category_id in pairs]
    formats = {raw.format for raw in sets}
    if formats == {"coco"} and len(set(names)) == len(set(ids)) == len(pairs):
        by_id = sorted(pairs, key=lambda pair: (isinstance(pair[1], str), pair[1]))
        return tuple(name for name, _ in by_id), tuple(category_id for _, category_id in by_id), True
    # VOC has no list of its classes; its readers sort what they find.
    merged = tuple(sorted(set(names)) if formats == {"voc"} else dict.fromkeys(names))
    return merged, tuple(range(1, len(merged) + 1)), False


def _faults_of_annotations(raw: RawSet) -> list[str]:
    errors = [finding for finding in raw.findings if KINDS[finding.kind].severity == "error"]
    faults, told = [one_line(finding, _MAX_LINE) for finding in errors], {finding.row for finding in errors}
    for kind, what, bad in (
        ("box-unreadable", "the box is no four finite numbers", ~np.isfinite(raw.boxes).all(axis=1)),
        ("unknown-image", "is of no image that is listed", raw.images < 0),
        ("unknown-category", "is of no category that is declared", raw.labels < 0),
    ):
        rows = [int(row) for row in np.flatnonzero(bad) if row not in told]
        faults += [one_line(raw.about_object(kind, row, what), _MAX_LINE) for row in rows]
    return faults


def _pictures(raw: RawSet, label_of: dict[str, int], faults: list[str]) -> list[Picture]:
    """The images of a set; those whose file does not fit are told among the faults instead."""
    known = (raw.images >= 0) & (raw.labels >= 0)
    order = np.argsort(raw.images, kind="stable")
    order = order[known[order]]
    ends = np.searchsorted(raw.images[order], np.arange(len(raw) + 1))
    common = [label_of[name] for name in raw.class_names]
    pictures = []
    for image in tqdm(range(len(raw)), f"{raw.split}: sizes of images", leave=False, disable=None):
        rows = tuple(order[ends[image] : ends[image + 1]].tolist())
        labels = tuple(common[raw.labels[row]] for row in rows)
        try:
            picture = Picture(raw, image, read_size(raw.path(image)), rows, labels)
        except ImageError as error:
            faults.append(str(error))
            continue
        faults += _faults_of_size(picture)
        pictures.append(picture)
    return pictures


def _faults_of_size(picture: Picture) -> list[str]:
    """Boxes of another size would be wrong; the size before rotation by EXIF is right where they fit the upright."""
    size, recorded = picture.size, Size(*picture.raw.sizes[picture.image].tolist())
    if 0 in recorded or recorded == size:
        return []
    ends = picture.boxes[:, :2] + picture.boxes[:, 2:]
    fit = bool((ends <= (size.width + 1, size.height + 1)).all())
    if recorded == (size.width, size.height) and fit:
        return []
    return [
        f"{one_line(picture.path)}: the image is {size.width} x {size.height}, "
        f"but its annotation says {recorded.width} x {recorded.height}"
    ]
