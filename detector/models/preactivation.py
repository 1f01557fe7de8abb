"""Residual blocks whose norms and activations come before the convolutions (He et al. 2016, figure 4e).

Nothing follows the sum of residual and shortcut, so that identities carry features and gradients unchanged through a
whole stage. Around the network (section 3.3): the norm and the activation that follow conv1 are those of its first
block, and one more pair ends its last stage.
"""

from __future__ import annotations

from torch import Tensor, nn

from detector.models.blocks import Block, BlockShape, BlockStyle, calm, convolution, shortcut_of


class NormActivation(nn.Module):
    """A norm, and its activation."""

    def __init__(self, channels: int, style: BlockStyle) -> None:
        super().__init__()
        self.norm = style.norm(channels)
        self.activation = style.activation()

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        return self.activation(self.norm(features))  # type: ignore[no-any-return]


class NormConv(nn.Module):
    """A norm, its activation, and a convolution without bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, style: BlockStyle) -> None:
        super().__init__()
        self.norm = style.norm(in_channels)
        self.activation = style.activation()
        self.conv = convolution(in_channels, out_channels, kernel, stride)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        return self.conv(self.activation(self.norm(features)))  # type: ignore[no-any-return]


class PreactivationBlock(Block):
    """What both kinds have in common.

    A projection sees what the residual sees, as in the authors' code; identity and zero padding see what came in.
    """

    def __init__(self, shape: BlockShape, style: BlockStyle) -> None:
        super().__init__()
        assert style.shortcut is not None
        # Before the first block, conv1 has its norm and activation.
        self.start = nn.Identity() if shape.first else NormActivation(shape.in_channels, style)
        first, others = self._layers(shape, style)
        self.residual = nn.Sequential(first, *others)
        calm(others[-1].norm)
        self.shortcut = shortcut_of(shape, shape.width * self.expansion, style.shortcut, convolution)

    def _layers(self, shape: BlockShape, style: BlockStyle) -> tuple[nn.Conv2d, list[NormConv]]:
        """The convolutions, each but the first with the norm and the activation before it."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``, of any sign."""
        started = self.start(features)
        shortcut = self.shortcut(started if isinstance(self.shortcut, nn.Conv2d) else features)
        return self.residual(started).add_(shortcut)  # type: ignore[no-any-return]


class PreactivationBasic(PreactivationBlock):
    """Two 3x3 convolutions."""

    def _layers(self, shape: BlockShape, style: BlockStyle) -> tuple[nn.Conv2d, list[NormConv]]:
        width = shape.width
        return convolution(shape.in_channels, width, 3, shape.stride), [NormConv(width, width, 3, 1, style)]


class PreactivationBottleneck(PreactivationBlock):
    """1x1, 3x3 and 1x1 convolutions; the stride lies where it lies in a ``Bottleneck``."""

    expansion = 4

    def _layers(self, shape: BlockShape, style: BlockStyle) -> tuple[nn.Conv2d, list[NormConv]]:
        width = shape.width
        first, second = (shape.stride, 1) if style.stride_in_1x1 else (1, shape.stride)
        return convolution(shape.in_channels, width, 1, first), [
            NormConv(width, width, 3, second, style),
            NormConv(width, width * self.expansion, 1, 1, style),
        ]
