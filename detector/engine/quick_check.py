"""What a look at the annotations alone says about a data set, at the start of a training."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import numpy as np

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset, Subset
from detector.data.doctor.anchor_fit import AnchorFit, measure_fit, objects_of
from detector.data.doctor.anchor_search import BAD_RECALL
from detector.data.doctor.box_checks import check_boxes
from detector.data.findings import KINDS, most_severe_first
from detector.data.raw.opened import raw_of
from detector.errors import one_line
from detector.structures import Size

_MOST_IMAGES = 20_000
# What training needs no word about: it drops or clips such boxes as the configuration says.
_SILENT = {"box-reversed", "box-without-area", "box-outside", "box-unreadable"}


def quick_check(dataset: DetectionDataset, config: Config, split: str) -> list[str]:
    """Lines for the log: kinds of faults with their number and the first of each, and what the anchors cover.

    Args:
        dataset: no image of it is opened; of a very large one, images evenly spread over it are looked at.
        config: for the resize rule and the anchors.
        split: its name.
    """
    looked_at = dataset
    if len(dataset) > _MOST_IMAGES:
        looked_at = Subset(dataset, np.linspace(0, len(dataset) - 1, _MOST_IMAGES).astype(int).tolist())
    raw = raw_of(looked_at, split)
    findings = [item for item in check_boxes(raw, raw.sizes, config.data.resize) if item.kind not in _SILENT]
    part = "" if looked_at is dataset else f" (of {_MOST_IMAGES:,} of {len(dataset):,} images)"
    lines = []
    for kind, members in most_severe_first(findings).items():
        lines.append(f"{KINDS[kind].title}{part}: {len(members):,}, such as {one_line(members[0], 250)}")
    objects = objects_of(raw, raw.sizes)
    if len(objects):
        fit = measure_fit(objects, raw.class_names, config.data.resize, config.model.anchors)
        lines.append(anchor_sentence(fit) + part)
        if fit.recall_50 < BAD_RECALL:
            lines.append("check_dataset.py suggests anchors and an image size that cover more")
    return lines


def leak_sentence(train_set: DetectionDataset, val_set: DetectionDataset) -> str | None:
    """Says how many images are in both sets, if any.

    Args:
        train_set: no image of it is opened.
        val_set: the same.
    """
    trained = dict(_real_paths(train_set))
    # Drawn images of one name can be of two sizes; a file has the one that it has, whatever annotations say.
    shared = [
        path
        for path, size in _real_paths(val_set)
        if path in trained and (trained[path] == size or os.path.isfile(path))
    ]
    if not shared:
        return None
    return (
        f"{len(shared):,} of {len(val_set):,} images of data.val are in data.train, too, such as "
        f"{one_line(shared[0])}: scores will be too good"
    )


def _real_paths(dataset: DetectionDataset) -> Iterator[tuple[str, Size | None]]:
    """The files of all images, whatever name their folders are called by, and sizes; each folder is looked at once.

    Images that are drawn, or come out of CIFAR's files, have names like files.
    """
    real = functools.cache(os.path.realpath)
    for index in range(len(dataset)):
        info = dataset.info(index)
        folder, name = os.path.split(info.path)
        yield os.path.join(real(folder), name), info.size


def anchor_sentence(fit: AnchorFit) -> str:
    """What the configured anchors can do."""
    return (
        f"anchors cover {100 * fit.recall_50:.1f} % of {fit.objects:,} objects at IoU 0.5, "
        f"{100 * fit.recall_70:.1f} % at 0.7; after the resize {100 * fit.under_16:.1f} % are under 16 pixels, "
        f"{100 * fit.under_32:.1f} % under 32"
    )
