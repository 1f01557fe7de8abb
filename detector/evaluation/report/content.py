"""Curves, confusion, calibration, data and worst images, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from detector.evaluation.report.charts import (
    SERIES,
    colour,
    dashed,
    draw_calibration,
    draw_f1,
    draw_histogram,
    draw_precision_recall,
)
from detector.evaluation.report.numbers import count, defined, score, shorten


@dataclass(frozen=True)
class Line:
    """An entry of a legend."""

    name: str
    colour: str
    dashed: bool
    series: int


@dataclass(frozen=True)
class Curves:
    """Both charts of curves, with their legend; ``of`` is how many classes have curves."""

    precision_recall: Markup
    f1: Markup
    legend: list[Line]
    of: int
    common: str


@dataclass(frozen=True)
class Square:
    """A field of the confusion matrix: its count, its share of the row in 0..1, and a sentence."""

    text: str
    share: float
    sentence: str


def curves(analysis: Mapping[str, Any]) -> Curves | None:
    """Curves of the most frequent classes; None if no class has any.

    Args:
        analysis: the content of analysis.json.
    """
    drawable = {
        name: curve for name, curve in (analysis.get("curves") or {}).items() if curve["objects"] and curve["score"]
    }
    names = sorted(drawable, key=lambda name: -drawable[name]["objects"])[:SERIES]
    if not names:
        return None
    points = analysis.get("operating_points") or {}
    common = defined((points.get("common") or {}).get("score"))
    chosen = [drawable[name] for name in names]
    best = [(points.get("per_class") or {}).get(name) for name in names]
    return Curves(
        draw_precision_recall(chosen),
        draw_f1(chosen, best, common),
        [Line(shorten(name, 40), colour(series), dashed(series), series) for series, name in enumerate(names)],
        len(drawable),
        score(common),
    )


def confusion_rows(confusion: Mapping[str, Any]) -> list[tuple[str, list[Square]]]:
    """The rows of the matrix with their names, background last.

    Args:
        confusion: of analysis.json; may be empty.
    """
    if not confusion:
        return []
    names = [shorten(name, 40) for name in confusion["names"]]
    background = len(names) - 1
    result = []
    for true, row in enumerate(confusion["table"]):
        total = sum(row)
        squares = []
        for found, number in enumerate(row):
            if true == found == background:
                squares.append(Square("", 0.0, "Where nothing is and nothing was found, there is nothing to count"))
                continue
            share = number / total if total else 0.0
            subject = _subject(names, true, found, background)
            sentence = f"{subject}: {count(number)} of {count(total)}" + (f", {100 * share:.0f} %" if total else "")
            squares.append(Square(count(number) if number else "·", share, sentence))
        result.append((names[true], squares))
    return result


def _subject(names: Sequence[str], true: int, found: int, background: int) -> str:
    if true == background:
        return f"false detections of {names[found]} where nothing is"
    if found == background:
        return f"{names[true]} not found"
    return f"{names[true]} found" if true == found else f"{names[true]} taken for {names[found]}"


def calibration_rows(analysis: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Range of scores, detections, mean score, and share that is true."""
    return [
        (f"{row['from']:.1f}–{row['to']:.1f}", count(row["detections"]), score(row["mean_score"]),
         score(row["true"]))
        for row in analysis.get("calibration") or []
    ]  # fmt: skip


def calibration_chart(analysis: Mapping[str, Any]) -> Markup | None:
    """The chart; None without detections."""
    rows = [row for row in analysis.get("calibration") or [] if defined(row["true"]) is not None]
    return draw_calibration(rows) if rows else None


def data_facts(analysis: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the data set holds."""
    data = analysis.get("data") or {}
    titles = {
        "images": "Images",
        "images_without_objects": "Images without objects",
        "objects": "Objects",
        "crowds": "Crowds",
        "difficult": "Difficult objects",
    }
    facts = [(title, count(data[key])) for key, title in titles.items() if key in data]
    if data.get("images"):
        facts.append(("Objects an image, mean", f"{data['objects'] / data['images']:.1f}"))
    if "fingerprint" in data:
        facts.append(("Fingerprint of the ground truth", shorten(str(data["fingerprint"]))))
    return facts


def histogram(analysis: Mapping[str, Any]) -> Markup | None:
    """Objects an image; None without images."""
    counts = (analysis.get("data") or {}).get("objects_an_image") or []
    return draw_histogram(counts) if sum(counts) else None


def worst_rows(analysis: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Image, errors and classes of the worst images, for where there are no pictures of them."""
    return [
        (
            shorten(str(row["image_id"])),
            error_list(row["errors"]),
            ", ".join(shorten(name, 40) for name in row["classes"]),
        )
        for row in analysis.get("worst_images") or []
    ]


def error_list(errors: Mapping[str, int]) -> str:
    """Counts with their kinds, such as "20 background, 1 both", the most frequent first."""
    return ", ".join(f"{count(number)} {kind}" for kind, number in sorted(errors.items(), key=lambda item: -item[1]))
