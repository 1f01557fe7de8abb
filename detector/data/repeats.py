"""How often an epoch shows each image, where classes are not equally frequent."""

from __future__ import annotations

import numpy as np

from detector.config.data_schema import DataConfig
from detector.structures import Annotations


def image_repeats(annotations: Annotations, data: DataConfig) -> np.ndarray | None:
    """``(N,)`` float64: how often each image comes in an epoch on average; None for once each.

    Crowds do not count, since they are not trained on.

    Args:
        annotations: of the training set.
        data: ``sampling`` and ``repeat_threshold``.
    """
    if data.sampling == "uniform":
        return None
    pairs = _classes_in_images(annotations)
    if data.sampling == "repeat_factor":
        return _repeat_factors(pairs, len(annotations.image_ids), len(annotations.class_names), data.repeat_threshold)
    return _class_balanced(pairs, len(annotations.image_ids), len(annotations.class_names))


def _classes_in_images(annotations: Annotations) -> np.ndarray:
    """``(P, 2)``: image and class of each pair that occurs."""
    counted = ~annotations.crowd
    pairs = np.stack([annotations.image_index()[counted], annotations.labels[counted]], axis=1)
    return np.unique(pairs, axis=0).reshape(-1, 2)


def _repeat_factors(pairs: np.ndarray, images: int, classes: int, threshold: float) -> np.ndarray:
    """Repeat-factor sampling (Gupta et al. 2019, "LVIS", appendix): the largest max(1, sqrt(t / f)) of its classes."""
    share = np.bincount(pairs[:, 1], minlength=classes) / images
    factors = np.sqrt(threshold / np.maximum(share, 1e-12))
    repeats = np.ones(images)
    np.maximum.at(repeats, pairs[:, 0], factors[pairs[:, 1]])
    return repeats


def _class_balanced(pairs: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Each class in turn, and an image of it at random; images without objects as often as ever."""
    number = np.bincount(pairs[:, 1], minlength=classes)
    repeats = np.zeros(images)
    np.add.at(repeats, pairs[:, 0], 1 / number[pairs[:, 1]])
    empty = repeats == 0
    if not empty.all():
        repeats *= (images - empty.sum()) / np.count_nonzero(number)
    repeats[empty] = 1
    return repeats
