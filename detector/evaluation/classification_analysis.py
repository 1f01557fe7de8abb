"""All that is said about a classifier beyond its metrics, as one dictionary: the content of analysis.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from detector.errors import quote
from detector.evaluation.classification import NOTHING, TOP, Answers
from detector.structures import Annotations

_BINS = 10
_WORST = 24
_PAIRS = 20
_CONFUSED_CLASSES = 40
_SHOWN = 10
_NORMAL_95 = 1.959963984540054  # 97.5 % of the normal distribution lie below.

Analysis = dict[str, Any]


def analyse_classes(answers: Answers, truth: Annotations) -> Analysis:
    """Intervals, mistakes, confusion, calibration and the most confident mistakes.

    The table under "confusion" is for a page and sums up all but a few classes; "confusion_counts" is of all classes.

    Args:
        answers: of all images that could be read.
        truth: ground truth of all images, one object an image.

    Returns:
        Plain values that JSON can hold; fractions, None where undefined.
    """
    names = truth.class_names
    images = np.bincount(answers.labels, minlength=len(names))
    pairs = confused_pairs(answers)
    return {
        "intervals": _intervals(answers, images, names),
        "mistakes": _mistakes(pairs, names),
        "confused_pairs": [
            {"class": names[true], "predicted": names[predicted], "images": number, "share": number / int(images[true])}
            for true, predicted, number in pairs[:_PAIRS]
        ],
        "confusion": _confusion(answers, pairs, names),
        "confusion_counts": confusion_counts(answers, names),
        "calibration": calibration(answers),
        "data": {
            "images": len(truth.image_ids),
            "read": len(answers),
            "classes": len(names),
            "classes_without_images": int((images == 0).sum()),
            "fingerprint": truth.fingerprint(),
        },
        "worst_images": _worst(answers, truth),
        "warnings": list(_warnings(answers, truth)),
    }


def wilson_interval(right: int, images: int) -> list[float] | None:
    """The 95 % interval of a share: where it would mostly lie on other images of the same kind (Wilson 1927).

    Args:
        right: images that were classified rightly.
        images: how many there are; None comes of none.
    """
    if not images:
        return None
    share, spread = right / images, _NORMAL_95**2 / images
    middle = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return [max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))]


def confused_pairs(answers: Answers) -> list[tuple[int, int, int]]:
    """(true class, predicted class, images) of all mistakes, the most frequent first."""
    wrong = (answers.predicted != NOTHING) & ~answers.right
    both = np.stack([answers.labels[wrong], answers.predicted[wrong]], axis=1)
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(*pair, number) for pair, number in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)]


def confusion_counts(answers: Answers, names: Sequence[str]) -> list[list[Any]]:
    """All of the confusion matrix that is not zero: [true class, predicted class, images], by label.

    Args:
        answers: the predicted class is None where the network gave no numbers, so that all images are counted.
        names: of the K classes.
    """
    columns = len(names) + 1
    cells, counts = np.unique(answers.labels * columns + answers.predicted + 1, return_counts=True)
    true, predicted = np.divmod(cells, columns)
    predicted_names = [None, *names]
    return [
        [names[row], predicted_names[column], number]
        for row, column, number in zip(true.tolist(), predicted.tolist(), counts.tolist(), strict=True)
    ]


def calibration(answers: Answers) -> list[dict[str, float]]:
    """How often answers of a probability are right: one row a tenth of the probabilities."""
    given = answers.predicted != NOTHING
    probabilities, right = answers.probabilities[given], answers.right[given]
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    return [
        {
            "from": number / _BINS,
            "to": (number + 1) / _BINS,
            "images": int((bins == number).sum()),
            "mean_probability": float(probabilities[bins == number].mean()),
            "right": float(right[bins == number].mean()),
        }
        for number in np.unique(bins).tolist()
    ]


def _intervals(answers: Answers, images: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    right = np.bincount(answers.labels[answers.right], minlength=len(names))
    return {
        "top1": wilson_interval(int((answers.ranks <= 1).sum()), len(answers)),
        "top5": wilson_interval(int((answers.ranks <= min(TOP, len(names))).sum()), len(answers)),
        "per_class": {
            name: wilson_interval(hits, number)
            for name, hits, number in zip(names, right.tolist(), images.tolist(), strict=True)
        },
    }


def _mistakes(pairs: Sequence[tuple[int, int, int]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The class that a class is most often taken for; classes without mistakes are left out."""
    mistakes: dict[str, dict[str, Any]] = {}
    for true, predicted, number in pairs:
        mistakes.setdefault(names[true], {"class": names[predicted], "images": number})
    return mistakes


def _confusion(answers: Answers, pairs: Sequence[tuple[int, int, int]], names: Sequence[str]) -> dict[str, Any]:
    """The table of all classes, or of those with the most mistakes, the others summed up; rows are true classes."""
    mistakes = np.zeros(len(names), dtype=np.int64)
    for true, predicted, number in pairs:
        mistakes[[true, predicted]] += number
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:_CONFUSED_CLASSES])
    titles = [names[label] for label in shown]
    groups = np.full(len(names), len(shown))
    groups[shown] = np.arange(len(shown))
    others = len(names) - len(shown)
    if others:
        titles.append(f"{others} others")
    table = np.zeros((len(titles), len(titles)), dtype=np.int64)
    given = answers.predicted != NOTHING
    np.add.at(table, (groups[answers.labels[given]], groups[answers.predicted[given]]), 1)
    return {"names": titles, "others": others, "table": table.tolist()}


def _worst(answers: Answers, truth: Annotations) -> list[dict[str, Any]]:
    """The mistakes that the network was surest of."""
    wrong = np.flatnonzero((answers.predicted != NOTHING) & ~answers.right)
    order = wrong[np.argsort(-answers.probabilities[wrong], kind="stable")][:_WORST]
    return [
        {
            "index": int(answers.indices[row]),
            "image_id": truth.image_ids[int(answers.indices[row])],
            "class": truth.class_names[answers.labels[row]],
            "predicted": truth.class_names[answers.predicted[row]],
            "probability": float(answers.probabilities[row]),
            "rank": int(answers.ranks[row]),
        }
        for row in order
    ]


def _warnings(answers: Answers, truth: Annotations) -> Iterator[str]:
    """Sentences on what is probably wrong."""
    names, unread = truth.class_names, len(truth.image_ids) - len(answers)
    if unread:
        yield f"{unread} of {len(truth.image_ids)} images cannot be read and are left out of all numbers"
    if not len(answers):
        yield "no image was classified, so no number is defined"
        return
    blank = int((answers.predicted == NOTHING).sum())
    if blank:
        yield (
            f"the network gives no numbers (NaN) on {blank} of {len(answers)} images, which count as wrong: it has "
            "diverged, or its numbers are too large for the precision; start from an earlier checkpoint, or evaluate "
            "with evaluation.precision=fp32"
        )
    true, predicted = (set(column.tolist()) for column in (answers.labels, answers.predicted))
    if len(predicted) == 1 and len(true) > 1 and not blank:
        name = quote(names[predicted.pop()], 40)
        yield f"every image is taken for {name}, whatever it shows: the network tells nothing apart"
    absent = [names[label] for label in range(len(names)) if label not in true]
    if absent:
        more = f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else ""
        shown = ", ".join(quote(name, 24)[1:-1] for name in absent[:_SHOWN])
        yield f"classes without images have no accuracy: {shown}{more}"
