"""The objects of a detection set as images of their own, each of the class of its box."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.config.data_schema import CropsSet, ShapesSet
from detector.config.schema import Config
from detector.data.build import open_set
from detector.data.classification.labelled import choose_classes, label_annotations, labelled_sample
from detector.data.dataset import DetectionDataset
from detector.errors import DatasetError, one_line
from detector.structures import Annotations, ImageInfo, Sample, Size

_log = logging.getLogger(__name__)


class CropsDataset:
    """Squares around the boxes of a detection set.

    Args:
        whole: the detection set.
        rows: ``(N,)`` int64: the objects, as rows of its annotations.
        annotations: the labels of these objects; their boxes, with the context, are those in the image that they are
            cut out of.
        context: added on each side of a box, as a share of its longer side.
    """

    def __init__(self, whole: DetectionDataset, rows: np.ndarray, annotations: Annotations, context: float) -> None:
        self.whole = whole
        self.rows = rows
        self.annotations = annotations
        self.context = context
        self._images = whole.annotations.image_index()[rows]
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def sources(self) -> list[str]:
        """The id of the image that each object was cut from, as text."""
        ids = list(map(str, self.whole.annotations.image_ids))
        return [ids[image] for image in self._images.tolist()]

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        path = self.whole.info(int(self._images[index])).path
        return ImageInfo(self.annotations.image_ids[index], path, None)

    def __getitem__(self, index: int) -> Sample:
        """Decodes the image and cuts the object out.

        Raises:
            ImageError: the image cannot be decoded.
            DatasetError: the object lies outside the image.
        """
        info = self.info(index)
        image = self._image(int(self._images[index]))
        box = self.whole.annotations.boxes_xywh[self.rows[index]]
        square = crop_square(box, Size(*image.shape[:2]), self.context)
        if square is None:
            number = str(info.image_id).rsplit("#", 1)[1]
            raise DatasetError(f"{one_line(info.path)}: object {number} lies outside the image")
        left, top, right, bottom = square
        return labelled_sample(image[top:bottom, left:right].copy(), int(self.annotations.labels[index]), info)

    def _image(self, index: int) -> np.ndarray:
        """Neighbours are often of one image, which is then decoded once."""
        if self._last is None or self._last[0] != index:
            self._last = index, self.whole[index].image
        return self._last[1]


def open_crops(
    item: CropsSet,
    config: Config,
    classes: Sequence[str] | None,
    aliases: Mapping[str, str],
    index_folder: Path | None,
    prefix: str = "",
) -> CropsDataset:
    """Opens a detection set as images of its objects; crowds and small boxes are left out.

    Args:
        item: the detection set, and how it is cut.
        config: all settings.
        classes: class names in the order of labels, others are left out; None takes what the set declares.
        aliases: names of classes that mean another class, such as {"car": "vehicle"}.
        index_folder: where to keep what was read of large annotation files.
        prefix: what the image ids begin with.

    Raises:
        DatasetError: as the readers, or no object is left.
    """
    # The other readers choose classes themselves, by the same rules.
    whole = open_set(item.of, config, None if isinstance(item.of, ShapesSet) else classes, index_folder)
    found, source = whole.annotations, f"the crops of {item.of.format}"
    class_names, label_of = choose_classes(found.class_names, classes, aliases, source)
    labels = np.array([label_of.get(name, -1) for name in found.class_names], dtype=np.int64)[found.labels]
    wanted = (labels >= 0) & ~found.crowd
    small = wanted & ~(_shorter_sides(whole) >= item.min_side)
    if small.any():
        _log.warning(
            "%s: left out %d of %d objects, whose boxes have a side under %d pixels (min_side)",
            source, small.sum(), wanted.sum(), item.min_side,
        )  # fmt: skip
    rows = np.flatnonzero(wanted & ~small)
    ids = [prefix + image_id for image_id in _ids(found, rows)]
    # The fingerprint of the annotations must tell what is cut.
    boxes = _with_context(found.boxes_xywh[rows], item.context)
    annotations = replace(
        label_annotations(ids, class_names, labels[rows]), boxes_xywh=boxes, areas=boxes[:, 2:].prod(axis=1)
    )
    return CropsDataset(whole, rows, annotations, item.context)


def crop_square(box_xywh: np.ndarray, size: Size, context: float) -> tuple[int, int, int, int] | None:
    """The square around a box, in whole pixels, as far as the image has room for it.

    Args:
        box_xywh: (x, y, width, height); what of it lies outside the image does not count.
        size: of the image.
        context: added on each side, as a share of the longer side.

    Returns:
        (x1, y1, x2, y2) inside the image, moved away from its borders rather than cut; None for a box outside.
    """
    limits = np.array([size.width, size.height], dtype=np.float64)
    start, end = box_xywh[:2].clip(0, limits), (box_xywh[:2] + box_xywh[2:]).clip(0, limits)
    if not (end > start).all():
        return None
    side = math.ceil((end - start).max() * (1 + 2 * context))
    sides = np.minimum(side, limits)
    corner = np.rint((start + end - sides) / 2).clip(0, limits - sides)
    x1, y1, x2, y2 = np.concatenate([corner, corner + sides]).astype(int).tolist()
    return x1, y1, x2, y2


def _with_context(boxes_xywh: np.ndarray, context: float) -> np.ndarray:
    """``(N, 4)`` boxes with so much on each side as ``crop_square`` adds, in the image that they lie in."""
    added = context * boxes_xywh[:, 2:].max(axis=1, keepdims=True)
    return np.concatenate([boxes_xywh[:, :2] - added, boxes_xywh[:, 2:] + 2 * added], axis=1)


def _shorter_sides(whole: DetectionDataset) -> np.ndarray:
    """``(M,)``: of the boxes, without what lies outside the image where its size is known."""
    annotations = whole.annotations
    sizes = [whole.info(index).size or (math.inf, math.inf) for index in range(len(whole))]
    limits = np.array(sizes, dtype=np.float64).reshape(-1, 2)[annotations.image_index(), ::-1]
    start, extent = annotations.boxes_xywh[:, :2], annotations.boxes_xywh[:, 2:]
    inside = np.minimum(start + extent, limits) - np.maximum(start, 0)
    return np.asarray(inside.min(axis=1))


def _ids(annotations: Annotations, rows: np.ndarray) -> list[str]:
    """The id of the image and the number of the object in it."""
    images = annotations.image_index()[rows]
    numbers = rows - annotations.rows[images]
    return [
        f"{annotations.image_ids[image]}#{number}"
        for image, number in zip(images.tolist(), numbers.tolist(), strict=True)
    ]
