"""Random numbers as a function of what they are for, so that nothing of them needs to be stored or shared."""

from __future__ import annotations

import random
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """Each purpose has streams of its own."""

    ORDER = 0
    TRANSFORM = 1
    AUGMENTATION = 2
    SHAPES = 3
    GLOBAL = 4
    DRAWN = 5


def key_of(purpose: Purpose, seed: int, number: int) -> np.ndarray:
    """``(2,)`` uint64: a different key for every purpose, seed and number below 2**56."""
    return np.array([seed, (int(purpose) << 56) + number], dtype=np.uint64)


def random_stream(purpose: Purpose, seed: int, number: int) -> np.random.Generator:
    """The stream of an epoch, a position or an image."""
    return np.random.Generator(np.random.Philox(key=key_of(purpose, seed, number)))


def seed_global_streams(seed: int, number: int) -> None:
    """Sets the global generators of Python, numpy and torch.

    Nothing here draws from them; a data set, a transform or a layer of a user's own may.

    Args:
        seed: of the run.
        number: what is computed next.
    """
    words = random_stream(Purpose.GLOBAL, seed, number).integers(0, 2**32, 3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002, it is that old stream which shall be set
    torch.manual_seed(int(words[2]))
