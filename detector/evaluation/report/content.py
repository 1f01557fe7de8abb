"""What the sections of the page say, below the numbers: curves, errors, confusion, slices and data."""

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
from detector.evaluation.report.numbers import DASH, count, defined, percent, score, several, shorten, signed

ERROR_KINDS = {
    "class": "The place is right and the class is wrong: an object of another class overlaps by an IoU of 0.5 or more.",
    "location": "The class is right and the box is too far off: the IoU is between 0.1 and 0.5.",
    "both": "Class and box are wrong: an object of another class overlaps by an IoU between 0.1 and 0.5.",
    "duplicate": "The object is there, but a detection with a higher score has already found it.",
    "background": "Nothing is there: no object overlaps by an IoU of more than 0.1.",
    "missed": "An object that no detection found, not even with a wrong class or box.",
}
_STAGES = {
    "no anchor fits": "No reference box overlaps the object enough: its size or shape is not among the anchors.",
    "RPN did not propose it": "The first stage moved no anchor onto the object.",
    "cut by proposal NMS or the limit of proposals": "It was proposed, but too many proposals had a better score.",
    "taken for background": "A proposal covered it, and the head saw no object there.",
    "taken for another class": "A proposal covered it, and the head preferred another class.",
    "box too far off": "The class was right, but the head moved the box away from the object.",
    "removed by the final NMS": "It was found, and suppressed by a detection of the same class with a higher score.",
    "below the score threshold": "It was found with a score too low to be given out.",
    "beyond the limit of detections": "It was found, but too many detections of the image had a better score.",
    "given to a neighbour": "The detection that covers it counts for an object beside it.",
}
_SLICES = {
    "side": ("By size", "Square root of width × height, in pixels"),
    "width / height": ("By shape", "Width / height"),
}
_RANGES = {"tall": "under 0.5", "upright": "0.5 to 0.8", "square": "0.8 to 1.25", "broad": "1.25 to 2", "wide": "from 2"}


@dataclass(frozen=True)
class Bar:
    """A row of a table with a bar.

    Attributes:
        name: of the row.
        note: what the name means.
        number: how many there are.
        text: what the bar measures.
        length: of the bar, 0..100; None for no bar.
    """

    name: str
    note: str
    number: str
    text: str
    length: float | None


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


def error_bars(analysis: Mapping[str, Any]) -> list[Bar]:
    """Kinds of errors, the costliest first.

    Args:
        analysis: the content of analysis.json.
    """
    kinds = analysis.get("error_kinds")
    if not kinds:
        return []
    cost: Mapping[str, Any] = kinds["cost"]
    largest = max([defined(value) or 0.0 for value in cost.values()] + [0.0])
    names = sorted(kinds["counts"], key=lambda name: -(defined(cost.get(name)) or 0.0))
    return [
        Bar(
            name,
            ERROR_KINDS.get(name, ""),
            count(kinds["counts"][name]),
            signed(cost.get(name)),
            _length(cost.get(name), largest),
        )
        for name in names
    ]


def stage_bars(stages: Mapping[str, Any]) -> list[Bar]:
    """Missed objects by the stage that lost them, in the order of the stages.

    Args:
        stages: of analysis.json.
    """
    lost: Mapping[str, Any] = stages.get("lost") or {}
    largest = max([defined(value) or 0.0 for value in lost.values()] + [0.0])
    total = sum(defined(value) or 0.0 for value in lost.values())
    return [
        Bar(
            name,
            _STAGES.get(name, ""),
            count(value),
            f"{100 * value / total:.0f} %" if total else DASH,
            _length(value, largest),
        )
        for name, value in lost.items()
    ]


def proposal_recall(stages: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Numbers of proposals, each with the share of objects that they cover."""
    return [(count(int(number)), percent(value)) for number, value in (stages.get("proposal_recall") or {}).items()]


def confusion_rows(confusion: Mapping[str, Any]) -> list[tuple[str, list[Square]]]:
    """The rows of the matrix with their names, background last.

    Args:
        confusion: of analysis.json.
    """
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


def slice_tables(analysis: Mapping[str, Any]) -> list[tuple[str, str, list[Bar]]]:
    """Title, what the rows are, and rows, of each way to slice objects."""
    tables = []
    for key, rows in (analysis.get("slices") or {}).items():
        title, what = _SLICES.get(key, (key, ""))
        bars = [
            Bar(
                row["name"],
                _RANGES.get(row["name"], ""),
                count(row["objects"]),
                percent(row["recall"]),
                _length(row["recall"], 1.0),
            )
            for row in rows
        ]
        tables.append((title, what, bars))
    return tables


def calibration_rows(analysis: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Range of scores, detections, mean score, and share that is true."""
    return [
        (f"{row['from']:.1f}–{row['to']:.1f}", count(row["detections"]), percent(row["mean_score"]),
         percent(row["true"]))
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
        (shorten(str(row["image_id"])), error_list(row["errors"]), ", ".join(shorten(name, 40) for name in row["classes"]))
        for row in analysis.get("worst_images") or []
    ]


def error_list(errors: Mapping[str, int]) -> str:
    """ "20 background, 1 both", the most frequent first."""
    return ", ".join(f"{count(number)} {kind}" for kind, number in sorted(errors.items(), key=lambda item: -item[1]))


def stages_sentence(stages: Mapping[str, Any]) -> str:
    """How many objects of how many images were followed."""
    objects = f" of {several(stages['objects'], 'object', 'objects')}" if "objects" in stages else ""
    missed = count(stages["missed"]) if objects else several(stages["missed"], "object", "objects")
    images = several(stages["images"], "image", "images")
    more = stages.get("images_with_missed")
    chosen = f" (of {count(more)} with missed objects)" if more and more != stages["images"] else ""
    return f"In {images}{chosen}, {missed}{objects} were missed."


def _length(value: Any, largest: float) -> float | None:
    number = defined(value)
    return None if number is None or largest <= 0 else 100 * min(max(number / largest, 0.0), 1.0)
