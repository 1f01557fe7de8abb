"""The data sets that a configuration names, as places to read from."""

from __future__ import annotations

from detector.config.schema import CocoSet, Config, VocSet
from detector.data.build import find_data
from detector.data.raw.structure import Source


def configured_sources(config: Config) -> list[Source]:
    """The files of ``data.train`` and ``data.val``; sets that are drawn have none.

    Several sets of a split are told apart by a number: "train", "train 2".

    Raises:
        DatasetError: a file or folder is not there.
    """
    sources = []
    for split, sets in (("train", config.data.train), ("val", config.data.val)):
        for number, item in enumerate(sets, start=1):
            name = split if number == 1 else f"{split} {number}"
            match item:
                case CocoSet():
                    sources.append(Source("coco", name, find_data(item.images), find_data(item.annotations)))
                case VocSet():
                    root = find_data(item.root)
                    sources.append(Source("voc", name, root, root / "ImageSets" / "Main" / f"{item.split}.txt"))
    return sources
