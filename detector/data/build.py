"""The configured sets to data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.config.data_schema import ClassGroup, CocoSet, DataConfig, DataSet, ShapesSet, VocSet
from detector.config.schema import Config
from detector.data.coco import open_coco
from detector.data.dataset import DetectionDataset, FileDataset, JoinedDataset, Subset
from detector.data.repeats import image_repeats
from detector.data.sampler import TrainingOrder
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.data.voc import open_voc
from detector.errors import ConfigError, DatasetError, quote
from detector.structures import Size


def open_split(
    config: Config, split: str, classes: Sequence[str] | None = None, index_folder: Path | None = None
) -> DetectionDataset:
    """Opens ``data.train`` or ``data.val``.

    Args:
        config: all settings.
        split: "train" or "val".
        classes: class names in the order of labels; None takes data.classes or, failing that, what the first of
            the sets declares.
        index_folder: where to keep what was read of large annotation files, for the next start.

    Raises:
        ConfigError: the split lists no sets.
        DatasetError: as the readers.
    """
    sets: tuple[DataSet, ...] = config.data.train if split == "train" else config.data.val
    if not sets:
        raise ConfigError(f"data.{split}: lists no data set; give one, such as [{{format: shapes, images: 100}}]")
    classes = classes or config.data.class_names
    parts: list[DetectionDataset] = []
    for item in sets:
        parts.append(open_set(item, config, classes, index_folder))
        classes = classes or parts[0].annotations.class_names
    dataset = parts[0] if len(parts) == 1 else JoinedDataset(parts)
    if split == "train" and not len(dataset.annotations.labels):
        raise DatasetError(f"data.{split}: no object of any class in {len(dataset)} images; there is nothing to learn")
    return dataset


def open_for_training(config: Config, index_folder: Path) -> tuple[DetectionDataset, DetectionDataset | None]:
    """Opens what to train on, and what to evaluate on if the run evaluates; as ``open_split``."""
    train = open_split(config, "train", index_folder=index_folder)
    if not config.training.evaluate_every:
        return train, None
    if not config.data.val:
        raise ConfigError("data.val: lists no data set; give one, or set training.evaluate_every=0")
    return train, open_split(config, "val", train.annotations.class_names, index_folder)


def open_set(
    item: DataSet, config: Config, classes: Sequence[str] | None, index_folder: Path | None
) -> DetectionDataset:
    """Opens one set of boxes.

    Args:
        item: its entry in the configuration.
        config: for the data section.
        classes: class names in the order of labels; None takes what the set declares.
        index_folder: where to keep what was read of large annotation files.

    Raises:
        ConfigError: it is a set for classifiers, or has other classes than ``classes``.
        DatasetError: as the readers.
    """
    drop, max_pixels = config.data.on_bad_box == "drop", config.data.max_image_pixels
    aliases = {alias: name for alias, name in class_aliases(config.data).items() if name in (classes or ())}
    match item:
        case CocoSet():
            images, annotations = find_data(item.images), find_data(item.annotations)
            return open_coco(images, annotations, classes, drop, max_pixels, aliases, index_folder)
        case VocSet():
            return open_voc(find_data(item.root), item.split, classes, drop, max_pixels, aliases)
        case ShapesSet():
            if classes and tuple(classes) != CLASS_NAMES:
                raise ConfigError(
                    f"data.classes: the shapes set has the classes {', '.join(CLASS_NAMES)}, "
                    f"not {quote(', '.join(classes))}"
                )
            return ShapesDataset(item.images, item.seed, Size(*item.size), item.hard)
        case _:
            raise ConfigError(
                f"data: sets of the format {item.format} have no boxes; a detector is trained on coco, voc or shapes, "
                "a classifier by pretrain.py"
            )


def class_aliases(data: DataConfig) -> dict[str, str]:
    """The names in data sets that mean another class, by ``data.classes``."""
    groups = [entry for entry in data.classes or () if isinstance(entry, ClassGroup)]
    return {alias: group.name for group in groups for alias in group.merge}


def find_data(path: str) -> Path:
    """A data path of the configuration as a path on this machine.

    Relative ones are looked for under $DETECTOR_DATASETS if that is set; else under datasets/ of this checkout,
    datasets/ of the working directory, and the working directory itself.

    Raises:
        DatasetError: there is no such file or folder.
    """
    given = Path(path).expanduser()
    places = [Path()]
    if not given.is_absolute():
        root = os.environ.get("DETECTOR_DATASETS")
        checkout = Path(__file__).resolve().parents[2] / "datasets"
        places = [Path(root)] if root else [checkout, Path("datasets"), Path()]
    for place in places:
        if (place / given).exists():
            return place / given
    looked = ", ".join(dict.fromkeys(str((place / given).absolute()) for place in places))
    hint = "" if given.is_absolute() else "; set DETECTOR_DATASETS to the folder of your data sets"
    raise DatasetError(f"{path}: not found (looked for {looked}){hint}")


def training_order(config: Config, dataset: DetectionDataset) -> TrainingOrder:
    """The order of ``data.train``, as the configuration groups and repeats images."""
    grouped = config.data.group_by_aspect_ratio
    return TrainingOrder(
        wide_images(dataset) if grouped else np.ones(len(dataset), dtype=bool),
        config.training.batch_size,
        config.seed,
        image_repeats(dataset.annotations, config.data),
    )


def wide_images(dataset: DetectionDataset) -> np.ndarray:
    """``(N,)`` bool: the image is wider than tall, as far as its annotations tell."""
    match dataset:
        case FileDataset():
            return np.asarray(dataset.sizes[:, 1] > dataset.sizes[:, 0])
        case JoinedDataset():
            return np.concatenate([wide_images(part) for part in dataset.parts])
        case Subset():
            return np.asarray(wide_images(dataset.whole)[dataset.indices])
    sizes = [dataset.info(index).size for index in range(len(dataset))]
    return np.array([size is not None and size.width > size.height for size in sizes])
