"""What every network does first: pixels as its weights expect them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Self

from detector.models.folding import forget_folded
from detector.models.trainable import Trainable

# The luma of ITU-R BT.601, as Pillow and OpenCV turn colours into gray.
_LUMA = (0.299, 0.587, 0.114)


class PixelNetwork(Trainable):
    """A network that owns the normalisation of its input.

    Args:
        pixel_order: channel order that the weights expect, "rgb" or "bgr".
        pixel_mean: subtracted, in that order, from values in 0..255.
        pixel_std: divided by.
        channels: 3, or 1 for a network that sees gray.
    """

    def __init__(
        self, pixel_order: str, pixel_mean: Sequence[float], pixel_std: Sequence[float], channels: int = 3
    ) -> None:
        super().__init__()
        self.pixel_order = pixel_order
        self.channels = channels
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, self._in_channels(values), persistent=False)

    pixel_mean: Tensor
    pixel_std: Tensor

    def _in_channels(self, values: Sequence[float]) -> Tensor:
        if self.channels == 1:
            luma = _LUMA if self.pixel_order == "rgb" else _LUMA[::-1]
            values = [sum(weight * value for weight, value in zip(luma, values, strict=True))]
        return torch.tensor(values)[:, None, None]

    def train(self, mode: bool = True) -> Self:
        """As in any module; folded weights are made anew."""
        forget_folded(self)
        return super().train(mode)

    def normalize(self, pixels: Tensor) -> Tensor:
        """RGB values in 0..255, ``(B, 3, H, W)``, as the weights expect them: float32, ``(B, 3 or 1, H, W)``."""
        pixels = pixels.float()
        if self.channels == 1:
            red, green, blue = pixels.unbind(1)
            pixels = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue)[:, None]
        elif self.pixel_order == "bgr":
            pixels = pixels.flip(1)
        return (pixels - self.pixel_mean) / self.pixel_std
