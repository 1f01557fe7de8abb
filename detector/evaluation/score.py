"""All asked-for metrics in one dictionary, and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from detector.errors import printable
from detector.evaluation.coco import coco_curves, summarise, summarise_classes
from detector.evaluation.matching import COCO_RULES
from detector.evaluation.voc import VocMatches
from detector.structures import Annotations, DetectionTable

Metrics = dict[str, Any]

_TITLES = {"coco": "COCO", "voc07": "VOC2007 (11-point)", "voc": "VOC2010+ (area)"}


def score(
    truth: Annotations, found: DetectionTable, metrics: Sequence[str], backend: str = "fast", verify: bool = False
) -> Metrics:
    """Scores detections.

    Args:
        truth: ground truth.
        found: detections.
        metrics: of "coco", "voc07" (11-point AP) and "voc" (area under the curve).
        backend: of COCO's metrics, "fast" or "pycocotools".
        verify: compute COCO's by both.

    Returns:
        The content of metrics.json: fractions in 0..1, None where no ground truth defines a number.

    Raises:
        VerificationError: the two differ in some bit.
    """
    result: Metrics = {}
    per_class: list[dict[str, Any]] = [
        {"objects": int(count)} for count in np.bincount(truth.labels, minlength=len(truth.class_names))
    ]
    if "coco" in metrics:
        curves = coco_curves(truth, found, backend, verify)
        result["coco"] = summarise(curves)
        for row, numbers in zip(per_class, summarise_classes(curves), strict=True):
            row.update(numbers)
    for metric in ("voc07", "voc"):
        if metric in metrics:
            result[metric] = _score_voc(truth, found, metric, per_class)
    result["per_class"] = dict(zip(truth.class_names, per_class, strict=True))
    return result | {"images": len(truth.image_ids), "detections": len(found)}


def _score_voc(
    truth: Annotations, found: DetectionTable, metric: str, per_class: list[dict[str, Any]]
) -> dict[str, float | None]:
    """The means at an IoU of 0.5, and over 0.5 to 0.95 in steps of 0.05; fills in the numbers of each class."""
    matches = VocMatches(truth, found)
    table: list[list[float | None]] = []
    for threshold in COCO_RULES.iou_thresholds:
        curves = [matches.curve(label, threshold) for label in range(len(per_class))]
        table.append([curve.ap_11_point() if metric == "voc07" else curve.ap_area() for curve in curves])
    for row, value in zip(per_class, table[0], strict=True):
        row[f"{metric}_AP50"] = value
    return {"mAP50": _mean(table[0]), "mAP": _mean([value for row in table for value in row])}


def headline(metrics: Metrics, name: str | None = None) -> float | None:
    """The one number that ranks models.

    Args:
        metrics: the content of metrics.json.
        name: such as "coco.AP50"; None is COCO's AP where it ran, else the VOC mean.
    """
    if name is not None:
        group, number = name.split(".")
        return metrics[group][number]  # type: ignore[no-any-return]
    if "coco" in metrics:
        return metrics["coco"]["AP"]  # type: ignore[no-any-return]
    return (metrics.get("voc") or metrics["voc07"])["mAP50"]  # type: ignore[no-any-return]


def format_metrics(metrics: Metrics) -> str:
    """The metrics as a table, in per cent; a dash where a number is undefined."""
    lines = [f"{metrics['images']} images, {metrics['detections']} detections"]
    for metric, title in _TITLES.items():
        if metric in metrics:
            lines += ["", f"{title}, per cent"]
            lines += ["  ".join(f"{name:>6}" for name in metrics[metric])]
            lines += ["  ".join(_percent(value) for value in metrics[metric].values())]
    rows: dict[str, dict[str, Any]] = metrics["per_class"]
    columns = list(next(iter(rows.values()), {}))
    width = max([len(short_name(name)) for name in rows] + [5])
    lines += ["", f"{'class':<{width}}  " + "  ".join(f"{name:>{max(7, len(name))}}" for name in columns)]
    for name, row in rows.items():
        cells = [
            f"{row[key]:>{max(7, len(key))}}" if key == "objects" else _percent(row[key], max(7, len(key)))
            for key in columns
        ]
        lines.append(f"{short_name(name):<{width}}  " + "  ".join(cells))
    return "\n".join(lines)


def short_name(name: str) -> str:
    """The name of a class as tables for a terminal show it: printable, of at most 24 characters."""
    shown = printable(name)
    return shown if len(shown) <= 24 else shown[:21] + "..."


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _percent(value: float | None, width: int = 6) -> str:
    return f"{'-':>{width}}" if value is None else f"{100 * value:>{width}.1f}"
