"""Random numbers as a function of what they are for, so that nothing of them needs to be stored or shared."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Each purpose has streams of its own."""

    ORDER = 0
    TRANSFORM = 1
    AUGMENTATION = 2
    SHAPES = 3


def key_of(purpose: Purpose, seed: int, number: int) -> np.ndarray:
    """``(2,)`` uint64: a different key for every purpose, seed and number below 2**56."""
    return np.array([seed, (int(purpose) << 56) + number], dtype=np.uint64)


def random_stream(purpose: Purpose, seed: int, number: int) -> np.random.Generator:
    """The stream of an epoch, a position or an image."""
    return np.random.Generator(np.random.Philox(key=key_of(purpose, seed, number)))
