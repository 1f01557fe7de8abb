"""The residual networks for small images (He et al. 2015, section 4.2): 6n + 2 layers, such as 20, 56 and 110."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.config.schema import BackboneConfig, ClassifierConfig
from detector.models.blocks import BasicBlock, Block, BlockShape, BlockStyle, ConvNorm, PartlyFrozen, stage
from detector.models.preactivation import NormActivation, PreactivationBasic

_WIDTHS = (16, 32, 64)


class CifarResNet(PartlyFrozen):
    """conv1 to conv4_x: ``(B, 1 or 3, H, W)`` pixels to ``(B, 64, H/4, W/4)`` features, each side rounded up.

    conv1 is a 3x3 convolution; each stage has 2n layers.

    Args:
        config: norm and frozen stages; its depth is of the large networks.
        variant: depth, blocks, shortcuts and input channels.
    """

    def __init__(self, config: BackboneConfig, variant: ClassifierConfig) -> None:
        super().__init__()
        style = BlockStyle.of(config.norm, variant, "padding")
        block: type[Block] = PreactivationBasic if variant.block == "preactivation" else BasicBlock
        count = (variant.depth - 2) // 6
        first, second, third = _WIDTHS
        self.conv1 = ConvNorm(variant.channels, first, 3, 1, style.norm)
        self.conv2_x = nn.Sequential(*stage(block, BlockShape(first, first, 1, first=True), count, style))
        self.conv3_x = nn.Sequential(*stage(block, BlockShape(first, second, 2), count, style))
        self.conv4_x = nn.Sequential(*stage(block, BlockShape(second, third, 2), count, style))
        if variant.block == "preactivation":
            self.conv4_x.append(NormActivation(third, style))
        self.out_channels = third
        self.activation = style.activation()
        self.freeze(config.frozen)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to features."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.activation(self.conv1(pixels))
        return self.conv4_x(self.conv3_x(self.conv2_x(features)))  # type: ignore[no-any-return]
