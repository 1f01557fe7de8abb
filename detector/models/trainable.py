"""What the training asks of a network."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from detector.structures import ImageBatch, Target


class Trainable(nn.Module):
    """A network that computes its own losses.

    Attributes:
        losses: names of the losses, whose sum is trained on.
        measures: names of further numbers that are only logged.
        num_classes: K.
    """

    losses: tuple[str, ...]
    measures: tuple[str, ...] = ()
    num_classes: int

    @property
    @abstractmethod
    def body(self) -> tuple[nn.Module, ...]:
        """The modules that pretrained weights fill, such as conv1 to conv5_x; ``training.body_rate`` is theirs."""

    @abstractmethod
    def forward(self, images: ImageBatch, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses and measures of a batch, scalars by name.

        Args:
            images: B images.
            targets: B targets, in the pixels of ``images``.
        """
