"""The PASCAL VOC metrics, by the rules of the devkit.

Each detection, by falling score, takes the ground truth of its image and class with the largest IoU. One that is
difficult (or a crowd) makes it count neither way; one that a better detection has taken makes it a false positive.
Boxes follow the convention of ``detector.data.voc``, in which plain IoU is the devkit's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import pair_iou, pairs_in_ranges
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


class VocMatches:
    """For every detection of a data set the ground truth that it overlaps most.

    Args:
        truth: ground truth.
        found: detections; among equal scores the earlier goes first.
    """

    def __init__(self, truth: Annotations, found: DetectionTable) -> None:
        self._ignored = truth.difficult | truth.crowd
        self._truth_labels = truth.labels
        self._order = np.lexsort((-found.scores, found.labels))
        self._labels = found.labels[self._order]
        self._best, self._iou = _largest_overlap(truth, found)

    def curve(self, label: int, iou_threshold: float = 0.5) -> VocCurve:
        """Precision and recall of a class.

        Args:
            label: the class.
            iou_threshold: from here on a detection has found its object.
        """
        positives = int((~self._ignored[self._truth_labels == label]).sum())
        rows = self._order[slice(*np.searchsorted(self._labels, [label, label + 1]))]
        best, hit = self._best[rows], self._iou[rows] >= iou_threshold
        counts = ~hit
        counts[hit] = ~self._ignored[best[hit]]
        first = np.zeros(len(rows), dtype=bool)
        hits = np.flatnonzero(hit & counts)
        first[hits[np.unique(best[hits], return_index=True)[1]]] = True
        true = np.cumsum(first[counts])
        with np.errstate(invalid="ignore"):
            recall = true / np.float64(positives)
        return VocCurve(true / np.arange(1, len(true) + 1), recall, positives)


def _largest_overlap(truth: Annotations, found: DetectionTable) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the first ground truth of largest IoU in its image and class (-1 for none), and that IoU."""
    images = len(truth.image_ids)
    truth_groups = truth.labels * images + truth.image_index()
    truth_order = np.argsort(truth_groups, kind="stable")
    groups = found.labels * images + found.image_index
    first, one_past = (np.searchsorted(truth_groups[truth_order], groups, side) for side in ("left", "right"))
    detection, candidate = pairs_in_ranges(first, one_past)
    candidate = truth_order[candidate]
    no_crowd = np.zeros(len(candidate), dtype=bool)
    iou = pair_iou(found.boxes_xywh[detection], truth.boxes_xywh[candidate], no_crowd)
    best, best_iou = np.full(len(groups), -1, dtype=np.int64), np.zeros(len(groups))
    # The last pair of each detection in this order is the one of largest IoU, and of equal ones the first.
    order = np.lexsort((-np.arange(len(iou)), iou, detection))
    last = order[np.flatnonzero(np.append(np.diff(detection[order]) > 0, True))] if len(order) else order
    best[detection[last]], best_iou[detection[last]] = candidate[last], iou[last]
    return best, best_iou


def voc_curve(truth: Annotations, found: DetectionTable, label: int, iou_threshold: float = 0.5) -> VocCurve:
    """The curve of one class alone; see ``VocMatches``."""
    return VocMatches(truth, found).curve(label, iou_threshold)
