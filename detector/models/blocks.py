"""What residual networks are made of (He et al. 2015): convolutions with norms, blocks, shortcuts, stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d
from typing_extensions import Self

from detector.config.schema import ClassifierConfig
from detector.models.folding import folded, folds, layout_of, working_dtype

Norm = Callable[[int], nn.Module]
Shortcut = Literal["padding", "projection"]
_GROUPS = 32


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(_GROUPS if channels >= _GROUPS else channels // 2, channels)


NORMS: dict[str, Norm] = {
    "frozen_batch": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "sync_batch": nn.SyncBatchNorm,
    "group": _group_norm,
}


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """Without bias, padded by half the kernel, with the random weights of He et al. 2015b."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class ConvNorm(nn.Module):
    """A convolution without bias, and its norm.

    Attributes:
        accelerated: fold the norm into the convolution where it is a fixed affine map.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, kernel, stride)
        self.norm = norm(out_channels)
        self.accelerated = True

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


@dataclass(frozen=True)
class BlockShape:
    """The sizes of a block.

    Attributes:
        in_channels: that come in.
        width: channels of its 3x3 convolutions.
        stride: of the whole block.
        first: of the network: what comes in is normalised and activated already.
    """

    in_channels: int
    width: int
    stride: int = 1
    first: bool = False


@dataclass(frozen=True)
class BlockStyle:
    """What the blocks of a network have in common.

    Attributes:
        norm: by its number of channels.
        shortcut: where shapes change; None for blocks without shortcuts.
        stride_in_1x1: of a bottleneck: the stride lies in the first convolution, and not in the second.
        elu: exponential linear units in place of rectified ones.
    """

    norm: Norm
    shortcut: Shortcut | None = "projection"
    stride_in_1x1: bool = True
    elu: bool = False

    @classmethod
    def of(cls, norm: str, variant: ClassifierConfig, shortcut: Shortcut, stride_in_1x1: bool = True) -> BlockStyle:
        """The style that the settings ask for.

        Args:
            norm: by its name in the configuration.
            variant: what they say of blocks, shortcuts and activation.
            shortcut: used where they name none.
            stride_in_1x1: as in the class.
        """
        chosen = None if variant.block == "plain" else variant.shortcut or shortcut
        return cls(NORMS[norm], chosen, stride_in_1x1, variant.activation == "elu")

    def activation(self) -> nn.Module:
        """A new activation, which writes over its input."""
        return nn.ELU(inplace=True) if self.elu else nn.ReLU(inplace=True)


class ZeroPadding(nn.Module):
    """Every stride-th place, and zeros for the new channels (option A of section 3.3): a shortcut without weights."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        kept = features[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.new_channels))


class Block(nn.Module):
    """A few convolutions, mostly around a shortcut: ``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``.

    Attributes:
        expansion: how many times its width a block gives out.
    """

    expansion = 1


class BasicBlock(Block):
    """Two 3x3 convolutions around a shortcut (figure 5, left)."""

    def __init__(self, shape: BlockShape, style: BlockStyle) -> None:
        super().__init__()
        self.conv1 = ConvNorm(shape.in_channels, shape.width, 3, shape.stride, style.norm)
        self.conv2 = ConvNorm(shape.width, shape.width, 3, 1, style.norm)
        self.shortcut = _shortcut(shape, shape.width, style)
        self.relu = nn.ReLU(inplace=True)
        if self.shortcut is not None:
            calm(self.conv2.norm)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        residual = self.conv2(self.relu(self.conv1(features)))
        if self.shortcut is not None:
            residual = residual.add_(self.shortcut(features))
        return self.relu(residual)  # type: ignore[no-any-return]


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (figure 5, right).

    The stage's stride lies in the first 1x1 convolution (the paper, caffe) or in the 3x3 (torchvision).
    """

    expansion = 4

    def __init__(self, shape: BlockShape, style: BlockStyle) -> None:
        super().__init__()
        out_channels = shape.width * self.expansion
        first, second = (shape.stride, 1) if style.stride_in_1x1 else (1, shape.stride)
        self.conv1 = ConvNorm(shape.in_channels, shape.width, 1, first, style.norm)
        self.conv2 = ConvNorm(shape.width, shape.width, 3, second, style.norm)
        self.conv3 = ConvNorm(shape.width, out_channels, 1, 1, style.norm)
        self.shortcut = _shortcut(shape, out_channels, style)
        self.relu = nn.ReLU(inplace=True)
        if self.shortcut is not None:
            calm(self.conv3.norm)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        hidden = self.relu(self.conv1(features))
        return self.join(hidden, None if self.shortcut is None else self.shortcut(features))

    def join(self, hidden: Tensor, shortcut: Tensor | None) -> Tensor:
        """All that follows the first 1x1 convolution and the shortcut's."""
        residual = self.conv3(self.relu(self.conv2(hidden)))
        if shortcut is not None:
            residual = residual.add_(shortcut)
        return self.relu(residual)  # type: ignore[no-any-return]


def calm(norm: nn.Module) -> None:
    """Weakens the residual of a new block whose norm cannot learn to.

    A frozen batch norm without weights normalises nothing: through the 33 blocks of ResNet-101 activations would double
    again and again until the loss is infinite.
    """
    if isinstance(norm, FrozenBatchNorm2d):
        norm.weight.fill_(0.2)


def shortcut_of(
    shape: BlockShape, out_channels: int, kind: Shortcut, projection: Callable[[int, int, int, int], nn.Module]
) -> nn.Module:
    """Identity where the shapes agree, else zeros or a 1x1 projection (options A and B of section 3.3).

    Args:
        shape: of the block.
        out_channels: of the block.
        kind: which of the two.
        projection: makes a convolution from channels in and out, kernel and stride.
    """
    if shape.in_channels == out_channels and shape.stride == 1:
        return nn.Identity()
    if kind == "padding":
        return ZeroPadding(out_channels - shape.in_channels, shape.stride)
    return projection(shape.in_channels, out_channels, 1, shape.stride)


def _shortcut(shape: BlockShape, out_channels: int, style: BlockStyle) -> nn.Module | None:
    if style.shortcut is None:
        return None
    return shortcut_of(shape, out_channels, style.shortcut, partial(ConvNorm, norm=style.norm))


def stage(block: type[Block], shape: BlockShape, count: int, style: BlockStyle) -> list[nn.Module]:
    """Blocks of one width; the first has the given shape, and the others keep what it gives out."""
    following = BlockShape(shape.width * block.expansion, shape.width)
    return [block(shape, style), *(block(following, style) for _ in range(count - 1))]


class PartlyFrozen(nn.Module):
    """A network of which some parts are not trained."""

    _frozen: tuple[nn.Module, ...] = ()

    def freeze(self, stages: tuple[str, ...]) -> None:
        """Those of the named stages that are its own get no gradients."""
        self.keep_still(module for name, module in self.named_children() if name in stages)

    def keep_still(self, modules: Iterable[nn.Module]) -> None:
        """Some of its modules get no gradients."""
        self._frozen = tuple(modules)
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """As in any module, but the batch norms in what is frozen keep their running statistics."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self
