"""COCO's precision and recall, from the matches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import COCO_RULES, Matches, Rules
from detector.structures import Annotations

RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curves:
    """Precision at fixed recalls, and the largest recall; -1 where no object counts.

    R is the number of recall levels, B that of limits on detections. The layout is pycocotools'.

    Attributes:
        precision: ``(T, R, K, A, B)`` float64.
        recall: ``(T, K, A, B)`` float64.
    """

    precision: np.ndarray
    recall: np.ndarray


def accumulate(truth: Annotations, matches: Matches, rules: Rules = COCO_RULES) -> Curves:
    """Counts true and false detections by falling score.

    Args:
        truth: ground truth.
        matches: of the same ground truth.
        rules: the same that matched.
    """
    classes = len(truth.class_names)
    thresholds, areas, limits = len(rules.iou_thresholds), len(rules.areas), rules.max_detections
    precision = -np.ones((thresholds, len(RECALLS), classes, areas, len(limits)))
    recall = -np.ones((thresholds, classes, areas, len(limits)))
    for label in range(classes):
        positives = (~matches.truth_ignored[truth.labels == label]).sum(axis=0)
        rows = matches.of_class(label)
        order = np.argsort(-matches.scores[rows], kind="stable")
        counts = ~matches.ignored[rows][order]
        true = (matches.truth[rows][order] >= 0) & counts
        position = matches.position[rows][order]
        for area in np.flatnonzero(positives):
            relevant = counts[:, :, area].any(axis=1)
            for place, limit in enumerate(limits):
                chosen = relevant & (position < limit)
                curve = _curve(true[chosen, :, area], counts[chosen, :, area], int(positives[area]))
                precision[:, :, label, area, place], recall[:, label, area, place] = curve
    return Curves(precision, recall)


def ap_of_class(true: np.ndarray, positives: int) -> float:
    """AP at one threshold.

    Args:
        true: ``(N,)`` bool, of detections that count, by falling score.
        positives: objects that count, at least one.
    """
    precision, _ = _curve(true[:, None], np.ones((len(true), 1), dtype=bool), positives)
    return float(precision.mean())


def _curve(true: np.ndarray, counts: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """``(T, R)`` precision and ``(T,)`` recall of one class, area and limit.

    Args:
        true: ``(N, T)`` bool, by falling score.
        counts: ``(N, T)`` bool: true or false, not ignored.
        positives: objects that count.
    """
    if not len(true):
        return np.zeros((true.shape[1], len(RECALLS))), np.zeros(true.shape[1])
    hits = np.cumsum(true, axis=0).astype(np.float64)
    misses = np.cumsum(counts & ~true, axis=0).astype(np.float64)
    recall = hits / positives
    # In pycocotools' order of operations: the last bit counts.
    precision = hits / (misses + hits + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    padded = np.concatenate([envelope, np.zeros((1, true.shape[1]))])
    at_levels = np.stack(
        [padded[np.searchsorted(recall[:, threshold], RECALLS), threshold] for threshold in range(true.shape[1])]
    )
    return at_levels, recall[-1]
