"""Which class is taken for which, how honest scores are, and which sizes and shapes are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detector.evaluation.matching import COCO_RULES, Matches, Rules, match_all
from detector.structures import Annotations, DetectionTable

_BINS = 10
_ASPECTS = (
    ("tall", 0.0, 0.5),
    ("upright", 0.5, 0.8),
    ("square", 0.8, 1.25),
    ("broad", 1.25, 2.0),
    ("wide", 2.0, np.inf),
)
_SIDES = (("under 16 px", 0, 16), ("16 to 32", 16, 32), ("32 to 64", 32, 64), ("64 to 128", 64, 128),
          ("128 to 256", 128, 256), ("256 and more", 256, np.inf))  # fmt: skip


@dataclass(frozen=True)
class Confusion:
    """Objects by their class and the class of the detection that took them, whatever its class, at an IoU of 0.5.

    Attributes:
        table: ``(K + 1, K + 1)`` int64: rows are true classes, columns detected ones; the last row holds detections of
            background, the last column objects that nothing took.
        score: only detections from this score on were looked at.
    """

    table: np.ndarray
    score: float


def confuse(truth: Annotations, found: DetectionTable, score: float) -> Confusion:
    """Matches detections to objects without regard to classes, and counts the pairs of classes.

    Args:
        truth: ground truth; crowds are left out, and so are detections that only a crowd explains.
        found: detections.
        score: lower ones are left out.
    """
    classes = len(truth.class_names)
    shown = np.flatnonzero(found.scores >= score)
    one_class = Annotations(
        truth.image_ids, ("any",), (0,), truth.rows, np.zeros_like(truth.labels), truth.boxes_xywh, truth.areas,
        truth.crowd, truth.difficult,
    )  # fmt: skip
    blind = DetectionTable(found.image_index[shown], np.zeros_like(shown), found.boxes_xywh[shown], found.scores[shown])
    rules = Rules(COCO_RULES.iou_thresholds[:1], COCO_RULES.areas[:1], (max(1, len(shown)),))
    matches = match_all(one_class, blind, rules)
    taken, counts = matches.truth[:, 0, 0], ~matches.ignored[:, 0, 0]
    detected = found.labels[shown[matches.rows]]
    table = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    actual = np.where(taken >= 0, truth.labels[np.maximum(taken, 0)] if len(truth.labels) else classes, classes)
    np.add.at(table, (actual[counts], detected[counts]), 1)
    alone = ~truth.crowd
    alone[taken[taken >= 0]] = False
    np.add.at(table, (truth.labels[alone], classes), 1)
    return Confusion(table, score)


def calibration(matches: Matches) -> list[dict[str, float]]:
    """How often detections of a score are true: one row a tenth of the scores, for an IoU of 0.5.

    Args:
        matches: by COCO's rules.
    """
    counts = ~matches.ignored[:, 0, 0]
    scores, true = matches.scores[counts], (matches.truth[:, 0, 0] >= 0)[counts]
    bins = np.minimum((scores * _BINS).astype(int), _BINS - 1)
    return [
        {
            "from": number / _BINS,
            "to": (number + 1) / _BINS,
            "detections": int((bins == number).sum()),
            "mean_score": float(scores[bins == number].mean()),
            "true": float(true[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]


def slices(truth: Annotations, matches: Matches, score: float) -> dict[str, list[dict[str, Any]]]:
    """Recall at an IoU of 0.5 by the side and the aspect ratio of objects.

    Args:
        truth: ground truth.
        matches: by COCO's rules.
        score: only detections from this score on count.
    """
    taken = matches.truth[matches.scores >= score, 0, 0]
    hit = np.zeros(len(truth.labels), dtype=bool)
    hit[taken[taken >= 0]] = True
    needed = ~matches.truth_ignored[:, 0]
    width, height = truth.boxes_xywh[:, 2], truth.boxes_xywh[:, 3]
    side = np.sqrt(width * height)
    ratio = np.divide(width, height, out=np.ones_like(width), where=height > 0)
    result = {}
    for title, values, groups in (("side", side, _SIDES), ("width / height", ratio, _ASPECTS)):
        rows = []
        for name, low, high in groups:
            inside = needed & (values >= low) & (values < high)
            recall = float(hit[inside].mean()) if inside.any() else None
            rows.append({"name": name, "objects": int(inside.sum()), "recall": recall})
        result[title] = rows
    return result
