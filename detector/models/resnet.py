"""ResNet-18/34/50/101/152 (He et al. 2015, table 1), cut into conv1..conv4_x and conv5_x.

Names follow the table: conv1 is the 7x7 stem, conv2_x to conv5_x are the stages. The pool between conv1 and
conv2_x belongs to ``ResNetC4``. A classifier may have other blocks than a detector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.config.schema import BackboneConfig, ClassifierConfig
from detector.models.blocks import (
    BasicBlock,
    Block,
    BlockShape,
    BlockStyle,
    Bottleneck,
    ConvNorm,
    PartlyFrozen,
    stage,
)
from detector.models.preactivation import NormActivation, PreactivationBasic, PreactivationBottleneck

STRIDE = 16
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_WIDTHS = (64, 128, 256, 512)
_OF_A_DETECTOR = ClassifierConfig()


def _style(config: BackboneConfig, variant: ClassifierConfig) -> BlockStyle:
    return BlockStyle.of(config.norm, variant, "projection", config.stride_in_1x1)


def _stage(config: BackboneConfig, variant: ClassifierConfig, number: int) -> list[nn.Module]:
    """conv2_x .. conv5_x; all but conv2_x halve the resolution in their first block."""
    deep = config.depth >= 50
    block: type[Block] = Bottleneck if deep else BasicBlock
    if variant.block == "preactivation":
        block = PreactivationBottleneck if deep else PreactivationBasic
    in_channels = _WIDTHS[0] if number == 2 else stage_channels(config.depth, number - 1)
    shape = BlockShape(in_channels, _WIDTHS[number - 2], 1 if number == 2 else 2, first=number == 2)
    return stage(block, shape, _BLOCKS[config.depth][number - 2], _style(config, variant))


def stage_channels(depth: int, number: int) -> int:
    """Output channels of stage conv{number}_x."""
    return _WIDTHS[number - 2] * (4 if depth >= 50 else 1)


class ResNetC4(PartlyFrozen):
    """conv1 to conv4_x: ``(B, 1 or 3, H, W)`` pixels to ``(B, C, H/16, W/16)`` features, each side rounded up.

    C is 1024, or 256 for depths 18 and 34.

    Args:
        config: depth, norm, stride and frozen stages.
        variant: blocks, shortcuts and input channels of a classifier.

    Attributes:
        accelerated: lay features out with the channels of a place together, which convolutions are fastest with.
    """

    def __init__(self, config: BackboneConfig, variant: ClassifierConfig = _OF_A_DETECTOR) -> None:
        super().__init__()
        self.accelerated = True
        style = _style(config, variant)
        self.conv1 = ConvNorm(variant.channels, _WIDTHS[0], 7, 2, style.norm)
        self.conv2_x = nn.Sequential(*_stage(config, variant, 2))
        self.conv3_x = nn.Sequential(*_stage(config, variant, 3))
        self.conv4_x = nn.Sequential(*_stage(config, variant, 4))
        self.out_channels = stage_channels(config.depth, 4)
        self.activation = style.activation()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.freeze(config.frozen)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to C4 features."""
        if self.accelerated:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.pool(self.activation(self.conv1(pixels)))
        return self.conv4_x(self.conv3_x(self.conv2_x(features)))  # type: ignore[no-any-return]


def conv5_x(config: BackboneConfig, variant: ClassifierConfig = _OF_A_DETECTOR) -> nn.Sequential:
    """The last stage, which C4 runs on every region: ``(N, C, S, S)`` to ``(N, C', S/2, S/2)``, rounded up."""
    blocks = nn.Sequential(*_stage(config, variant, 5))
    if variant.block == "preactivation":
        blocks.append(NormActivation(stage_channels(config.depth, 5), _style(config, variant)))
    return blocks
