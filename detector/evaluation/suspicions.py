"""Why AP may be zero or very low: faults of the data that leave their mark in the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from detector.errors import quote
from detector.evaluation.matching import COCO_RULES, Rules, match_all
from detector.evaluation.precision import accumulate
from detector.structures import Annotations, DetectionTable

_LOW, _FAR_BETTER = 0.1, 3.0
# An explanation that reaches less than this share of what the best one reaches explains only by chance.
_AS_GOOD = 0.75
_SHOWN = 10
_RULES = Rules(COCO_RULES.iou_thresholds[:1], COCO_RULES.areas[:1], (100,))


def suspicions(truth: Annotations, found: DetectionTable, ap50: float | None) -> list[str]:
    """Sentences on what is probably wrong; none where AP50 is fair.

    Each suspect fault is undone on a copy; where that makes AP50 far better, it is named.

    Args:
        truth: ground truth.
        found: detections.
        ap50: COCO's AP50 of both; None if there is no ground truth.
    """
    return list(_sentences(truth, found, ap50))


def _sentences(truth: Annotations, found: DetectionTable, ap50: float | None) -> Iterator[str]:
    absent = [name for name, count in zip(truth.class_names, _objects(truth), strict=True) if not count]
    if len(absent) == len(truth.class_names) or ap50 is None:
        yield "there is no ground truth at all, so no AP is defined; is this split annotated?"
        return
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        names = ", ".join(quote(name, 24)[1:-1] for name in absent[:_SHOWN])
        yield f"classes without ground truth are left out of the means: {names}{more}"
    if not len(found):
        yield "there are no detections, so AP is 0; is the model trained, is score_threshold too high?"
        return
    if ap50 >= _LOW:
        return
    if found.scores.max() < 0.05:
        yield f"no score is above {found.scores.max():.3g}: the network is sure of nothing; was it trained long enough?"
    mended = [(_ap50(other_truth, other_found), title) for title, other_truth, other_found in _undone(truth, found)]
    best = max(better for better, _ in mended)
    for better, title in mended:
        if better > max(_LOW, _FAR_BETTER * ap50) and better >= _AS_GOOD * best:
            yield f"AP50 is {ap50:.3f}, but {better:.3f} if {title}"
    together = len(np.intersect1d(found.image_index, truth.image_index()))
    if not together:
        yield "no image with detections has an object: do the image ids of the two files mean the same images?"


def _undone(truth: Annotations, found: DetectionTable) -> Iterator[tuple[str, Annotations, DetectionTable]]:
    classes = len(truth.class_names)
    for shift in (1, -1):
        labels = found.labels + shift
        inside = (labels >= 0) & (labels < classes)
        yield (
            f"every class of the detections were the {'next' if shift > 0 else 'previous'} one: are categories counted "
            "from 0 in one place and from 1 in the other?",
            truth,
            _only(replace(found, labels=labels), inside),
        )
    if classes > 1:
        anything = replace(truth, labels=np.zeros_like(truth.labels))
        blind = replace(found, labels=np.zeros_like(found.labels))
        yield "classes did not count: are the class names in another order than in training?", anything, blind
    yield (
        "the boxes of the detections were stored as (x1, y1, x2, y2)",
        truth,
        _with_boxes(found, _sides(found.boxes_xywh, -1)),
    )
    boxes = np.maximum(_sides(truth.boxes_xywh, -1), [-np.inf, -np.inf, 0, 0])
    areas = boxes[:, 2] * boxes[:, 3]
    yield (
        "the boxes of the ground truth were stored as (x1, y1, x2, y2)",
        replace(truth, boxes_xywh=boxes, areas=areas),
        found,
    )
    yield (
        "the boxes of the detections were stored as (x, y, width, height) twice converted",
        truth,
        _with_boxes(found, _sides(found.boxes_xywh, 1)),
    )
    for shift in (1, -1):
        images = found.image_index + shift
        inside = (images >= 0) & (images < len(truth.image_ids))
        yield (
            f"every detection belonged to the {'next' if shift > 0 else 'previous'} image: are image ids counted "
            "from 0 in one place and from 1 in the other?",
            truth,
            _only(replace(found, image_index=images), inside),
        )
    ends, others = (np.quantile(boxes[:, :2] + boxes[:, 2:], 0.99) for boxes in (truth.boxes_xywh, found.boxes_xywh))
    ratio = float(ends / others) if others > 0 else 1.0
    for factor in (0.5, 2.0) if any(abs(ratio / usual - 1) < 0.07 for usual in (0.5, 2.0)) else (0.5, 2.0, ratio):
        yield (
            f"the boxes of the detections were {factor:.2g} times as large: are they in pixels of resized images?",
            truth,
            replace(found, boxes_xywh=found.boxes_xywh * factor),
        )
    if found.boxes_xywh.max() <= 1.5:
        yield "the boxes of the detections were fractions of the image and not pixels", truth, _spread(truth, found)


def _sides(boxes: np.ndarray, sign: int) -> np.ndarray:
    """Corners as sides (-1), or sides as corners (1)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] + sign * boxes[:, :2]], axis=1)


def _with_boxes(found: DetectionTable, boxes: np.ndarray) -> DetectionTable:
    return _only(replace(found, boxes_xywh=boxes), np.flatnonzero((boxes[:, 2:] > 0).all(axis=1)))


def _spread(truth: Annotations, found: DetectionTable) -> DetectionTable:
    """Boxes given as fractions, as pixels of the smallest image that holds the ground truth."""
    ends = truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]
    return replace(found, boxes_xywh=found.boxes_xywh * np.tile(ends.max(axis=0), 2))


def _only(found: DetectionTable, chosen: np.ndarray) -> DetectionTable:
    return DetectionTable(
        found.image_index[chosen], found.labels[chosen], found.boxes_xywh[chosen], found.scores[chosen]
    )


def _objects(truth: Annotations) -> np.ndarray:
    return np.bincount(truth.labels, minlength=len(truth.class_names))


def _ap50(truth: Annotations, found: DetectionTable) -> float:
    curves = accumulate(truth, match_all(truth, found, _RULES), _RULES)
    precision = curves.precision[curves.precision > -1]
    return float(precision.mean()) if len(precision) else 0.0
