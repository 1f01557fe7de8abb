"""ResNet-18/34/50/101/152 (He et al. 2015, table 1), cut into conv1..conv4_x and conv5_x.

Names follow the table: conv1 is the 7x7 stem, conv2_x to conv5_x are the stages. The pool between conv1 and
conv2_x belongs to ``ResNetC4``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from detector.config.schema import BackboneConfig
from detector.models.folding import folded, folds, layout_of, working_dtype

STRIDE = 16
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_WIDTHS = (64, 128, 256, 512)
_GROUPS = 32

Norm = Callable[[int], nn.Module]


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(_GROUPS, channels)


_NORMS: dict[str, Norm] = {
    "frozen_batch": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "sync_batch": nn.SyncBatchNorm,
    "group": _group_norm,
}


class ConvNorm(nn.Module):
    """A convolution without bias, and its norm.

    Attributes:
        accelerated: fold the norm into the convolution where it is a fixed affine map.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = norm(out_channels)
        self.accelerated = True
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        if not (self.accelerated and folds(self.norm)):
            return self.norm(self.conv(features))  # type: ignore[no-any-return]
        dtype = working_dtype(features)
        weight, bias = folded(self.conv, self.norm, dtype, layout_of(features))
        conv = self.conv
        return F.conv2d(features.to(dtype), weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def linear_part(self, features: Tensor) -> Tensor:
        """Of a 1x1 convolution all but stride and bias: ``(B, C, H, W)`` to ``(B, C', H, W)``.

        It treats every position alike, as pooling treats every channel alike: the two may change places.
        """
        if not folds(self.norm):
            return F.conv2d(features, self.conv.weight)
        dtype = working_dtype(features)
        return F.conv2d(features.to(dtype), folded(self.conv, self.norm, dtype)[0])

    def remainder(self, features: Tensor) -> Tensor:
        """What ``linear_part`` has left out, apart from the stride: bias or norm."""
        if not folds(self.norm):
            bias = self.conv.bias
            return self.norm(features if bias is None else features + bias[:, None, None])  # type: ignore[no-any-return]
        return features + folded(self.conv, self.norm, features.dtype)[1][:, None, None]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, width, 3, stride, norm)
        self.conv2 = ConvNorm(width, width, 3, 1, norm)
        _calm(self.conv2.norm)
        self.shortcut = _shortcut(in_channels, width, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        residual = self.conv2(self.relu(self.conv1(features)))
        return self.relu(residual.add_(self.shortcut(features)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (figure 5, right).

    The stage's stride lies in the first 1x1 convolution (the paper, caffe) or in the 3x3 (torchvision).
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, norm: Norm, stride_in_1x1: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, width, 1, first, norm)
        self.conv2 = ConvNorm(width, width, 3, second, norm)
        self.conv3 = ConvNorm(width, width * self.expansion, 1, 1, norm)
        _calm(self.conv3.norm)
        self.shortcut = _shortcut(in_channels, width * self.expansion, stride, norm)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        return self.join(self.relu(self.conv1(features)), self.shortcut(features))

    def join(self, hidden: Tensor, shortcut: Tensor) -> Tensor:
        """All that follows the first 1x1 convolution and the shortcut's."""
        residual = self.conv3(self.relu(self.conv2(hidden)))
        return self.relu(residual.add_(shortcut))  # type: ignore[no-any-return]


def _calm(norm: nn.Module) -> None:
    """Weakens the residual of a new block whose norm cannot learn to.

    A frozen batch norm without weights normalises nothing: through the 33 blocks of ResNet-101 activations would double
    again and again until the loss is infinite.
    """
    if isinstance(norm, FrozenBatchNorm2d):
        norm.weight.fill_(0.2)


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Module:
    """Identity where the shapes agree, else a 1x1 projection (option B of section 3.3)."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride, norm)


def _stage(config: BackboneConfig, number: int) -> nn.Sequential:
    """conv2_x .. conv5_x; all but conv2_x halve the resolution in their first block."""
    norm = _NORMS[config.norm]
    block: Callable[..., nn.Module] = BasicBlock
    if config.depth >= 50:
        block = partial(Bottleneck, stride_in_1x1=config.stride_in_1x1)
    width, count = _WIDTHS[number - 2], _BLOCKS[config.depth][number - 2]
    in_channels = _WIDTHS[0] if number == 2 else stage_channels(config.depth, number - 1)
    blocks = [block(in_channels, width, 1 if number == 2 else 2, norm)]
    blocks += [block(stage_channels(config.depth, number), width, 1, norm) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


def stage_channels(depth: int, number: int) -> int:
    """Output channels of stage conv{number}_x."""
    return _WIDTHS[number - 2] * (4 if depth >= 50 else 1)


class ResNetC4(nn.Module):
    """conv1 to conv4_x: ``(B, 3, H, W)`` pixels to ``(B, C, H/16, W/16)`` features, each side rounded up.

    C is 1024, or 256 for depths 18 and 34.

    Attributes:
        accelerated: lay features out with the channels of a place together, which convolutions are fastest with.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.accelerated = True
        self.conv1 = ConvNorm(3, _WIDTHS[0], 7, 2, _NORMS[config.norm])
        self.conv2_x = _stage(config, 2)
        self.conv3_x = _stage(config, 3)
        self.conv4_x = _stage(config, 4)
        self.out_channels = stage_channels(config.depth, 4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self._frozen = [self.conv1, self.conv2_x, self.conv3_x, self.conv4_x][: config.frozen_stages]
        for stage in self._frozen:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNetC4:
        """As in any module, but the batch norms of frozen stages keep their running statistics."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels to C4 features."""
        if self.accelerated:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = self.pool(self.relu(self.conv1(pixels)))
        return self.conv4_x(self.conv3_x(self.conv2_x(features)))  # type: ignore[no-any-return]


def conv5_x(config: BackboneConfig) -> nn.Sequential:
    """The last stage, which C4 runs on every region: ``(N, C, S, S)`` to ``(N, C', S/2, S/2)``, rounded up."""
    return _stage(config, 5)
