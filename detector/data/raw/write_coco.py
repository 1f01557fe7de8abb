"""COCO's layout: annotations/instances_SPLIT.json, and the images in SPLIT/.

Of a COCO source the ids and all further keys are kept as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from tqdm import tqdm

from detector.data.raw.file_names import UniqueNames, flat_stem, plain_suffix
from detector.data.raw.losses import COCO_KEYS
from detector.data.raw.material import Material, Picture
from detector.data.raw.output import Output
from detector.data.raw.structure import RawSet
from detector.errors import one_line
from detector.strict_json import read_json
from detector.structures import ImageId

Record = dict[str, Any]


def write_coco(material: Material, output: Output) -> None:
    """Writes all splits.

    Args:
        material: what to write.
        output: where to.
    """
    for split, pictures in material.splits.items():
        sources = [_Source(raw) for raw in material.sets if raw.split == split]
        content = _further_content(sources, output)
        content["categories"] = _categories(material, sources)
        content |= _records(split, pictures, material, sources, output)
        output.write(f"annotations/instances_{split}.json", json.dumps(content))


class _Source:
    """The records of a set in its own file, if that is COCO; else there are none."""

    def __init__(self, raw: RawSet) -> None:
        self.raw = raw
        self.content: Record = read_json(raw.source) if raw.format == "coco" else {}
        self._images = {record["id"]: record for record in self.content.get("images", [])}

    def image(self, picture: Picture) -> Record:
        """The record of an image."""
        return dict(self._images.get(picture.image_id, {}))

    def annotation(self, row: int) -> Record:
        """The record of an object."""
        return dict(self.content["annotations"][self.raw.positions[row]]) if self.content else {}


def _further_content(sources: Sequence[_Source], output: Output) -> Record:
    # Some versions of pycocotools fail on a file without "info".
    content: Record = {"info": {}}
    for source in sources:
        for key, value in source.content.items():
            if key not in COCO_KEYS and content.get(key) and content[key] != value:
                output.lost[f"{one_line(key, 60)} of the file"] += 1
            elif key not in COCO_KEYS:
                content[key] = value
    return content


def _categories(material: Material, sources: Sequence[_Source]) -> list[Record]:
    records = {record["name"]: record for source in sources for record in source.content.get("categories", [])}
    return [
        records.get(name, {}) | {"id": category_id, "name": name}
        for name, category_id in zip(material.class_names, material.category_ids, strict=True)
    ]


def _records(
    split: str, pictures: Sequence[Picture], material: Material, sources: Sequence[_Source], output: Output
) -> Record:
    """The images, copied into place, and their annotations."""
    source_of = {id(source.raw): source for source in sources}
    image_ids, names, annotations = _image_ids(pictures, output), UniqueNames(), []
    images = []
    for image_id, picture in zip(image_ids, tqdm(pictures, f"writing {split}", leave=False, disable=None), strict=True):
        source = source_of[id(picture.raw)]
        name = names.take(_fit_name(picture))
        output.place(picture, split, name)
        sides = {"height": picture.size.height, "width": picture.size.width}
        images.append(source.image(picture) | {"id": image_id, "file_name": name, **sides})
        annotations += _annotations(picture, image_id, material, source)
    _number(annotations, output)
    return {"images": images, "annotations": annotations}


def _fit_name(picture: Picture) -> str:
    """The image's own name; files whose name is no text exist, JSON in which it stands is not portable."""
    name = picture.file_name
    return name if name.isprintable() else flat_stem(name) + plain_suffix(picture.path)


def _image_ids(pictures: Sequence[Picture], output: Output) -> list[ImageId]:
    own = [picture.image_id for picture in pictures if picture.raw.format == "coco"]
    if len(set(own)) == len(pictures):
        return own
    output.lost["image ids"] += len(own)
    return list(range(1, len(pictures) + 1))


def _annotations(picture: Picture, image_id: ImageId, material: Material, source: _Source) -> list[Record]:
    raw, records = picture.raw, []
    for row, label in zip(picture.rows, picture.labels, strict=True):
        box = raw.boxes[row].tolist()
        records.append(
            source.annotation(row)
            | {
                "image_id": image_id,
                "category_id": material.category_ids[label],
                "bbox": box,
                "area": float(raw.areas[row]) if np.isfinite(raw.areas[row]) else box[2] * box[3],
                "iscrowd": int(raw.crowd[row]),
            }
            | ({"difficult": int(raw.difficult[row])} if raw.difficult.any() else {})
        )
    return records


def _number(annotations: Sequence[Record], output: Output) -> None:
    """Gives each annotation an id: its own where all have one that pycocotools can tell from the others and from 0."""
    ids = [record["id"] for record in annotations if isinstance(record.get("id"), int | str) and record["id"]]
    if len(set(ids)) == len(annotations):
        return
    output.lost["annotation ids"] += len(ids)
    for number, record in zip(count(1), annotations, strict=False):
        record["id"] = number
