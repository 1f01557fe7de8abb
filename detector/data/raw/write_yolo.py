"""YOLO's layout: images/SPLIT/, labels/SPLIT/NAME.txt and data.yaml.

A line is an object: label, centre x, centre y, width, height, these as shares of the image's width and height.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import yaml
from tqdm import tqdm

from detector.data.raw.file_names import UniqueNames, flat_stem, plain_suffix
from detector.data.raw.losses import read_lines
from detector.data.raw.material import Material, Picture
from detector.data.raw.output import Output

_NOISE = 1e-6  # pixels
_OVER_THE_EDGE = (
    "boxes over the edge of their image, not clipped (YOLO trainers leave out images with a value below 0 or above 1)"
)


def write_yolo(material: Material, output: Output) -> None:
    """Writes all splits.

    Args:
        material: what to write.
        output: where to.
    """
    for split, pictures in material.splits.items():
        names = UniqueNames()
        for picture in tqdm(pictures, f"writing {split}", leave=False, disable=None):
            stem = names.take(flat_stem(picture.file_name))
            output.place(picture, f"images/{split}", stem + plain_suffix(picture.path))
            output.write(f"labels/{split}/{stem}.txt", _lines(picture))
            output.lost["image ids"] += picture.raw.format == "coco" and picture.image_id != stem
            output.notes[_OVER_THE_EDGE] += _outside(picture)
    output.write("data.yaml", _description(material, output))


def _lines(picture: Picture) -> str:
    values = _own_values(picture) if picture.raw.format == "yolo" else _shares(picture)
    return "".join(f"{label} {text}\n" for label, text in zip(picture.labels, values, strict=True))


def _own_values(picture: Picture) -> list[str]:
    """What the source says of each object: polygons stay polygons."""
    lines = read_lines(picture.raw, picture.image)
    return [" ".join(lines[picture.raw.positions[row]].split()[1:]) for row in picture.rows]


def _shares(picture: Picture) -> list[str]:
    height, width = picture.size
    boxes = picture.boxes
    shares = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], axis=1) / [width, height, width, height]
    return [" ".join(map(repr, values)) for values in shares.tolist()]


def _outside(picture: Picture) -> int:
    starts, ends = picture.boxes[:, :2], picture.boxes[:, :2] + picture.boxes[:, 2:]
    limits = (picture.size.width + _NOISE, picture.size.height + _NOISE)
    return int(((starts < -_NOISE) | (ends > limits)).any(axis=1).sum())


def _description(material: Material, output: Output) -> str:
    places = {key: f"images/{split}" for key, split in _keys(material.splits).items()}
    # Names in quotes: what is a number or truth value without them is not the same in every version of YAML.
    return (
        yaml.safe_dump({"path": str(output.folder.absolute()), **places}, sort_keys=False)
        + "names:\n"
        + yaml.safe_dump(list(material.class_names), default_style='"', allow_unicode=True)
    )


def _keys(splits: Iterable[str]) -> dict[str, str]:
    """The split for each key: trainers look for "train", "val" and "test", while others call them "train2017"."""
    left = list(splits)
    keys = {}
    for key in ("train", "val", "test"):
        fitting = sorted((split for split in left if split.startswith(key)), key=lambda split: split != key)
        if fitting:
            keys[key] = fitting[0]
            left.remove(fitting[0])
    if "train" not in keys and left:  # such as "all"
        keys["train"] = left.pop(0)
    return keys | {split: split for split in left}
