"""Tables with bars: kinds of errors, stages that lose objects, and slices of the objects, each with what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detector.evaluation.report.numbers import DASH, count, defined, percent, several, signed

_ERROR_KINDS = {
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
    "beyond the limit of detections": "It was found, but too many detections of the image had a better score.",
    "given to a neighbour": "The detection that covers it counts for an object beside it.",
}
_SLICES = {
    "side": ("By size", "Square root of width × height, in pixels"),
    "width / height": ("By shape", "Width / height"),
}
_RANGES = {
    "tall": "under 0.5",
    "upright": "0.5 to 0.8",
    "square": "0.8 to 1.25",
    "broad": "1.25 to 2",
    "wide": "from 2",
}


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
            _ERROR_KINDS.get(name, ""),
            count(kinds["counts"][name]),
            signed(cost.get(name)),
            _length(cost.get(name), largest),
        )
        for name in names
    ]


def stage_bars(stages: Mapping[str, Any]) -> list[Bar]:
    """Missed objects by the stage that lost them, in the order of the stages.

    Args:
        stages: of analysis.json; may be empty.
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


def stages_sentence(stages: Mapping[str, Any]) -> str:
    """How many objects of how many images were followed; nothing if none was."""
    if not stages:
        return ""
    objects = f" of {several(stages['objects'], 'object', 'objects')}" if "objects" in stages else ""
    missed = count(stages["missed"]) if objects else several(stages["missed"], "object", "objects")
    images = several(stages["images"], "image", "images")
    return f"In {images}, {missed}{objects} were missed."


def _length(value: Any, largest: float) -> float | None:
    number = defined(value)
    return None if number is None or largest <= 0 else 100 * min(max(number / largest, 0.0), 1.0)
