"""Loads batches of a data set as large as COCO's, and prints as JSON how much memory that takes after some of them.

The images are one small file under 120,000 ids; the 1.2 million boxes are random.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from detector.data.build import wide_images
from detector.data.dataset import FileDataset
from detector.data.loader import TrainingBatches, iterate
from detector.data.packed import PackedNumbers, pack_ids
from detector.data.sampler import TrainingOrder
from detector.data.transforms import TrainTransform
from detector.structures import Annotations, Size
from tests.tiny import tiny_config

IMAGES, OBJECTS, CLASSES = 120_000, 1_200_000, 80
SIZE = Size(48, 64)
BATCH, WORKERS = 4, 2


def annotations() -> Annotations:
    random = np.random.default_rng(0)
    corners, sides = random.uniform(0, 30, (OBJECTS, 2)), random.uniform(2, 15, (OBJECTS, 2))
    none = np.zeros(OBJECTS, dtype=bool)
    return Annotations(
        pack_ids(range(IMAGES)),
        tuple(f"class {number}" for number in range(CLASSES)),
        tuple(range(1, CLASSES + 1)),
        np.linspace(0, OBJECTS, IMAGES + 1).astype(np.int64),
        random.integers(0, CLASSES, OBJECTS),
        np.concatenate([corners, sides], axis=1),
        sides.prod(axis=1),
        none,
        none.copy(),
    )


def dataset() -> FileDataset:
    Image.new("RGB", (SIZE.width, SIZE.height), (90, 160, 30)).save("image.png")
    return FileDataset(annotations(), Path.cwd(), ["image.png"] * IMAGES, np.array([SIZE] * IMAGES), 10_000)


def memory() -> dict[str, Any]:
    """Bytes that this process and each of its workers have for themselves.

    What a worker shares with this process counts here; what both share with other programs counts nowhere, since it
    changes with those.
    """
    process = psutil.Process()
    return {
        "main": sum(part.anonymous for part in process.memory_maps()),
        "workers": [sum(part.private_dirty for part in child.memory_maps()) for child in process.children()],
    }


def bytes_of(data: FileDataset) -> dict[str, float]:
    """What an object and an image cost in memory."""
    found = data.annotations
    of_objects = [found.labels, found.boxes_xywh, found.areas, found.crowd, found.difficult]
    assert isinstance(found.image_ids, PackedNumbers)
    of_images = [found.rows, found.image_ids.values, data.names.bytes_, data.names.ends, data.sizes]
    return {
        "object": sum(item.nbytes for item in of_objects) / OBJECTS,
        "image": sum(item.nbytes for item in of_images) / IMAGES,
    }


def main() -> None:
    """Prints the memory after each of the given numbers of batches."""
    torch.set_num_threads(1)
    wanted = [int(text) for text in sys.argv[1:]]
    data, config = dataset(), tiny_config()
    order = TrainingOrder(wide_images(data), BATCH, config.seed)
    batches = TrainingBatches(data, order, TrainTransform(config.data, config.seed), 0, 1, BATCH)
    found = {}
    stream = iterate(batches, range(wanted[-1] + 1), WORKERS, torch.device("cpu"), 60)
    for number, _ in enumerate(stream, start=1):
        if number in wanted:
            found[number] = memory()
    print(json.dumps({"bytes": bytes_of(data), "memory": found}))


if __name__ == "__main__":
    main()
