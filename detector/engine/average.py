"""Exponential moving average of the weights: steadier than the last ones, often better by a point."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """The average of a model's weights over its updates (Polyak and Juditsky 1992, in exponential form).

    Args:
        model: what is averaged; the average starts as its copy.
        decay: share of the old average in the new one, such as 0.9998.

    Attributes:
        model: a network with the averaged weights, in evaluation mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, iteration: int) -> None:
        """Takes in the weights after an update.

        Args:
            model: the network in training.
            iteration: updates done; early on the decay is smaller, so that the random start is soon forgotten.
        """
        new_share = 1 - min(self.decay, (1 + iteration) / (10 + iteration))
        averages, values = self.model.state_dict(), model.state_dict()
        for name, average in averages.items():
            if average.is_floating_point():
                average.lerp_(values[name], new_share)
            else:
                average.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes back what ``state_dict`` gave."""
        self.model.load_state_dict(state)
