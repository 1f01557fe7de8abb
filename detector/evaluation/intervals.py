"""How far the numbers would scatter on other images of the same kind: bootstrap over images (Efron 1979).

Images are drawn with replacement, as many as there are; matches stay, since they never cross images. What an image
holds then counts as often as it was drawn. Two detectors are compared on the same draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import Matches
from detector.evaluation.precision import RECALLS
from detector.structures import Annotations

SAMPLES = 1000
_LEVELS = len(RECALLS) - 1


@dataclass(frozen=True)
class Interval:
    """The range of a number in which 95 of 100 draws lie.

    Attributes:
        low: 2.5 % lie below.
        high: 2.5 % lie above.
    """

    low: float
    high: float


def draw_images(images: int, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """``(samples, images)`` uint8: how often each image is drawn in each sample.

    Args:
        images: of the data set, N.
        samples: how many draws.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    counts = np.empty((samples, images), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(random.integers(0, images, images), minlength=images).clip(max=255)
    return counts


def resampled_ap(truth: Annotations, matches: Matches, ranks: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """AP of each class at each IoU threshold in each sample, over objects of all sizes.

    Args:
        truth: ground truth.
        matches: by COCO's rules, whose first range of areas is all.
        ranks: ``(N,)`` the place of each image in the order of ids.
        draws: ``(S, N)`` from ``draw_images``, by that place.

    Returns:
        ``(S, T, K)`` float64; NaN where a sample has no object of a class.
    """
    thresholds, classes = matches.truth.shape[1], len(truth.class_names)
    result = np.full((len(draws), thresholds, classes), np.nan)
    truth_images = ranks[truth.image_index()]
    for label in range(classes):
        needed = (truth.labels == label) & ~matches.truth_ignored[:, 0]
        if not needed.any():
            continue
        positives = draws[:, truth_images[needed]].sum(axis=1, dtype=np.int64)
        rows = matches.of_class(label)
        order = np.argsort(-matches.scores[rows], kind="stable")
        images = matches.image_rank[rows][order]
        seen = np.cumsum(draws[:, images], axis=1, dtype=np.int32)
        for threshold in range(thresholds):
            ignored = matches.ignored[rows][order][:, threshold, 0]
            true = np.flatnonzero((matches.truth[rows][order][:, threshold, 0] >= 0) & ~ignored)
            result[:, threshold, label] = _ap(draws, images, seen, true, np.flatnonzero(ignored), positives)
    return result


def _ap(
    draws: np.ndarray,
    images: np.ndarray,
    seen: np.ndarray,
    true: np.ndarray,
    ignored: np.ndarray,
    positives: np.ndarray,
) -> np.ndarray:
    """``(S,)`` AP of one class and threshold; precision matters only where a detection is true."""
    if not len(true):
        return np.where(positives > 0, 0.0, np.nan)
    hits = np.cumsum(draws[:, images[true]], axis=1, dtype=np.int32)
    total = seen[:, true]
    if len(ignored):
        skipped = np.cumsum(draws[:, images[ignored]], axis=1, dtype=np.int32)
        before = np.searchsorted(ignored, true)
        total = total - np.where(before > 0, skipped[:, np.maximum(before - 1, 0)], 0)
    precision = hits / np.maximum(total, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = np.nan_to_num(hits / positives[:, None])
    reached = (recall * _LEVELS + 0.5).astype(np.int16)
    reached -= RECALLS[reached] > recall  # the highest level that the recall attains
    levels = np.diff(reached, axis=1, prepend=-1)
    ap: np.ndarray = (envelope * levels).sum(axis=1) / len(RECALLS)
    return np.where(positives > 0, ap, np.nan)


def interval(values: np.ndarray, measured: float | None) -> Interval | None:
    """The middle 95 % of samples, moved so that their mean is the measured number.

    Images that are drawn twice flatter AP a little (a maximum over noisy precisions), so the samples of a poor detector
    lie above its AP; their spread is what is wanted.

    Args:
        values: ``(S,)``; NaN where undefined.
        measured: on all images once.

    Returns:
        The interval; None where hardly any sample defines the number.
    """
    defined = values[~np.isnan(values)]
    if measured is None or len(defined) < len(values) / 2:
        return None
    low, high = np.quantile(defined, [0.025, 0.975]) - defined.mean() + measured
    # Lopsided draws, nearly all of them equal, would leave the number outside.
    return Interval(min(float(low), measured), max(float(high), measured))


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """``(S, T, K)`` to ``(S,)``: the mean of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=(1, 2))
    total = np.where(defined, values, 0.0).sum(axis=(1, 2))
    mean: np.ndarray = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return mean
