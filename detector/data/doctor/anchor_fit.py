"""How well the anchors cover the objects of a data set, before any training.

For an anchor of one shape the best place on the grid is the one nearest to the object's centre, along x and along y
apart: what two intervals share only shrinks as their centres part. So one place an object and shape is enough, and
a million objects take seconds. Shape letters: M objects, A anchors a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detector.config.data_schema import ResizeConfig
from detector.config.schema import AnchorConfig
from detector.data.doctor.resizing import resized_sizes
from detector.data.raw.structure import RawSet
from detector.ops.anchors import cell_anchors

STRIDE = 16
WANTED_RECALL = 0.95
_CHUNK = 1 << 16
_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, np.inf)


@dataclass(frozen=True)
class Objects:
    """What a detector has to find.

    Attributes:
        boxes: ``(M, 4)`` float64 (x1, y1, x2, y2) in pixels of the original image, inside it and with area.
        sizes: ``(M, 2)`` int64: height and width of each one's image.
        labels: ``(M,)`` int64.
    """

    boxes: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def keep(self, chosen: np.ndarray) -> Objects:
        """Leaves only the chosen ones, given as a mask or as indices."""
        return Objects(self.boxes[chosen], self.sizes[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Slice:
    """Some of the objects, with the shares that an anchor covers by an IoU of 0.5 and of 0.7."""

    name: str
    objects: int
    recall_50: float
    recall_70: float


@dataclass(frozen=True)
class AnchorFit:
    """How well anchors cover objects; shares are fractions, and 1 (sizes: 0) where there are no objects.

    Attributes:
        objects: how many there are.
        recall_50: share that some anchor covers by an IoU of 0.5 or more.
        recall_70: the same for 0.7, from which on an anchor counts as foreground.
        mean_iou: mean of each object's best IoU.
        under_16: share whose area is under 16 x 16 pixels after the resize: less than a cell of the features.
        under_32: the same for 32 x 32.
        by_size: by the square root of the area after the resize; ranges without objects are left out.
        by_class: by class; those without objects are left out.
    """

    objects: int
    recall_50: float
    recall_70: float
    mean_iou: float
    under_16: float
    under_32: float
    by_size: tuple[Slice, ...]
    by_class: tuple[Slice, ...]

    @property
    def fits(self) -> bool:
        """Whether enough objects are covered."""
        return self.recall_50 >= WANTED_RECALL


def objects_of(raw: RawSet, sizes: np.ndarray) -> Objects:
    """The objects that can be trained on, cut to their images.

    Args:
        raw: a split.
        sizes: ``(N, 2)``: height and width of its images, 0 where not known.
    """
    known = (raw.images >= 0) & (raw.labels >= 0) & ~raw.crowd & np.isfinite(raw.boxes).all(axis=1)
    rows = np.flatnonzero(known)
    own = sizes.reshape(-1, 2)[raw.images[rows]]
    boxes = raw.boxes[rows]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    corners = np.clip(corners, 0, own[:, [1, 0, 1, 0]])
    usable = (corners[:, 2:] > corners[:, :2]).all(axis=1)
    return Objects(corners[usable], own[usable].astype(np.int64), raw.labels[rows][usable])


def best_ious(boxes: np.ndarray, sizes: np.ndarray, resize: ResizeConfig, anchors: AnchorConfig) -> np.ndarray:
    """The best IoU of each object with any anchor of its image, the image resized as in evaluation.

    Args:
        boxes: ``(M, 4)`` (x1, y1, x2, y2) in pixels of the original images.
        sizes: ``(M, 2)``: height and width of each object's image.
        resize: the resize rule.
        anchors: their shapes.

    Returns:
        ``(M,)`` float64.
    """
    resized = resized_sizes(sizes, resize)
    shapes = _shapes(anchors)
    result = np.zeros(len(boxes))
    for start in range(0, len(boxes), _CHUNK):
        part = slice(start, start + _CHUNK)
        scaled = boxes[part] * (resized[part] / sizes[part])[:, [1, 0, 1, 0]]
        result[part] = _ious_with_nearest(scaled, resized[part], shapes).max(axis=1)
    return result


def measure_fit(objects: Objects, class_names: Sequence[str], resize: ResizeConfig, anchors: AnchorConfig) -> AnchorFit:
    """How well the configured anchors cover objects.

    Args:
        objects: of one or more splits.
        class_names: in the order of labels.
        resize: the resize rule; its size for evaluation counts.
        anchors: their shapes.
    """
    best = best_ious(objects.boxes, objects.sizes, resize, anchors)
    sides = resized_sides(objects, resize)
    buckets = np.digitize(sides, _EDGES) - 1
    return AnchorFit(
        len(objects),
        _share(best >= 0.5, 1.0),
        _share(best >= 0.7, 1.0),
        float(best.mean()) if len(best) else 1.0,
        _share(sides < 16, 0.0),
        _share(sides < 32, 0.0),
        _slices([_range_name(low, high) for low, high in pairwise(_EDGES)], buckets, best),
        _slices(class_names, objects.labels, best),
    )


def resized_sides(objects: Objects, resize: ResizeConfig) -> np.ndarray:
    """``(M,)``: the square root of each object's area after the resize of evaluation."""
    scale = resized_sizes(objects.sizes, resize) / objects.sizes
    widths_heights = objects.boxes[:, 2:] - objects.boxes[:, :2]
    sides: np.ndarray = np.sqrt((widths_heights * scale[:, ::-1]).prod(axis=1))
    return sides


def mean_pixels(objects: Objects, resize: ResizeConfig) -> float:
    """The mean area of the objects' images after the resize of evaluation."""
    return float(resized_sizes(objects.sizes, resize).prod(axis=1).mean())


def ious_with_shapes(objects: Objects, resize: ResizeConfig, shapes: np.ndarray) -> np.ndarray:
    """``(M, A)``: the best IoU of each object with an anchor of each shape.

    Args:
        objects: few enough to fit into memory.
        resize: the resize rule.
        shapes: ``(A, 2)``: width and height of the anchors.
    """
    resized = resized_sizes(objects.sizes, resize)
    return _ious_with_nearest(objects.boxes * (resized / objects.sizes)[:, [1, 0, 1, 0]], resized, shapes)


def _shapes(anchors: AnchorConfig) -> np.ndarray:
    cell = cell_anchors(anchors.sizes, anchors.aspect_ratios).double().numpy()
    shapes: np.ndarray = cell[:, 2:] - cell[:, :2]
    return shapes


def _ious_with_nearest(boxes: np.ndarray, sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    # Each of the four halvings on the way to stride 16 rounds up, and so does all of them together.
    cells = -(-sizes[:, ::-1] // STRIDE)
    widths_heights = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    distances = np.abs(np.rint(centres / STRIDE).clip(0, cells - 1) * STRIDE - centres)
    shared = np.ones((len(boxes), len(shapes)))
    for axis in (0, 1):
        own, anchor, apart = widths_heights[:, axis, None], shapes[:, axis], distances[:, axis, None]
        shared *= np.minimum(np.minimum(own, anchor), (own + anchor) / 2 - apart).clip(0)
    areas = widths_heights.prod(axis=1)[:, None] + shapes.prod(axis=1)
    ious: np.ndarray = shared / (areas - shared)
    return ious


def _slices(names: Sequence[str], groups: np.ndarray, best: np.ndarray) -> tuple[Slice, ...]:
    count = len(names)
    totals, over_50, over_70 = (
        np.bincount(groups, weights, minlength=count) for weights in (None, best >= 0.5, best >= 0.7)
    )
    return tuple(
        Slice(names[group], int(total), float(over_50[group] / total), float(over_70[group] / total))
        for group, total in enumerate(totals)
        if total
    )


def _range_name(low: float, high: float) -> str:
    if low == 0:
        return f"under {high}"
    return f"from {low}" if high == np.inf else f"{low} to {high}"


def _share(chosen: np.ndarray, of_nothing: float) -> float:
    return float(chosen.mean()) if len(chosen) else of_nothing
