"""The configured sets to data sets of labelled images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.config.data_schema import CifarSet, CropsSet, DataSet, FolderSet, ShapesSet
from detector.config.schema import Config
from detector.data.build import class_aliases, find_data
from detector.data.classification.cifar import open_cifar
from detector.data.classification.crops import open_crops
from detector.data.classification.drawn import open_drawn
from detector.data.classification.folder import open_folder
from detector.data.classification.holdout import without_held_out
from detector.data.dataset import DetectionDataset, JoinedDataset, Subset
from detector.errors import ConfigError, DatasetError, one_line, quote

_log = logging.getLogger(__name__)


def open_labelled(
    config: Config, split: str, classes: Sequence[str] | None = None, index_folder: Path | None = None
) -> DetectionDataset:
    """Opens the images of ``data.train`` or ``data.val`` for a classifier.

    Each image has one object, which is the whole of it. Where ``data.val`` lists nothing, ``data.holdout`` of the
    training images are "val", and "train" has the others.

    Args:
        config: all settings.
        split: "train" or "val".
        classes: class names in the order of labels; None takes data.classes or, failing that, those of the first of
            the sets. Images of other classes are left out.
        index_folder: where to keep what was read of large annotation files, for the next start.

    Raises:
        ConfigError: the split lists no sets, or sets whose images have no class.
        DatasetError: as the readers; or there are fewer than two classes to learn.
    """
    classes = classes or config.data.class_names
    if config.data.val:
        dataset = _open_sets(config, split, classes, index_folder)
    else:
        train, val = _divide(config, _open_sets(config, "train", classes, index_folder))
        dataset = train if split == "train" else _existing(val)
    if split == "train":
        _check_classes(dataset)
    return dataset


def open_labelled_for_training(config: Config, index_folder: Path) -> tuple[DetectionDataset, DetectionDataset | None]:
    """Opens what to train on, and what to evaluate on if the run evaluates; as ``open_labelled``."""
    classes = config.data.class_names
    train, val = _open_sets(config, "train", classes, index_folder), None
    if not config.data.val:
        train, val = _divide(config, train)
    _check_classes(train)
    if not config.training.evaluate_every:
        return train, None
    if config.data.val:
        val = _open_sets(config, "val", train.annotations.class_names, index_folder)
    return train, _existing(val)


def _divide(config: Config, whole: DetectionDataset) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The images to train on, and those that are held out; None if none is."""
    # A run that never evaluates trains on everything.
    share = config.data.holdout if config.training.evaluate_every else 0.0
    if not share:
        return whole, None
    stays = without_held_out(whole, share, config.seed)
    if stays.all():
        raise ConfigError(
            f"data.holdout: {share:g} of {len(whole)} images leaves none to evaluate on, since one of each class "
            "stays in training; raise it, give data.val, or add images"
        )
    _log.info(
        "data.val lists nothing: val has %d of the %d images of data.train (data.holdout %g)",
        np.count_nonzero(~stays), len(whole), share,
    )  # fmt: skip
    return Subset(whole, np.flatnonzero(stays).tolist()), Subset(whole, np.flatnonzero(~stays).tolist())


def _existing(val: DetectionDataset | None) -> DetectionDataset:
    if val is None:
        raise ConfigError(
            "data.val: lists no data set, and with data.holdout or training.evaluate_every 0 nothing is held out; "
            "give a data set to evaluate on"
        )
    return val


def _open_sets(
    config: Config, split: str, classes: Sequence[str] | None, index_folder: Path | None
) -> DetectionDataset:
    sets: tuple[DataSet, ...] = config.data.train if split == "train" else config.data.val
    if not sets:
        raise ConfigError(f"data.{split}: lists no data set; give one, such as [{{format: folder, root: DIR}}]")
    _refuse_doubles(sets, split)
    parts: list[DetectionDataset] = []
    for number, item in enumerate(sets, start=1):
        # Two folders may well hold an image of the same name, and two COCO files images of the same id.
        prefix = f"{number}/" if len(sets) > 1 and isinstance(item, FolderSet | CropsSet) else ""
        parts.append(_open(item, config, classes, index_folder, prefix))
        classes = classes or parts[0].annotations.class_names
    dataset = parts[0] if len(parts) == 1 else JoinedDataset(parts)
    if not len(dataset):
        raise DatasetError(f"data.{split}: no image of any class ({quote(', '.join(dataset.annotations.class_names))})")
    return dataset


def _open(
    item: DataSet, config: Config, classes: Sequence[str] | None, index_folder: Path | None, prefix: str
) -> DetectionDataset:
    aliases = {alias: name for alias, name in class_aliases(config.data).items() if name in (classes or ())}
    match item:
        case FolderSet():
            return open_folder(find_data(item.root), classes, aliases, config.data.max_image_pixels, prefix)
        case CifarSet():
            return open_cifar(find_data(item.root), item.format, item.split, classes, aliases)
        case CropsSet():
            return open_crops(item, config, classes, aliases, index_folder, prefix)
        case ShapesSet():
            return open_drawn(item, classes, aliases)
    raise ConfigError(
        f"data: a set of the format {item.format} has boxes, not one class an image; write "
        f"{{format: crops, of: {{format: {item.format}, ...}}}} for the images of its objects"
    )


def _refuse_doubles(sets: Sequence[DataSet], split: str) -> None:
    roots = [find_data(item.root).resolve() for item in sets if isinstance(item, FolderSet)]
    twice = [root for root in roots if roots.count(root) > 1]
    if twice:
        raise DatasetError(f"data.{split}: the folder {one_line(twice[0])} is listed twice")


def _check_classes(dataset: DetectionDataset) -> None:
    """Whether there is something to tell apart."""
    names, labels = dataset.annotations.class_names, dataset.annotations.labels
    counts = np.bincount(labels, minlength=len(names))
    if np.count_nonzero(counts) < 2:
        raise DatasetError(
            f"data.train: all {len(labels)} images are of the class {quote(names[counts.argmax()])}; "
            "a classifier needs two classes"
        )
