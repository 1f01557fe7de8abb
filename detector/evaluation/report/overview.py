"""The numbers of a whole evaluation and of each class, in words and cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from detector.evaluation.report.numbers import Span, count, defined, percent, score, shorten, span

_MOST_CLASSES = 1500
_LARGE = 3
_GROUPS = {"coco": "COCO", "voc07": "VOC 2007, 11 points", "voc": "VOC 2010 and later, area under the curve"}
_MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "at an IoU of 0.50",
    "AP75": "at an IoU of 0.75",
    "APs": "small objects, under 32² pixels",
    "APm": "medium objects, 32² to 96² pixels",
    "APl": "large objects, over 96² pixels",
    "AR1": "recall, 1 detection an image",
    "AR10": "recall, 10 detections an image",
    "AR100": "recall, 100 detections an image",
    "ARs": "recall, small objects",
    "ARm": "recall, medium objects",
    "ARl": "recall, large objects",
    "mAP50": "at an IoU of 0.50",
    "mAP": "mean over IoU 0.50 to 0.95",
}
_COLUMNS = {
    "AP": ("AP", "COCO's AP, mean over IoU 0.50 to 0.95, with its 95 % interval"),
    "AP50": ("AP50", "COCO's AP at an IoU of 0.50"),
    "AP75": ("AP75", "COCO's AP at an IoU of 0.75"),
    "voc07_AP50": ("VOC07", "AP of VOC 2007, 11 points, at an IoU of 0.50"),
    "voc_AP50": ("VOC", "AP of VOC 2010 and later, area under the curve, at an IoU of 0.50"),
}
_POINT_COLUMNS = (
    ("f1", "Best F1", "The best harmonic mean of precision and recall at any score, at an IoU of 0.50"),
    ("score", "at score", "The lowest score that counts for this F1"),
    ("precision", "Precision", "The share of detections that are true, from this score on"),
    ("recall", "Recall", "The share of objects that are found, from this score on"),
)


@dataclass(frozen=True)
class Number:
    """One number of the headline."""

    name: str
    meaning: str
    text: str
    span: Span | None


@dataclass(frozen=True)
class Group:
    """The numbers of one protocol; the first one's first numbers are large."""

    title: str
    large: list[Number]
    small: list[Number]


@dataclass(frozen=True)
class Column:
    """One column of numbers."""

    title: str
    hint: str


@dataclass(frozen=True)
class Cell:
    """What stands in a table: its text, and the number to sort by, None for none."""

    text: str
    value: float | None
    span: Span | None = None


@dataclass(frozen=True)
class ClassTable:
    """Classes and their numbers.

    Attributes:
        columns: all but the names.
        rows: names, each with a cell a column.
        left_out: how many rare classes are not shown.
    """

    columns: list[Column]
    rows: list[tuple[str, list[Cell]]]
    left_out: int

    def has(self, title: str) -> bool:
        """Whether there is such a column."""
        return any(column.title == title for column in self.columns)


def headline(metrics: Mapping[str, Any], analysis: Mapping[str, Any]) -> list[Group]:
    """The numbers of each protocol that ran; intervals where they are known.

    Args:
        metrics: the content of metrics.json.
        analysis: the content of analysis.json.
    """
    intervals = analysis.get("intervals") or {}
    groups: list[Group] = []
    for key, title in _GROUPS.items():
        if key not in metrics:
            continue
        numbers = [
            Number(
                name,
                _MEANINGS.get(name, ""),
                percent(value),
                span(intervals.get(name), value) if key == "coco" else None,
            )
            for name, value in metrics[key].items()
        ]
        large = 0 if groups else _LARGE
        groups.append(Group(title, numbers[:large], numbers[large:]))
    return groups


def class_table(metrics: Mapping[str, Any], analysis: Mapping[str, Any]) -> ClassTable:
    """All classes in the order of the data set; of very many the most frequent ones.

    Args:
        metrics: the content of metrics.json.
        analysis: the content of analysis.json.
    """
    classes: dict[str, dict[str, Any]] = metrics.get("per_class") or {}
    frequent = sorted(classes, key=lambda name: -(defined(classes[name].get("objects")) or 0))[:_MOST_CLASSES]
    shown = [name for name in classes if name in set(frequent)] if len(frequent) < len(classes) else list(classes)
    measured = [key for key in _COLUMNS if any(key in row for row in classes.values())]
    points = (analysis.get("operating_points") or {}).get("per_class")
    columns = [Column("Objects", "How many there are in the ground truth")]
    columns += [Column(*_COLUMNS[key]) for key in measured]
    columns += [Column(title, hint) for _, title, hint in _POINT_COLUMNS if points is not None]
    intervals = (analysis.get("intervals") or {}).get("per_class") or {}
    rows = [(shorten(name), list(_cells(classes[name], measured, intervals.get(name), points, name))) for name in shown]
    return ClassTable(columns, rows, len(classes) - len(shown))


def _cells(
    row: Mapping[str, Any], measured: list[str], limits: Any, points: Mapping[str, Any] | None, name: str
) -> Iterator[Cell]:
    yield Cell(count(row.get("objects")), defined(row.get("objects")))
    for key in measured:
        value = row.get(key)
        yield Cell(percent(value), defined(value), span(limits, value) if key == "AP" else None)
    if points is not None:
        point = points.get(name) or {}
        for key, _, _ in _POINT_COLUMNS:
            value = point.get(key)
            yield Cell(score(value) if key == "score" else percent(value), defined(value))
