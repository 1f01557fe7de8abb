"""What kinds of errors cost how much AP (Bolya et al. 2020, "TIDE"), at an IoU of 0.5.

Every false detection has one kind, by its overlap with the objects of its image:

- location: its class is right, its IoU with such an object between 0.1 and 0.5;
- class: an object of another class overlaps by 0.5 or more;
- duplicate: the object that it overlaps has a better detection;
- background: no object overlaps by more than 0.1;
- both: what remains, class and location wrong.

Missed is an object that no detection took and that no error of class or location stands for. The base is COCO's own
AP50, on COCO's own matches. Each kind's cost is the AP50 that mending it alone would win.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import Matches, pair_iou, pairs_in_ranges
from detector.evaluation.precision import ap_of_class
from detector.structures import Annotations, DetectionTable

KINDS = ("class", "location", "both", "duplicate", "background", "missed")
RIGHT, IGNORED = -1, -2
_FOUND_IOU, _BACKGROUND_IOU = 0.5, 0.1
_CHUNK = 100_000
# What is looked at in pictures: below, false detections are many and do little harm.
SHOWN_SCORE = 0.3


@dataclass(frozen=True)
class ErrorKinds:
    """The kinds of all errors.

    Attributes:
        kind: ``(D,)`` of the detections in ``Matches``: an index into ``KINDS``, RIGHT or IGNORED.
        target: ``(D,)`` the row of the object that an error of class or location stands for; else -1.
        missed: ``(M,)`` bool, of all objects.
        counts: how many errors of each kind.
        ap50: COCO's AP50; None if there is no object.
        cost: AP50 that mending each kind alone would win.
    """

    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray
    counts: dict[str, int]
    ap50: float | None
    cost: dict[str, float]


def find_error_kinds(truth: Annotations, found: DetectionTable, matches: Matches) -> ErrorKinds:
    """Sorts the errors of a data set.

    Args:
        truth: ground truth.
        found: detections.
        matches: by COCO's rules, whose first threshold is 0.5 and whose first range of areas is all.
    """
    taken, ignored = matches.truth[:, 0, 0], matches.ignored[:, 0, 0]
    kind = np.where(ignored, IGNORED, RIGHT)
    target = np.full(len(kind), -1)
    wrong = np.flatnonzero((taken < 0) & ~ignored)
    kind[wrong], target[wrong] = _kinds_of_false(truth, found, matches, wrong)
    needed = ~matches.truth_ignored[:, 0]
    open_ = needed.copy()
    open_[taken[taken >= 0]] = False
    missed = open_.copy()
    missed[target[target >= 0]] = False
    counts = {name: int((kind == number).sum()) for number, name in enumerate(KINDS)}
    counts["missed"] = int(missed.sum())
    base = _ap50(truth, matches, matches.labels, kind == RIGHT, kind != IGNORED, needed)
    cost = {}
    for number, name in enumerate(KINDS):
        mended = _mended(truth, matches, kind, target, open_, needed, missed, number)
        cost[name] = 0.0 if base is None or mended is None else mended - base
    return ErrorKinds(kind, target, missed, counts, base, cost)


def _kinds_of_false(
    truth: Annotations, found: DetectionTable, matches: Matches, wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kind and target of each false detection, given by its place in ``matches``."""
    parts = [
        _kinds_of_chunk(truth, found, matches, wrong[start : start + _CHUNK]) for start in range(0, len(wrong), _CHUNK)
    ]
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return np.concatenate([kinds for kinds, _ in parts]), np.concatenate([targets for _, targets in parts])


def _kinds_of_chunk(
    truth: Annotations, found: DetectionTable, matches: Matches, wrong: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows = matches.rows[wrong]
    images = found.image_index[rows]
    detection, object_ = pairs_in_ranges(truth.rows[images], truth.rows[images + 1])
    counting = ~matches.truth_ignored[object_, 0]
    detection, object_ = detection[counting], object_[counting]
    no_crowd = np.zeros(len(object_), dtype=bool)
    iou = pair_iou(found.boxes_xywh[rows[detection]], truth.boxes_xywh[object_], no_crowd)
    same = truth.labels[object_] == found.labels[rows[detection]]
    own, own_object = _largest(detection[same], iou[same], object_[same], len(rows))
    other, other_object = _largest(detection[~same], iou[~same], object_[~same], len(rows))
    location = (own >= _BACKGROUND_IOU) & (own < _FOUND_IOU)
    conditions = [
        location,
        other >= _FOUND_IOU,
        own >= _FOUND_IOU,
        np.maximum(own, other) <= _BACKGROUND_IOU,
    ]
    names = ("location", "class", "duplicate", "background")
    kinds = np.select(conditions, [KINDS.index(name) for name in names], KINDS.index("both"))
    targets = np.select(conditions[:2], [own_object, other_object], -1)
    return kinds, targets


def _largest(detection: np.ndarray, iou: np.ndarray, object_: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each detection its largest IoU (0 without pairs), and the first object that has it."""
    largest, where = np.zeros(count), np.full(count, -1)
    order = np.lexsort((-np.arange(len(iou)), iou, detection))  # the last of a detection is wanted
    largest[detection[order]], where[detection[order]] = iou[order], object_[order]
    return largest, where


def _mended(
    truth: Annotations,
    matches: Matches,
    kind: np.ndarray,
    target: np.ndarray,
    open_: np.ndarray,
    needed: np.ndarray,
    missed: np.ndarray,
    number: int,
) -> float | None:
    """AP50 if one kind of error did not occur.

    The best detection whose class or box was wrong finds its object if nothing else did; other wrong ones are gone,
    and missed objects no longer count.
    """
    right, kept, labels = kind == RIGHT, kind != IGNORED, matches.labels
    if KINDS[number] == "missed":
        return _ap50(truth, matches, labels, right, kept, needed & ~missed)
    wrong = np.flatnonzero(kind == number)
    kept[wrong] = False
    if KINDS[number] in ("class", "location"):
        wrong = wrong[open_[target[wrong]]]
        wrong = wrong[np.argsort(-matches.scores[wrong], kind="stable")]
        best = wrong[np.unique(target[wrong], return_index=True)[1]]
        kept[best] = right[best] = True
        labels = labels.copy()
        labels[best] = truth.labels[target[best]]
    return _ap50(truth, matches, labels, right, kept, needed)


def _ap50(
    truth: Annotations, matches: Matches, labels: np.ndarray, right: np.ndarray, kept: np.ndarray, needed: np.ndarray
) -> float | None:
    """The mean over classes.

    Args:
        truth: ground truth.
        matches: for scores, in the order in which equal ones count.
        labels: ``(D,)`` of the detections.
        right: ``(D,)`` bool.
        kept: ``(D,)`` bool: right or wrong, not ignored.
        needed: ``(M,)`` bool: objects that count.
    """
    positives = np.bincount(truth.labels[needed], minlength=len(truth.class_names))
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((matches.image_rank[rows], -matches.scores[rows], labels[rows]))]
    limits = np.searchsorted(labels[rows], np.arange(len(positives) + 1))
    values = [
        ap_of_class(right[rows[limits[label] : limits[label + 1]]], int(positives[label]))
        for label in np.flatnonzero(positives)
    ]
    return float(np.mean(values)) if values else None


def worst_images(truth: Annotations, found: DetectionTable, matches: Matches, kinds: ErrorKinds) -> np.ndarray:
    """``(N, len(KINDS))`` int64: errors of each kind in each image, false detections from ``SHOWN_SCORE`` on.

    Args:
        truth: ground truth.
        found: detections.
        matches: of both.
        kinds: the errors.
    """
    table = np.zeros((len(truth.image_ids), len(KINDS)), dtype=np.int64)
    shown = (kinds.kind >= 0) & (matches.scores >= SHOWN_SCORE)
    np.add.at(table, (found.image_index[matches.rows[shown]], kinds.kind[shown]), 1)
    np.add.at(table[:, KINDS.index("missed")], truth.image_index()[kinds.missed], 1)
    return table
