"""A fetched data set, opened as training would open it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detector.data.coco import open_coco
from detector.data.dataset import FileDataset
from detector.data.voc import open_voc

# No image is decoded here.
_MAX_PIXELS = 2**31


def open_fetched(root: Path, name: str) -> Iterator[tuple[str, FileDataset]]:
    """Opens each split with the strict reader: annotations are read, and each image must be there.

    Args:
        root: the folder of all data sets.
        name: "coco2017" or "voc0712".

    Raises:
        DatasetError: what the reader found.
    """
    if name == "coco2017":
        for split in ("train2017", "val2017"):
            annotations = root / "coco" / "annotations" / f"instances_{split}.json"
            yield split, open_coco(root / "coco" / split, annotations, None, True, _MAX_PIXELS)
    else:
        for year, split in ((2007, "trainval"), (2007, "test"), (2012, "trainval")):
            yield f"VOC{year} {split}", open_voc(root / "VOCdevkit" / f"VOC{year}", split, None, True, _MAX_PIXELS)
