"""Two detectors on the same images: the difference, and how sure it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from detector.evaluation.intervals import SAMPLES, draw_images, interval, mean_over_classes, resampled_ap
from detector.evaluation.matching import image_ranks, match_all
from detector.evaluation.score import short_name
from detector.structures import Annotations, DetectionTable


def compare(truth: Annotations, a: DetectionTable, b: DetectionTable, samples: int = SAMPLES) -> dict[str, Any]:
    """The differences in AP and AP50, B minus A, each with its 95 % interval by paired bootstrap.

    Args:
        truth: ground truth.
        a: detections of one detector.
        b: of the other.
        samples: draws of images.

    Returns:
        ``{"AP": row, "AP50": row, "per_class": {name: row of AP}}``; a row holds a, b, difference, low, high, and
        probability_b_better (the share of draws). Numbers are fractions, None where undefined.
    """
    ranks = image_ranks(truth.image_ids)
    draws = draw_images(len(truth.image_ids), samples)
    once = np.ones((1, len(truth.image_ids)), dtype=np.uint8)
    both, measured = [], []
    for found in (a, b):
        matches = match_all(truth, found)
        both.append(resampled_ap(truth, matches, ranks, draws))
        measured.append(resampled_ap(truth, matches, ranks, once))
    result: dict[str, Any] = {
        "AP": _row(*(mean_over_classes(item) for item in (*measured, *both))),
        "AP50": _row(*(mean_over_classes(item[:, :1]) for item in (*measured, *both))),
        "per_class": {},
    }
    for label, name in enumerate(truth.class_names):
        result["per_class"][name] = _row(
            *(mean_over_classes(item[:, :, label : label + 1]) for item in (*measured, *both))
        )
    return result


def _row(a: np.ndarray, b: np.ndarray, draws_a: np.ndarray, draws_b: np.ndarray) -> dict[str, float | None]:
    if np.isnan(a[0]) or np.isnan(b[0]):
        return dict.fromkeys(("a", "b", "difference", "low", "high", "probability_b_better"))
    difference = float(b[0] - a[0])
    limits = interval(draws_b - draws_a, difference)
    moved = draws_b - draws_a
    moved = moved[~np.isnan(moved)]
    centred = moved - moved.mean() + difference if len(moved) else moved
    better = float(((centred > 0) + 0.5 * (centred == 0)).mean()) if len(moved) else None
    bounds = {"low": None, "high": None} if limits is None else asdict(limits)
    return {"a": float(a[0]), "b": float(b[0]), "difference": difference, **bounds, "probability_b_better": better}


def format_comparison(result: dict[str, Any], a: str, b: str) -> str:
    """A sentence, and a table in per cent.

    Args:
        result: of ``compare``.
        a: name of the one.
        b: name of the other.
    """
    rows = {"AP": result["AP"], "AP50": result["AP50"], **result["per_class"]}
    width = max(len(short_name(name)) for name in rows)
    lines = [f"A: {a}", f"B: {b}", _verdict(result["AP"]), ""]
    lines += [f"{'per cent':<{width}}  {'A':>6}  {'B':>6}  {'B - A':>6}  95 % interval"]
    for name, row in rows.items():
        shown = short_name(name)
        if row["difference"] is None:
            lines.append(f"{shown:<{width}}  {'-':>6}  {'-':>6}  {'-':>6}")
            continue
        sure = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
        range_ = "-" if row["low"] is None else f"{100 * row['low']:+.1f} .. {100 * row['high']:+.1f}"
        numbers = f"{100 * row['a']:>6.1f}  {100 * row['b']:>6.1f}  {100 * row['difference']:>+6.1f}"
        lines.append(f"{shown:<{width}}  {numbers}  {range_}{' *' if sure else ''}")
        if name == "AP50":
            lines.append("AP of each class:")
    return "\n".join([*lines, "", "* the interval excludes 0"])


def _verdict(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "there is no ground truth, so nothing can be compared"
    size = f"{abs(100 * row['difference']):.1f} AP"
    low, high = (100 * row[key] if row[key] is not None else 0.0 for key in ("low", "high"))
    range_ = f"95 % interval {low:.1f}..{high:.1f}"
    if low > 0:
        return f"B is better by {size}, {range_}"
    if high < 0:
        return f"A is better by {size}, {range_} of B - A"
    return f"no real difference can be seen: B - A is {100 * row['difference']:+.1f} AP, {range_}"
