"""The metrics of a classifier: top-1, top-5, log loss, and the accuracy of each class.

Shape letters: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from detector.evaluation.score import Metrics, short_name

NOTHING = -1
# A single image can raise the mean without bound; torch's binary cross entropy stops at the same number.
LARGEST_LOSS = 100.0
TOP = 5
_SHOWN_CLASSES = 20


class Answer(NamedTuple):
    """What a network says of one image, set against the truth.

    Attributes:
        label: the true class.
        predicted: the class of the largest probability, the first of equal ones; ``NOTHING`` where the network gives
            no numbers.
        probability: of the predicted class, 0..1; NaN where the network gives no numbers.
        rank: the place of the true class, from 1: before it stand the classes of a larger probability, and of those
            of an equal one the classes of a smaller label; ``K + 1`` where the network gives no numbers.
        loss: minus the logarithm of the true class's probability, at most ``LARGEST_LOSS``.
    """

    label: int
    predicted: int
    probability: float
    rank: int
    loss: float


def judge(log_probabilities: np.ndarray, labels: np.ndarray) -> list[Answer]:
    """Sets logarithms of probabilities against the true classes.

    Args:
        log_probabilities: ``(N, K)`` float64. An image with a NaN has no answer, and counts as wrong in every metric.
        labels: ``(N,)`` int64, 0..K-1.
    """
    classes = log_probabilities.shape[1]
    blank = np.isnan(log_probabilities).any(axis=1)
    logs = np.where(blank[:, None], -np.inf, log_probabilities)
    true = np.take_along_axis(logs, labels[:, None], axis=1)
    before = (logs > true) | ((logs == true) & (np.arange(classes) < labels[:, None]))
    predicted = np.where(blank, NOTHING, logs.argmax(axis=1))
    probabilities = np.where(blank, np.nan, np.exp(logs.max(axis=1)))
    ranks = np.where(blank, classes + 1, before.sum(axis=1) + 1)
    # Plus zero, since a certain answer would lose minus zero.
    losses = np.minimum(-true[:, 0], LARGEST_LOSS) + 0.0
    columns = (labels, predicted, probabilities, ranks, losses)
    return [Answer(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


@dataclass(frozen=True)
class Answers:
    """The answers on a whole data set in flat arrays, in the order of its images.

    Attributes:
        indices: ``(N,)`` int64: of the images in the data set.
        labels: ``(N,)`` int64.
        predicted: ``(N,)`` int64.
        probabilities: ``(N,)`` float64.
        ranks: ``(N,)`` int64.
        losses: ``(N,)`` float64.
    """

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> np.ndarray:
        """``(N,)`` bool: the predicted class is the true one."""
        right: np.ndarray = self.labels == self.predicted
        return right

    @classmethod
    def of(cls, found: Mapping[int, Answer]) -> Answers:
        """Joins the answers, given by the images' indices."""
        indices = sorted(found)
        columns = list(zip(*(found[index] for index in indices), strict=True)) or [()] * len(Answer._fields)
        kinds = (np.int64, np.int64, np.float64, np.int64, np.float64)
        return cls(
            np.array(indices, dtype=np.int64),
            *(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)),
        )


def score_classes(answers: Answers, class_names: Sequence[str]) -> Metrics:
    """The content of metrics.json: fractions in 0..1, None where no image defines a number.

    Args:
        answers: of all images that could be read.
        class_names: K names; top-5 is top-K of fewer than five classes.
    """
    images = np.bincount(answers.labels, minlength=len(class_names))
    right = np.bincount(answers.labels[answers.right], minlength=len(class_names))
    return {
        "classification": {
            "top1": _mean(answers.ranks <= 1),
            "top5": _mean(answers.ranks <= min(TOP, len(class_names))),
            "log_loss": _mean(answers.losses),
        },
        "per_class": {
            name: {"images": int(all_), "accuracy": int(hits) / int(all_) if all_ else None}
            for name, all_, hits in zip(class_names, images, right, strict=True)
        },
        "images": len(answers),
    }


def top1(metrics: Metrics) -> float | None:
    """The one number that ranks classifiers.

    Args:
        metrics: the content of metrics.json.
    """
    return metrics["classification"]["top1"]  # type: ignore[no-any-return]


def tells_top5(metrics: Mapping[str, Any]) -> bool:
    """Whether top-5 says anything: of five classes or fewer it is always 1."""
    return len(metrics.get("per_class") or {}) > TOP


def format_classification(metrics: Metrics) -> str:
    """The metrics as a table, accuracies in per cent; of many classes the worst; a dash where a number is undefined."""
    numbers, rows = metrics["classification"], metrics["per_class"]
    images, classes = metrics["images"], len(rows)
    lines = [f"{images} image{'s' * (images != 1)} of {classes} class{'es' * (classes != 1)}", ""]
    titles = {"top-1": _percent(numbers["top1"])}
    if tells_top5(metrics):
        titles["top-5"] = _percent(numbers["top5"])
    titles["log loss"] = "-" if numbers["log_loss"] is None else f"{numbers['log_loss']:.3f}"
    lines += ["  ".join(f"{title:>8}" for title in titles), "  ".join(f"{text:>8}" for text in titles.values()), ""]
    shown = list(rows)
    if classes > _SHOWN_CLASSES:
        shown = sorted(rows, key=lambda name: _or_last(rows[name]["accuracy"]))[:_SHOWN_CLASSES]
        lines.append(f"the {_SHOWN_CLASSES} worst classes")
    width = max([len(short_name(name)) for name in shown] + [5])
    lines.append(f"{'class':<{width}}  {'images':>7}  {'accuracy':>8}")
    for name in shown:
        lines.append(f"{short_name(name):<{width}}  {rows[name]['images']:>7}  {_percent(rows[name]['accuracy']):>8}")
    return "\n".join(lines)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _or_last(accuracy: float | None) -> float:
    return 2.0 if accuracy is None else accuracy


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
