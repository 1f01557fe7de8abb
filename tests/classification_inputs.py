"""Small evaluations of classifiers, scored and analysed by the real code, for the tests of their report."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from detector.evaluation.classification import Answers, judge, score_classes
from detector.evaluation.classification_analysis import Analysis, analyse_classes
from detector.evaluation.report.classification_page import Mistake
from detector.evaluation.score import Metrics
from detector.structures import Annotations


def labelled(labels: Sequence[int], names: Sequence[str]) -> Annotations:
    """The ground truth of a data set with one object an image."""
    images = len(labels)
    return Annotations(
        tuple(f"image {index}" for index in range(images)), tuple(names), tuple(range(len(names))),
        np.arange(images + 1), np.array(labels, dtype=np.int64), np.zeros((images, 4)), np.zeros(images),
        np.zeros(images, dtype=bool), np.zeros(images, dtype=bool),
    )  # fmt: skip


def answers_of(probabilities: Sequence[Sequence[float]], labels: Sequence[int]) -> Answers:
    """Answers from probabilities, which need not sum up to one; an image a row."""
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(probabilities, dtype=np.float64))
    return Answers.of(dict(enumerate(judge(logs, np.array(labels, dtype=np.int64)))))


def evaluate(names: Sequence[str], images: int, sureness: float = 3.0) -> tuple[Metrics, Analysis]:
    """Metrics and analysis of random answers; the surer, the more often they are right."""
    random = np.random.default_rng(0)
    labels = random.integers(0, len(names), images)
    logits = random.normal(0, 1, (images, len(names)))
    logits[np.arange(images), labels] += sureness
    logits[np.arange(images), (labels + 1) % len(names)] += sureness / 2
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    answers = Answers.of(dict(enumerate(judge(logs, labels))))
    truth = labelled(labels.tolist(), names)
    return score_classes(answers, names), analyse_classes(answers, truth)


def mistake(title: str, names: tuple[str, str], size: int = 32, noise: bool = False) -> Mistake:
    """A square picture of one colour, or one of noise, whose file is large."""
    pixels = np.full((size, size, 3), 90, dtype=np.uint8)
    if noise:
        pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return Mistake(title, {}, names, buffer.getvalue(), 0.97, 3)
