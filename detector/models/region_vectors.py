"""One vector a region: pooling, conv5_x, average (He et al. 2015, appendix A); plainly, and faster.

Shape letters: N regions of all images, C channels of the features, C' of conv5_x, P cells of all maps together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from detector.config.schema import RoIHeadConfig
from detector.models.blocks import Bottleneck, ConvNorm
from detector.models.resnet import STRIDE
from detector.ops.gather import Taps, bin_taps, gather
from detector.ops.roi_align import pool_regions
from detector.structures import Size

# Pooled bins at once where no gradient needs them all, 64 regions of 14 x 14 or 348 of 6 x 6 on a CPU: activations stay
# in its cache, and memory stays bounded.
_BINS, _BINS_ON_GPU = 64 * 14**2, 1024 * 14**2

# Below this side of pooled regions, conv5_x runs on maps of 4 x 4 cells or fewer, where 3x3 convolutions are slower on
# channels_last.
_SMALL = 10


def plain_vectors(
    conv5_x: nn.Sequential, features: Sequence[Tensor], regions: Sequence[Tensor], config: RoIHeadConfig
) -> Tensor:
    """As the paper has it: pool every region, run conv5_x on it, average.

    Args:
        conv5_x: the last stage.
        features: a ``(C, H, W)`` map for each image.
        regions: boxes for each image, in pixels.
        config: side and sampling of the pooled regions.

    Returns:
        ``(N, C')``.
    """
    with record_function("pooling"):
        pooled = pool_regions(features, regions, STRIDE, config.pooled_size, config.sampling_ratio)
    return conv5_x(pooled).mean(dim=(2, 3))  # type: ignore[no-any-return]


def fast_vectors(
    conv5_x: nn.Sequential, features: Sequence[Tensor], regions: Sequence[Tensor], config: RoIHeadConfig
) -> Tensor:
    """Equals ``plain_vectors`` up to rounding, and takes its arguments.

    The 1x1 convolutions that open a stage of bottlenecks mix the channels of one place; RoIAlign mixes the places of
    one channel. So they change places: the convolutions run once on the maps, which all regions share, and what they
    yield is pooled. Bins that a stride skips are not made.
    """
    cells = torch.cat([each.permute(1, 2, 0).flatten(0, 1) for each in features])
    # A batch norm in training looks at all regions, too.
    parts = _parts(features, regions, config, together=torch.is_grad_enabled() or conv5_x.training)
    first = conv5_x[0]
    if isinstance(first, Bottleneck) and isinstance(first.shortcut, ConvNorm):
        outputs = _convolve_then_pool(conv5_x, first, first.shortcut, cells, parts)
    else:
        outputs = (conv5_x(*part.pool([cells], [1])) for part in parts)
    return torch.cat([output.float().mean(dim=(2, 3)) for output in outputs])


def _convolve_then_pool(
    conv5_x: nn.Sequential, first: Bottleneck, shortcut: ConvNorm, cells: Tensor, parts: Iterator[_Part]
) -> Iterator[Tensor]:
    # A map of one column: convolutions are faster than matrix products.
    column = cells.t()[None, :, :, None]
    layers = first.conv1, shortcut
    maps = [layer.linear_part(column)[0, :, :, 0].t() for layer in layers]
    strides = [layer.conv.stride[0] for layer in layers]
    for part in parts:
        pooled = part.pool(maps, strides)
        hidden, side = (layer.remainder(each) for layer, each in zip(layers, pooled, strict=True))
        yield conv5_x[1:](first.join(first.relu(hidden), side))


@dataclass(frozen=True)
class _Image:
    """Regions of one image, the size of its map, and where the map's rows begin."""

    regions: Tensor
    grid: Size
    first_row: int


@dataclass(frozen=True)
class _Part:
    """Regions that are computed at once."""

    images: Sequence[_Image]
    config: RoIHeadConfig

    def pool(self, maps: Sequence[Tensor], steps: Sequence[int]) -> list[Tensor]:
        """Of each map, ``(P, C)`` to ``(n, C, side / step, side / step)``, rounded up."""
        side, ratio, on_cpu = self.config.pooled_size, self.config.sampling_ratio, maps[0].device.type == "cpu"
        pooled: list[Tensor] = []
        with record_function("pooling"):
            taps = {
                step: Taps.joined(
                    [
                        bin_taps(one.regions, one.grid, one.first_row, STRIDE, side, ratio, step, compress=on_cpu)
                        for one in self.images
                    ]
                )
                for step in set(steps)
            }
            for rows, step in zip(maps, steps, strict=True):
                bins = len(range(0, side, step))
                cells = gather(rows, taps[step]).view(-1, bins, bins, rows.shape[1]).permute(0, 3, 1, 2)
                pooled.append(cells.contiguous() if side < _SMALL else cells)
        return pooled


def _parts(
    features: Sequence[Tensor], regions: Sequence[Tensor], config: RoIHeadConfig, together: bool
) -> Iterator[_Part]:
    """All regions at once, or a chunk of one image at a time."""
    images, first_row = [], 0
    for each, boxes in zip(features, regions, strict=True):
        images.append(_Image(boxes, Size(*each.shape[1:]), first_row))
        first_row += each[0].numel()
    if together:
        yield _Part(images, config)
        return
    for image in images:
        bins = _BINS if image.regions.device.type == "cpu" else _BINS_ON_GPU
        for boxes in torch.split(image.regions, max(1, bins // config.pooled_size**2)):
            yield _Part([replace(image, regions=boxes)], config)
