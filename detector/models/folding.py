"""Batch norms of fixed statistics, folded into the convolutions before them (Faster R-CNN trains with such alone).

``norm(conv(x))`` with scale s and shift t in each channel is a convolution with the weight times s and the bias t: one
pass over the activations less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torchvision.ops import FrozenBatchNorm2d


class Norm(Protocol):
    """A batch norm, whose statistics are read."""

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float


def folds(norm: nn.Module) -> TypeGuard[Norm]:
    """Whether a norm is a fixed affine map in each channel: it does not look at the batch."""
    # No subclass: it may compute something else.
    if type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm):
        return not norm.training and norm.running_var is not None
    return type(norm) is FrozenBatchNorm2d


def working_dtype(features: Tensor) -> torch.dtype:
    """The precision that a convolution of these features computes in, under autocast or not."""
    kind = features.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return features.dtype


def layout_of(features: Tensor) -> torch.memory_format:
    """How features lie in memory; a convolution is fastest if its weight lies likewise."""
    in_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if in_last else torch.contiguous_format


def folded(
    conv: nn.Conv2d, norm: Norm, dtype: torch.dtype, layout: torch.memory_format = torch.channels_last
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution that does the work of both.

    Where a gradient is asked for, they are made anew as a function of the parameters, so that it reaches these. Else
    they are kept until a source changes or an optimiser has stepped; only writing through ``.data`` goes unnoticed
    until the module is put into another mode.

    Args:
        conv: the convolution.
        norm: of which ``folds`` is true.
        dtype: of the results.
        layout: of the weight.

    Returns:
        ``(C', C, k, k)`` and ``(C',)``.
    """
    affine = norm.weight, norm.bias, norm.running_mean, norm.running_var
    # A batch norm in training writes its statistics without a new version of them, but counts the batches with one.
    count = getattr(norm, "num_batches_tracked", None)
    sources = [value for value in (conv.weight, conv.bias, *affine, count) if isinstance(value, Tensor)]
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in sources)
    # Tensors of inference mode have no versions.
    if wanted or torch.compiler.is_compiling() or any(value.is_inference() for value in sources):
        return _fold(conv, norm, dtype, layout)
    states = [(value.data_ptr(), value.device, value._version) for value in sources]
    versions = (norm.eps, layout, *states)
    kept = _kept.get(conv)
    if (
        kept is None
        or kept.versions != versions
        or kept.weight.dtype != dtype
        or any(one is not other for one, other in zip(kept.sources, sources, strict=True))
    ):
        with torch.inference_mode(False), torch.no_grad():
            data = [value.detach() for value in sources]
            kept = _kept[conv] = _Kept(sources, data, versions, *_fold(conv, norm, dtype, layout))
    return kept.weight, kept.bias


def forget_folded(model: nn.Module) -> None:
    """Frees the folded weights of a network."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            _kept.pop(module, None)


@dataclass(frozen=True)
class _Kept:
    sources: list[Tensor]
    data: list[Tensor]  # so that no new memory gets the address of the old
    versions: tuple[object, ...]
    weight: Tensor
    bias: Tensor


# Beside the modules and not in them: nothing of this is copied, saved or sent with a network.
_kept: WeakKeyDictionary[nn.Conv2d, _Kept] = WeakKeyDictionary()

# Fused optimisers write weights without a new version of them.
register_optimizer_step_post_hook(lambda *_: _kept.clear())


def _fold(conv: nn.Conv2d, norm: Norm, dtype: torch.dtype, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = (-norm.running_mean if conv.bias is None else conv.bias - norm.running_mean) * scale
    bias = bias if norm.bias is None else bias + norm.bias
    weight = conv.weight * scale[:, None, None, None]
    return weight.to(dtype, memory_format=layout), bias.to(dtype)
