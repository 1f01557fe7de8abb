"""Which ground truth each detection takes, by COCO's rules, for all classes, thresholds and areas at once.

In each image and class, detections choose in the order of their scores. A detection takes the ground truth of largest
IoU that is not yet taken, of equal ones the later; those that count before those that are ignored (crowds, and objects
outside the range of areas). A crowd may be taken many times, and its IoU is the share of the detection that it covers.

Equal to pycocotools to the last bit, at a small part of its time: only pairs that overlap enough are looked at, and the
n-th detections of all images and classes choose together.

Shape letters: M objects, D detections, P pairs, T IoU thresholds, A ranges of area, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.structures import Annotations, DetectionTable, ImageId

# Arrays of a block of classes grow with its detections; this bounds memory, not results.
_BLOCK = 150_000


@dataclass(frozen=True)
class Rules:
    """What COCO's evaluation varies.

    Attributes:
        iou_thresholds: ``(T,)``, rising.
        areas: ``(A, 2)`` smallest and largest area that counts, both inclusive; the first is meant to be all.
        max_detections: an image and class; the largest bounds what is matched.
    """

    iou_thresholds: np.ndarray
    areas: np.ndarray
    max_detections: tuple[int, ...]


COCO_RULES = Rules(
    np.linspace(0.5, 0.95, 10),
    np.array([(0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10)], dtype=np.float64),
    (1, 10, 100),
)


@dataclass(frozen=True)
class Matches:
    """The outcome for the detections that are among the best of their image and class.

    They are grouped by class, image and falling score, images in the order of their ids.

    Attributes:
        rows: ``(D,)`` int64, into the ``DetectionTable``.
        labels: ``(D,)`` int64.
        image_rank: ``(D,)`` int64: the place of the image in the order of ids.
        scores: ``(D,)`` float64.
        position: ``(D,)`` int64: 0 for the best of its image and class.
        truth: ``(D, T, A)`` int32: the row in ``Annotations`` that it took; -1 for none.
        ignored: ``(D, T, A)`` bool: it counts neither as true nor as false.
        truth_ignored: ``(M, A)`` bool: the object needs not be found.
    """

    rows: np.ndarray
    labels: np.ndarray
    image_rank: np.ndarray
    scores: np.ndarray
    position: np.ndarray
    truth: np.ndarray
    ignored: np.ndarray
    truth_ignored: np.ndarray

    def of_class(self, label: int) -> slice:
        """The detections of one class."""
        low, high = np.searchsorted(self.labels, [label, label + 1])
        return slice(int(low), int(high))


def match_all(truth: Annotations, found: DetectionTable, rules: Rules = COCO_RULES) -> Matches:
    """Matches all detections of a data set.

    Args:
        truth: ground truth.
        found: detections; of equal scores in an image and class the earlier chooses first.
        rules: thresholds, areas, and how many detections an image and class count.
    """
    ranks = image_ranks(truth.image_ids)
    truth_ignored = _outside(truth.areas, rules) | truth.crowd[:, None]
    order = _best_of_groups(ranks, found, rules.max_detections[-1])
    labels = found.labels[order]
    limits = np.searchsorted(labels, np.arange(len(truth.class_names) + 1))
    truth_order = np.lexsort((ranks[truth.image_index()], truth.labels))  # stable: file order within a group
    shape = (len(order), len(rules.iou_thresholds), len(rules.areas))
    taken = np.full(shape, -1, dtype=np.int32)
    start = 0
    for label in range(len(truth.class_names)):
        stop = limits[label + 1]
        if stop - limits[start] >= _BLOCK or label == len(truth.class_names) - 1:
            here = slice(limits[start], stop)
            chosen = truth_order[(truth.labels[truth_order] >= start) & (truth.labels[truth_order] <= label)]
            _match_block(truth, found, ranks, order[here], chosen, truth_ignored, rules, taken[here])
            start = label + 1
    areas = found.boxes_xywh[order, 2] * found.boxes_xywh[order, 3]
    ignored = np.broadcast_to(_outside(areas, rules)[:, None, :], shape).copy()
    detection, threshold, area = np.nonzero(taken >= 0)
    ignored[detection, threshold, area] = truth_ignored[taken[detection, threshold, area], area]
    position = np.arange(len(order)) - _starts(labels, ranks[found.image_index[order]])
    return Matches(
        order, labels, ranks[found.image_index[order]], found.scores[order], position, taken, ignored, truth_ignored
    )


def image_ranks(image_ids: Sequence[ImageId]) -> np.ndarray:
    """``(N,)`` int64: the place of each image in the order of ids; between equal scores the lower id goes first."""
    order = sorted(range(len(image_ids)), key=lambda index: (isinstance(image_ids[index], str), image_ids[index]))
    ranks = np.empty(len(image_ids), dtype=np.int64)
    ranks[order] = np.arange(len(image_ids))
    return ranks


def _outside(areas: np.ndarray, rules: Rules) -> np.ndarray:
    """``(N, A)`` bool."""
    low, high = rules.areas.T
    outside: np.ndarray = (areas[:, None] < low) | (areas[:, None] > high)
    return outside


def _best_of_groups(ranks: np.ndarray, found: DetectionTable, most: int) -> np.ndarray:
    """Rows by class, image and falling score, the best ``most`` of each class and image."""
    images = ranks[found.image_index]
    order = np.lexsort((-found.scores, images, found.labels))
    kept: np.ndarray = order[np.arange(len(order)) - _starts(found.labels[order], images[order]) < most]
    return kept


def _starts(labels: np.ndarray, images: np.ndarray) -> np.ndarray:
    """For each of the sorted rows the first one of the same class and image."""
    new = np.ones(len(labels), dtype=bool)
    new[1:] = (labels[1:] != labels[:-1]) | (images[1:] != images[:-1])
    starts: np.ndarray = np.maximum.accumulate(np.where(new, np.arange(len(labels)), 0))
    return starts


def _match_block(
    truth: Annotations,
    found: DetectionTable,
    ranks: np.ndarray,
    rows: np.ndarray,
    truth_rows: np.ndarray,
    truth_ignored: np.ndarray,
    rules: Rules,
    taken: np.ndarray,
) -> None:
    """Matches whole classes; fills ``taken`` with rows of ``truth``."""
    groups = found.labels[rows] * len(ranks) + ranks[found.image_index[rows]]
    truth_groups = truth.labels[truth_rows] * len(ranks) + ranks[truth.image_index()[truth_rows]]
    first, one_past = (np.searchsorted(truth_groups, groups, side) for side in ("left", "right"))
    thresholds = np.minimum(rules.iou_thresholds, 1 - 1e-10)
    detection, candidate, iou = _overlapping_pairs(truth, found, rows, truth_rows, first, one_past, thresholds[0])
    if not len(detection):
        return
    choosing, starts = np.unique(detection, return_index=True)
    counts = np.diff(np.append(starts, len(detection)))
    turn = np.arange(len(choosing)) - np.searchsorted(groups[choosing], groups[choosing])
    order = np.argsort(turn, kind="stable")
    limits = np.searchsorted(turn[order], np.arange(turn.max() + 2))
    shape = (len(truth_rows), *taken.shape[1:])
    free, crowd = np.ones(shape, dtype=bool), truth.crowd[truth_rows]
    ignored = truth_ignored[truth_rows]
    for low, high in itertools.pairwise(limits):
        turns = order[low:high]
        number = counts[turns]
        offsets = np.cumsum(number) - number
        pairs = np.repeat(starts[turns] - offsets, number) + np.arange(number.sum())
        here = candidate[pairs]
        possible = (iou[pairs][:, None, None] >= thresholds[:, None]) & free[here]
        counting = _best(possible & ~ignored[here][:, None, :], iou[pairs], offsets, number)
        other = _best(possible & ignored[here][:, None, :], iou[pairs], offsets, number)
        best = np.where(counting >= 0, counting, other)
        row, threshold, area = np.nonzero(best >= 0)
        object_ = here[best[row, threshold, area]]
        taken[choosing[turns][row], threshold, area] = truth_rows[object_]
        free[object_, threshold, area] = crowd[object_]


def _overlapping_pairs(
    truth: Annotations,
    found: DetectionTable,
    rows: np.ndarray,
    truth_rows: np.ndarray,
    first: np.ndarray,
    one_past: np.ndarray,
    least: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of one image and class with at least that IoU: positions in ``rows``, in ``truth_rows``, and IoU."""
    detection, candidate = pairs_in_ranges(first, one_past)
    iou = pair_iou(found.boxes_xywh[rows[detection]], truth.boxes_xywh[truth_rows[candidate]],
                   truth.crowd[truth_rows[candidate]])  # fmt: skip
    enough = iou >= least
    return detection[enough], candidate[enough], iou[enough]


def pairs_in_ranges(first: np.ndarray, one_past: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row with every member of its range.

    Args:
        first: ``(N,)`` int64: where the range of each row begins.
        one_past: ``(N,)`` int64: where it ends.

    Returns:
        ``(P,)`` the rows, ascending, and ``(P,)`` the members.
    """
    number = one_past - first
    rows = np.repeat(np.arange(len(number)), number)
    members = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number - first, number)
    return rows, members


def pair_iou(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU of pairs, in the order of operations of pycocotools, so that the last bit agrees.

    Args:
        boxes: ``(P, 4)`` as (x, y, width, height).
        others: ``(P, 4)``.
        crowd: ``(P,)`` bool: the other is a crowd; the union is then the area of the box.

    Returns:
        ``(P,)`` float64.
    """
    shared = [
        np.minimum(boxes[:, side + 2] + boxes[:, side], others[:, side + 2] + others[:, side])
        - np.maximum(boxes[:, side], others[:, side])
        for side in (0, 1)
    ]
    intersection = np.where((shared[0] > 0) & (shared[1] > 0), shared[0] * shared[1], 0.0)
    area, other_area = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(crowd, area, area + other_area - intersection)
    iou: np.ndarray = np.divide(intersection, union, out=np.zeros_like(union), where=intersection > 0)
    return iou


def _best(possible: np.ndarray, iou: np.ndarray, offsets: np.ndarray, number: np.ndarray) -> np.ndarray:
    """For each detection the position of its possible pair of largest IoU, of equal ones the later; -1 for none."""
    values = np.where(possible, iou[:, None, None], -1.0)
    largest = np.repeat(np.maximum.reduceat(values, offsets, axis=0), number, axis=0)
    positions = np.where(possible & (values == largest), np.arange(len(iou), dtype=np.int32)[:, None, None], -1)
    last: np.ndarray = np.maximum.reduceat(positions, offsets, axis=0)
    return last
