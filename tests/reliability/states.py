"""Small training states that can be told apart to the last bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detector.engine.checkpoint import TrainingState


def state_of(iteration: int, numbers: int = 6) -> TrainingState:
    """A state with an average, whose every number depends on the iteration.

    Args:
        iteration: of the state.
        numbers: how many the largest of its tensors has.
    """
    model = {
        "weight": torch.arange(float(numbers)).reshape(2, -1) + iteration,
        "bias": torch.full((3,), 0.1 * iteration),
        "counts": torch.tensor([iteration, 7]),
    }
    average = {name: value * 2 for name, value in model.items()}
    learner = {"optimizer": {"state": {0: {"momentum": model["weight"] / 3}}}, "skipped_in_row": 0}
    return TrainingState(iteration, model, average, learner, {"sum": 0.5 * iteration}, {"processes": 1})


def is_whole(state: TrainingState, numbers: int = 6) -> bool:
    """Whether it is exactly the state of its iteration."""
    return _same(vars(state), vars(state_of(state.iteration, numbers)))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)
