"""The PASCAL VOC metrics, by the rules of the devkit.

Each detection, by falling score, takes the ground truth of its image and class with the largest IoU. One that is
difficult (or a crowd) makes it count neither way; one that a better detection has taken makes it a false positive.
Boxes follow the convention of ``detector.data.voc``, in which plain IoU is the devkit's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.structures import Annotations, DetectionTable

# With the devkit's own 0.30000000000000004: a recall of exactly 0.3 misses that point there, too.
_RECALLS = np.arange(0, 1.1, 0.1)


@dataclass(frozen=True)
class VocCurve:
    """Precision and recall of one class at each of its detections that counts, best score first.

    Attributes:
        precision: ``(N,)`` float64.
        recall: ``(N,)`` float64; NaN where no ground truth counts.
        positives: number of ground truths that count.
    """

    precision: np.ndarray
    recall: np.ndarray
    positives: int

    def ap_11_point(self) -> float | None:
        """VOC2007: the mean, over recalls 0, 0.1 .. 1, of the best precision from there on; None if undefined."""
        if not self.positives:
            return None
        return float(np.mean([self.precision[self.recall >= level].max(initial=0.0) for level in _RECALLS]))

    def ap_area(self) -> float | None:
        """VOC2010 and later: the area under the curve made monotone; None if undefined."""
        if not self.positives:
            return None
        recall = np.concatenate([[0.0], self.recall, [1.0]])
        precision = np.concatenate([[0.0], self.precision, [0.0]])
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((np.diff(recall) * envelope[1:]).sum())


def voc_curve(truth: Annotations, found: DetectionTable, label: int, iou_threshold: float = 0.5) -> VocCurve:
    """Matches the detections of one class.

    Args:
        truth: ground truth.
        found: detections; among equal scores the earlier goes first.
        label: the class.
        iou_threshold: from here on a detection has found its object.
    """
    truth_rows = np.flatnonzero(truth.labels == label)
    ignored = truth.difficult[truth_rows] | truth.crowd[truth_rows]
    positives = int((~ignored).sum())
    rows = np.flatnonzero(found.labels == label)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")]
    best, iou = _largest_overlap(truth, truth_rows, found, rows)
    hit = iou >= iou_threshold
    counts = ~(hit & ignored[best]) if len(truth_rows) else np.ones(len(rows), dtype=bool)
    first = np.zeros(len(rows), dtype=bool)
    hits = np.flatnonzero(hit & counts)
    first[hits[np.unique(best[hits], return_index=True)[1]]] = True
    true = np.cumsum(first[counts])
    with np.errstate(invalid="ignore"):
        recall = true / np.float64(positives)
    return VocCurve(true / np.arange(1, len(true) + 1), recall, positives)


def _largest_overlap(
    truth: Annotations, truth_rows: np.ndarray, found: DetectionTable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the position in ``truth_rows`` of the first ground truth of largest IoU, and that IoU."""
    best, best_iou = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
    truth_images, images = truth.image_index()[truth_rows], found.image_index[rows]
    order = np.argsort(images, kind="stable")
    limits = np.searchsorted(images[order], np.arange(len(truth.image_ids) + 1))
    truth_limits = np.searchsorted(truth_images, np.arange(len(truth.image_ids) + 1))
    for image in np.unique(images):
        here = order[limits[image] : limits[image + 1]]
        low, high = truth_limits[image], truth_limits[image + 1]
        if low == high:
            continue
        iou = _iou(found.boxes_xywh[rows[here]], truth.boxes_xywh[truth_rows[low:high]])
        best[here], best_iou[here] = low + iou.argmax(axis=1), iou.max(axis=1)
    return best, best_iou


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """``(N, 4)`` and ``(M, 4)`` boxes (x, y, width, height) to ``(N, M)``."""
    starts, ends = boxes[:, None, :2], boxes[:, None, :2] + boxes[:, None, 2:]
    other_starts, other_ends = others[None, :, :2], others[None, :, :2] + others[None, :, 2:]
    shared = (np.minimum(ends, other_ends) - np.maximum(starts, other_starts)).clip(0).prod(axis=2)
    union = boxes[:, None, 2:].prod(axis=2) + others[None, :, 2:].prod(axis=2) - shared
    iou: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
