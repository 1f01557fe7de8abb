"""Tables of the page: splits, findings, classes and the fit of the anchors, in words and cells."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.data.doctor.anchor_fit import AnchorFit, Slice
from detector.data.findings import KINDS, Finding, Severity, most_severe_first
from detector.data.raw.structure import RawSet
from detector.engine.self_test import SelfTest
from detector.errors import one_line
from detector.evaluation.report.bars import Bar
from detector.evaluation.report.numbers import DASH, count, percent, several, shorten
from detector.evaluation.report.overview import Cell, ClassTable, Column

_RECORDS = 20
_MOST_CLASSES = 1500
_CLASS_BARS = 15
_LONGEST = 300
_ALL = 0.9995  # What is written as 100.0 per cent.


@dataclass(frozen=True)
class Group:
    """Findings of one kind.

    Attributes:
        key: of the kind.
        title: what was found.
        severity: "error", "warning" or "note".
        number: how many there are.
        remedy: what to do.
        mended: ``--fix`` does it.
        rows: split, file, record and what, of the first ones.
    """

    key: str
    title: str
    severity: Severity
    number: int
    remedy: str
    mended: bool
    rows: list[tuple[str, str, str, str]]


def plain(text: object, limit: int = _LONGEST) -> str:
    """Foreign text as it can stand in a page: one line, of bounded length, of characters that can be seen."""
    return one_line(shorten(str(text), limit), 2 * limit)


def common_folder(sets: Sequence[RawSet]) -> str:
    """The folder that holds all the splits; empty for none."""
    places = [os.path.abspath(place) for raw in sets for place in (raw.source, raw.folder)]
    try:
        return os.path.commonpath(places) if places else ""
    except ValueError:  # on two drives
        return ""


def shown_path(path: str, root: str) -> str:
    """A path below the root as seen from there."""
    whole = os.path.abspath(path)
    return plain(os.path.relpath(whole, root) if root and whole.startswith(root + os.sep) else path)


def shown_text(text: str, root: str) -> str:
    """A sentence in which paths below the root stand as seen from there."""
    return plain(text.replace(root + os.sep, "") if root else text)


def finding_groups(findings: Sequence[Finding], root: str) -> list[Group]:
    """Findings by kind, the most severe first.

    Args:
        findings: in any order.
        root: files are shown as seen from there.
    """
    groups = []
    for key, members in most_severe_first(findings).items():
        kind = KINDS[key]
        rows = [
            (
                plain(one.split, 40),
                shown_path(one.file, root),
                plain(one.record, 80) or DASH,
                shown_text(one.what, root),
            )
            for one in members[:_RECORDS]
        ]
        groups.append(Group(key, kind.title, kind.severity, len(members), kind.remedy, kind.mended, rows))
    return groups


def severity_counts(findings: Sequence[Finding]) -> dict[Severity, int]:
    """How many errors, warnings and notes there are."""
    counts: dict[Severity, int] = {"error": 0, "warning": 0, "note": 0}
    for finding in findings:
        counts[KINDS[finding.kind].severity] += 1
    return counts


def distinct(sets: Sequence[RawSet]) -> tuple[int, int]:
    """How many images and objects there are; what is in several splits, such as train and trainval, counts once."""
    seen: set[str] = set()
    objects = 0
    for raw in sets:
        paths = [raw.path(image) for image in range(len(raw))]
        fresh = np.array([path not in seen for path in paths] + [True])  # the last one for objects of no image
        objects += int(fresh[raw.images].sum())
        seen.update(paths)
    return len(seen), objects


def split_rows(sets: Sequence[RawSet], sizes: Sequence[np.ndarray]) -> list[tuple[str, ...]]:
    """Split, format, images, those without objects, objects, classes with objects, and the sizes of the images."""
    rows = []
    for raw, of_images in zip(sets, sizes, strict=True):
        used = len(np.unique(raw.labels[raw.labels >= 0]))
        empty = len(raw) - len(np.unique(raw.images[raw.images >= 0]))
        numbers = (len(raw), empty, len(raw.labels), used)
        rows.append((plain(raw.split, 40), raw.format.upper(), *map(count, numbers), _size_range(of_images)))
    return rows


def _size_range(sizes: np.ndarray) -> str:
    known = sizes[(sizes > 0).all(axis=1)]
    if not len(known):
        return DASH
    order = known.prod(axis=1).argsort(kind="stable")
    texts = [f"{known[row][1]} × {known[row][0]}" for row in (order[0], order[len(order) // 2], order[-1])]
    return texts[0] if texts[0] == texts[2] else f"{texts[0]} to {texts[2]}, median {texts[1]}"


def class_names(sets: Sequence[RawSet]) -> list[str]:
    """The names of all splits, each once, in the order of the first that declares them."""
    return list(dict.fromkeys(name for raw in sets for name in raw.class_names))


def class_table(sets: Sequence[RawSet]) -> ClassTable:
    """Objects and images of each class in each split, its share, and the median size of its objects."""
    names = class_names(sets)
    numbers = [_class_numbers(raw, names) for raw in sets]
    totals = np.sum([objects for objects, _ in numbers], axis=0) if numbers else np.zeros(len(names))
    medians = _median_sides(sets, names)
    columns = [
        column
        for raw in sets
        for column in (
            Column(f"Objects, {plain(raw.split, 16)}", "How many objects there are, crowds included"),
            Column(f"Images, {plain(raw.split, 16)}", "How many images show one or more"),
        )
    ]
    columns += [
        Column("Share", "Of all objects, per cent"),
        Column("Median side", "Square root of width × height, in pixels of the original image"),
    ]
    rows = []
    for place in sorted(np.argsort(-totals, kind="stable")[:_MOST_CLASSES].tolist()):
        cells = [Cell(count(each[place]), float(each[place])) for pair in numbers for each in pair]
        share, side = totals[place] / max(totals.sum(), 1), medians[place]
        cells.append(Cell(percent(share), float(share)))
        cells.append(Cell(DASH if np.isnan(side) else f"{side:.0f}", None if np.isnan(side) else float(side)))
        rows.append((plain(names[place], 80), cells))
    return ClassTable(columns, rows, len(names) - len(rows))


def _labels(raw: RawSet, names: Sequence[str]) -> np.ndarray:
    """``(M,)``: the objects' labels as indices of ``names``; -1 stays."""
    places = {name: place for place, name in enumerate(names)}
    labels: np.ndarray = np.array([*(places[name] for name in raw.class_names), -1], dtype=np.int64)[raw.labels]
    return labels


def _class_numbers(raw: RawSet, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    known = (raw.labels >= 0) & (raw.images >= 0)
    labels = _labels(raw, names)
    pairs = np.unique(labels[known] * max(len(raw), 1) + raw.images[known]) // max(len(raw), 1)
    objects = np.bincount(labels[raw.labels >= 0], minlength=len(names))
    return objects, np.bincount(pairs, minlength=len(names))


def _median_sides(sets: Sequence[RawSet], names: Sequence[str]) -> np.ndarray:
    labels = np.concatenate([_labels(raw, names) for raw in sets] or [np.zeros(0, dtype=np.int64)])
    boxes = np.concatenate([raw.boxes for raw in sets] or [np.zeros((0, 4))])
    fine = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1) & (labels >= 0)
    sides, labels = np.sqrt(boxes[fine, 2]) * np.sqrt(boxes[fine, 3]), labels[fine]
    order = np.lexsort((sides, labels))
    starts = np.searchsorted(labels[order], np.arange(len(names) + 1))
    medians = np.full(len(names), np.nan)
    for place in np.flatnonzero(np.diff(starts)):
        medians[place] = np.median(sides[order[starts[place] : starts[place + 1]]])
    return medians


def recall_bars(slices: Sequence[Slice]) -> list[Bar]:
    """Shares of objects that an anchor covers, as rows with bars."""
    return [
        Bar(plain(one.name, 60), "", count(one.objects), percent(one.recall_50), 100 * one.recall_50) for one in slices
    ]


def worst_classes(fit: AnchorFit) -> list[Bar]:
    """The classes that the anchors cover least; nothing where all are covered."""
    order = sorted(fit.by_class, key=lambda one: (one.recall_50, -one.objects))
    return recall_bars([one for one in order if one.recall_50 < _ALL][:_CLASS_BARS])


def self_test_sentence(test: SelfTest) -> str:
    """How the ground truth fared as detections."""
    if test.ap is None or test.ap_possible is None:
        return "There is no object that could be scored."
    if test.finding is not None:
        return f"The data set did not pass: {test.finding.what}."
    limit = " COCO counts 100 detections an image and class, so that 1 is out of reach." if test.ap_possible < 1 else ""
    left = several(test.left_out, "object was", "objects were")
    left_out = f" {left} left out: too thin, or in the same place as another." if test.left_out else ""
    perfect = ""
    if test.perfect is not None and test.perfect < test.ap - 1e-9:
        perfect = (
            f" Against the annotations as they are, with boxes that reach over the edge of their image or are there "
            f"twice, a detector without fault would score {test.perfect:.4f}."
        )
    objects = several(test.objects, "object", "objects")
    return f"Passed: {objects}, given as detections, score an AP of {test.ap:.4f}.{limit}{left_out}{perfect}"
