"""A data set that has been opened, in the form that checks work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from detector.data.dataset import DetectionDataset
from detector.data.raw.structure import RawSet


def raw_of(dataset: DetectionDataset, split: str) -> RawSet:
    """What is known of a data set without opening an image; boxes that were dropped are not in it.

    Args:
        dataset: of any kind; messages name its images.
        split: its name.
    """
    annotations = dataset.annotations
    infos = [dataset.info(index) for index in range(len(dataset))]
    count = len(annotations.labels)
    numbers = np.arange(count) - np.repeat(annotations.rows[:-1], np.diff(annotations.rows))
    return RawSet(
        "coco",
        split,
        Path(f"{split}: drawn, or of a format of its own"),
        Path(),
        tuple(annotations.image_ids),
        tuple(info.path for info in infos),
        tuple(info.path for info in infos),
        ("",) * len(infos),
        np.array([info.size or (0, 0) for info in infos], dtype=np.int64).reshape(-1, 2),
        annotations.category_ids,
        annotations.class_names,
        annotations.image_index(),
        annotations.labels,
        annotations.boxes_xywh,
        annotations.areas,
        annotations.crowd,
        annotations.difficult,
        numbers,
        tuple(f"object {number}" for number in numbers.tolist()),
        (),
    )
