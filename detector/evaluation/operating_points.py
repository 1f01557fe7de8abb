"""Which score to ship: precision, recall and F1 at every threshold, from COCO's matches at an IoU of 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import Matches, match_all
from detector.structures import Annotations, DetectionTable


@dataclass(frozen=True)
class OperatingPoint:
    """What detections from a score on amount to.

    Attributes:
        score: the threshold.
        precision: true detections of all shown; None if none is shown.
        recall: objects found.
    """

    score: float
    precision: float | None
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        precision = self.precision or 0.0
        total = precision + self.recall
        return 2 * precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class ScoreCurve:
    """Precision and recall of one class at each of its scores, highest first; not made monotone.

    Attributes:
        scores: ``(N,)`` distinct scores.
        precision: ``(N,)``.
        recall: ``(N,)``.
        positives: objects that count.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    positives: int

    @property
    def f1(self) -> np.ndarray:
        """``(N,)``."""
        total = self.precision + self.recall
        f1: np.ndarray = np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)
        return f1

    def at(self, score: float) -> OperatingPoint:
        """What detections from this score on amount to."""
        shown = int((self.scores >= score).sum())
        if not shown:
            return OperatingPoint(score, None, 0.0)
        return OperatingPoint(score, float(self.precision[shown - 1]), float(self.recall[shown - 1]))

    def best_f1(self) -> OperatingPoint | None:
        """The score of the best F1, of equal ones the lowest, which finds more; None without true detections."""
        if not len(self.scores) or not self.f1.max() > 0:
            return None
        return self.at(float(self.scores[np.flatnonzero(self.f1 == self.f1.max())[-1]]))

    def for_precision(self, wanted: float) -> OperatingPoint | None:
        """The lowest score whose precision is as wanted; None if there is none."""
        reached = np.flatnonzero((self.precision >= wanted) & (self.recall > 0))
        return self.at(float(self.scores[reached[-1]])) if len(reached) else None


def score_curves(truth: Annotations, matches: Matches) -> list[ScoreCurve]:
    """The curve of each class.

    Args:
        truth: ground truth.
        matches: by COCO's rules, whose first threshold is 0.5 and whose first range of areas is all.
    """
    curves = []
    for label in range(len(truth.class_names)):
        positives = int((~matches.truth_ignored[truth.labels == label, 0]).sum())
        rows = matches.of_class(label)
        counts = ~matches.ignored[rows, 0, 0]
        scores = matches.scores[rows][counts]
        true = (matches.truth[rows, 0, 0] >= 0)[counts]
        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(true[order])
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, dtype=int)
        recall = hits[last] / positives if positives else np.zeros(len(last))
        curves.append(ScoreCurve(scores[last], hits[last] / (last + 1), recall, positives))
    return curves


def best_common_point(curves: Sequence[ScoreCurve]) -> OperatingPoint | None:
    """The one score for all classes with the best mean F1, of equal ones the lowest; precision and recall are means.

    Only classes with objects count; one that shows nothing at a score has a precision of 0 there.
    """
    curves = [curve for curve in curves if curve.positives]
    scores = np.unique(np.concatenate([curve.scores for curve in curves])) if curves else np.zeros(0)
    if not len(scores):
        return None
    rows = np.zeros((3, len(scores)))
    for curve in curves:
        if len(curve.scores):
            shown = len(curve.scores) - np.searchsorted(curve.scores[::-1], scores)
            values = np.stack([curve.precision, curve.recall, curve.f1])[:, np.maximum(shown - 1, 0)]
            rows += np.where(shown > 0, values, 0.0) / len(curves)
    precision, recall, f1 = rows
    best = int(f1.argmax())
    return OperatingPoint(float(scores[best]), float(precision[best]), float(recall[best]))


def choose_thresholds(truth: Annotations, found: DetectionTable, precision: float | None) -> list[OperatingPoint]:
    """A score for each class.

    Args:
        truth: ground truth.
        found: detections.
        precision: wanted at least, with the most recall; None for the best F1.

    Returns:
        One point a class; where no score will do, that of the best F1, and failing that 0.5.
    """
    curves = score_curves(truth, match_all(truth, found))
    points = []
    for curve in curves:
        point = curve.best_f1() if precision is None else curve.for_precision(precision) or curve.best_f1()
        points.append(point or curve.at(0.5))
    return points
