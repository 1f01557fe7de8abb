"""The data sets that a configuration names, as places to read from."""

from __future__ import annotations

from collections.abc import Iterator

from detector.config.data_schema import CifarSet, CocoSet, CropsSet, DataSet, FolderSet, ShapesSet, VocSet
from detector.config.schema import Config
from detector.data.build import find_data
from detector.data.raw.structure import Source
from detector.data.shapes import ShapesDataset
from detector.errors import ConfigError
from detector.structures import Size


def configured_sources(config: Config) -> list[Source]:
    """The files of ``data.train`` and ``data.val``; sets that are drawn have none.

    Several sets of a split are told apart by a number: "train", "train 2".

    Raises:
        DatasetError: a file or folder is not there.
        ConfigError: a set has no boxes.
    """
    sources = []
    for name, item in _named_sets(config):
        match item:
            case CocoSet():
                sources.append(Source("coco", name, find_data(item.images), find_data(item.annotations)))
            case VocSet():
                root = find_data(item.root)
                sources.append(Source("voc", name, root, root / "ImageSets" / "Main" / f"{item.split}.txt"))
    return sources


def configured_drawings(config: Config) -> dict[str, ShapesDataset]:
    """The sets of ``data.train`` and ``data.val`` that are drawn, by the same names."""
    return {
        name: ShapesDataset(item.images, item.seed, Size(*item.size), item.hard)
        for name, item in _named_sets(config)
        if isinstance(item, ShapesSet)
    }


def _named_sets(config: Config) -> Iterator[tuple[str, DataSet]]:
    for split, sets in (("train", config.data.train), ("val", config.data.val)):
        for number, item in enumerate(sets, start=1):
            if isinstance(item, FolderSet | CifarSet | CropsSet):
                raise ConfigError(
                    f"data.{split}: a set of the format {item.format} has no boxes to check; pretrain.py itself tells "
                    "what is wrong with it"
                )
            yield split if number == 1 else f"{split} {number}", item
