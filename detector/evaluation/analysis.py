"""All that is said about an evaluation beyond its metrics, as one dictionary: the content of analysis.json."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from detector.evaluation.confusion import calibration, confuse, slices
from detector.evaluation.error_kinds import KINDS, SHOWN_SCORE, ErrorKinds, find_error_kinds, worst_images
from detector.evaluation.intervals import SAMPLES, draw_images, interval, mean_over_classes, resampled_ap
from detector.evaluation.matching import Matches, image_ranks, match_all
from detector.evaluation.operating_points import OperatingPoint, ScoreCurve, best_common_point, score_curves
from detector.structures import Annotations, DetectionTable

_CURVE_POINTS = 101
_WORST = 24
_CONFUSED_CLASSES = 40

Analysis = dict[str, Any]


def analyse(truth: Annotations, found: DetectionTable, samples: int = SAMPLES) -> Analysis:
    """Intervals, error kinds, curves, operating points, confusion, calibration, slices and the worst images.

    Args:
        truth: ground truth.
        found: detections.
        samples: draws of images for the intervals.

    Returns:
        Plain values that JSON can hold; fractions, None where undefined.
    """
    matches = match_all(truth, found)
    curves = score_curves(truth, matches)
    common = best_common_point(curves)
    score = common.score if common else 0.5
    kinds = find_error_kinds(truth, found, matches)
    return {
        "intervals": _intervals(truth, matches, samples),
        "error_kinds": {"ap50": kinds.ap50, "counts": kinds.counts, "cost": kinds.cost},
        "operating_points": {
            "common": _point(common),
            "per_class": {name: _point(curve.best_f1()) for name, curve in zip(truth.class_names, curves, strict=True)},
        },
        "curves": {name: _thin(curve) for name, curve in zip(truth.class_names, curves, strict=True)},
        "confusion": _confusion(truth, found, score),
        "calibration": calibration(matches),
        "slices": slices(truth, matches, score),
        "data": _data(truth),
        "worst_images": _worst(truth, found, matches, kinds),
    }


def _intervals(truth: Annotations, matches: Matches, samples: int) -> dict[str, Any]:
    ranks = image_ranks(truth.image_ids)
    once = resampled_ap(truth, matches, ranks, np.ones((1, len(ranks)), dtype=np.uint8))
    drawn = resampled_ap(truth, matches, ranks, draw_images(len(ranks), samples))

    def low_and_high(measured: np.ndarray, values: np.ndarray) -> list[float] | None:
        middle = mean_over_classes(measured)[0]
        found = interval(mean_over_classes(values), None if np.isnan(middle) else float(middle))
        return None if found is None else [max(found.low, 0.0), min(found.high, 1.0)]

    return {
        "samples": samples,
        "AP": low_and_high(once, drawn),
        "AP50": low_and_high(once[:, :1], drawn[:, :1]),
        "per_class": {
            name: low_and_high(once[:, :, label : label + 1], drawn[:, :, label : label + 1])
            for label, name in enumerate(truth.class_names)
        },
    }


def _point(point: OperatingPoint | None) -> dict[str, float | None] | None:
    return None if point is None else asdict(point) | {"f1": point.f1}


def _thin(curve: ScoreCurve) -> dict[str, Any]:
    """At most so many points of a curve, for drawing."""
    chosen = np.unique(np.linspace(0, max(len(curve.scores) - 1, 0), _CURVE_POINTS).astype(int))[: len(curve.scores)]
    return {
        "objects": curve.positives,
        "score": curve.scores[chosen].tolist(),
        "precision": curve.precision[chosen].tolist(),
        "recall": curve.recall[chosen].tolist(),
        "f1": curve.f1[chosen].tolist(),
    }


def _confusion(truth: Annotations, found: DetectionTable, score: float) -> dict[str, Any]:
    """The table of the most frequent classes, the others summed up, background last."""
    table = confuse(truth, found, score).table
    classes = len(truth.class_names)
    frequent = np.argsort(-np.bincount(truth.labels, minlength=classes), kind="stable")[:_CONFUSED_CLASSES]
    names = [truth.class_names[label] for label in np.sort(frequent)]
    groups = np.full(classes + 1, len(names))
    groups[np.sort(frequent)] = np.arange(len(names))
    if classes > len(names):
        names.append(f"{classes - len(names)} others")
    groups[classes] = len(names)
    small = np.zeros((len(names) + 1, len(names) + 1), dtype=np.int64)
    np.add.at(small, (groups[:, None], groups[None, :]), table)
    return {"score": score, "names": [*names, "background"], "table": small.tolist()}


def _data(truth: Annotations) -> dict[str, Any]:
    counts = np.diff(truth.rows)
    return {
        "images": len(truth.image_ids),
        "objects": len(truth.labels),
        "crowds": int(truth.crowd.sum()),
        "difficult": int(truth.difficult.sum()),
        "images_without_objects": int((counts == 0).sum()),
        "objects_an_image": np.bincount(np.minimum(counts, 50)).tolist(),
        "fingerprint": truth.fingerprint(),
    }


def _worst(truth: Annotations, found: DetectionTable, matches: Matches, kinds: ErrorKinds) -> list[dict[str, Any]]:
    table = worst_images(truth, found, matches, kinds)
    classes = _classes_in_error(truth, found, matches, kinds)
    order = np.argsort(-table.sum(axis=1), kind="stable")[:_WORST]
    return [
        {
            "index": int(index),
            "image_id": truth.image_ids[index],
            "errors": {name: int(count) for name, count in zip(KINDS, table[index], strict=True) if count},
            "classes": [truth.class_names[label] for label in np.flatnonzero(classes[index])],
        }
        for index in order
        if table[index].any()
    ]


def _classes_in_error(truth: Annotations, found: DetectionTable, matches: Matches, kinds: ErrorKinds) -> np.ndarray:
    """``(N, K)`` bool: the image has an error with an object or a detection of the class."""
    result = np.zeros((len(truth.image_ids), len(truth.class_names)), dtype=bool)
    shown = (kinds.kind >= 0) & (matches.scores >= SHOWN_SCORE)
    result[found.image_index[matches.rows[shown]], matches.labels[shown]] = True
    result[truth.image_index()[kinds.missed], truth.labels[kinds.missed]] = True
    return result
