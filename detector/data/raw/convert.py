"""A data set from one format to another, with an account of what is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detector.data.raw.losses import count_losses
from detector.data.raw.material import Material, Picture, prepare
from detector.data.raw.output import Output
from detector.data.raw.structure import Format, RawSet
from detector.data.raw.write_coco import write_coco
from detector.data.raw.write_voc import write_voc
from detector.data.raw.write_yolo import write_yolo

_WRITERS: dict[Format, Callable[[Material, Output], None]] = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
}


@dataclass(frozen=True)
class SplitCount:
    """What was written of a split.

    Attributes:
        split: its name.
        images: how many.
        objects: how many.
        classes: how many of the classes have an object.
    """

    split: str
    images: int
    objects: int
    classes: int


@dataclass(frozen=True)
class Conversion:
    """The account of a conversion.

    Attributes:
        to: the new format.
        splits: what was written.
        class_names: the classes of all splits.
        lost: how much of each kind has no place in the new format.
        notes: what may surprise, with counts.
    """

    to: Format
    splits: tuple[SplitCount, ...]
    class_names: tuple[str, ...]
    lost: dict[str, int]
    notes: dict[str, int]


def convert(sets: Sequence[RawSet], to: Format, folder: Path, link: bool = False) -> Conversion:
    """Writes all splits in a format, with ``conversion.json`` at the end, and ``names.json`` if a file was renamed.

    Args:
        sets: as read; several may be of one split.
        to: the format.
        folder: new or empty.
        link: images become symbolic links to those of the source.

    Raises:
        DatasetError: the sets have faults, or the format cannot hold a class name; nothing was written.
    """
    material, output = prepare(sets), Output(folder, link)
    output.lost += count_losses(material, to)
    _WRITERS[to](material, output)
    splits = tuple(_count(split, pictures) for split, pictures in material.splits.items())
    account = Conversion(to, splits, material.class_names, dict(+output.lost), dict(+output.notes))
    if output.names:
        output.write("names.json", json.dumps(output.names, indent=1))
    output.write("conversion.json", json.dumps(asdict(account), indent=1))
    return account


def format_conversion(account: Conversion) -> str:
    """A table of the splits, then what is lost."""
    width = max(len("split"), *(len(split.split) for split in account.splits))
    lines = [f"{'split':{width}}  {'images':>8}  {'objects':>8}  {'classes':>8}"]
    lines += [f"{s.split:{width}}  {s.images:>8}  {s.objects:>8}  {s.classes:>8}" for s in account.splits]
    lines += [f"lost: {what}: {count}" for what, count in account.lost.items()] or ["nothing is lost"]
    lines += [f"note: {what}: {count}" for what, count in account.notes.items()]
    return "\n".join(lines)


def _count(split: str, pictures: Sequence[Picture]) -> SplitCount:
    labels = [label for picture in pictures for label in picture.labels]
    return SplitCount(split, len(pictures), len(labels), len(set(labels)))
