"""Faster R-CNN with the C4 split (Ren et al. 2015; He et al. 2015, appendix A).

conv1..conv4_x run once an image and feed both the RPN and the pooling of regions; conv5_x runs on every region.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from detector.models.blocks import ConvNorm
from detector.models.pixels import PixelNetwork
from detector.models.resnet import ResNetC4
from detector.models.roi_head import C4Head
from detector.models.rpn import RegionProposalNetwork, RPNOutput
from detector.structures import Detections, ImageBatch, Target


class FasterRCNN(PixelNetwork):
    """The whole detector.

    Images of different sizes go through the convolutions apart, images of equal size together: padding would
    leak into the borders of the smaller ones. So losses and detections of an image never depend on the others.

    Args:
        backbone: conv1..conv4_x.
        rpn: proposes regions.
        roi_head: classifies and refines them.
        pixel_order: channel order that the weights expect, "rgb" or "bgr".
        pixel_mean: subtracted, in that order, from values in 0..255.
        pixel_std: divided by.
    """

    losses = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")

    def __init__(
        self,
        backbone: ResNetC4,
        rpn: RegionProposalNetwork,
        roi_head: C4Head,
        pixel_order: str,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(pixel_order, pixel_mean, pixel_std)
        self.backbone = backbone
        self.rpn = rpn
        self.roi_head = roi_head
        self.num_classes = roi_head.num_classes

    @property
    def body(self) -> tuple[nn.Module, ...]:
        """conv1 to conv5_x, which pretrained weights fill."""
        return self.backbone, self.roi_head.conv5_x

    def accelerate(self, wanted: bool) -> None:
        """Chooses between the fast way, which a new network takes, and the plain one, which defines the numbers.

        They agree up to rounding.
        """
        for module in self.modules():
            if isinstance(module, ConvNorm | ResNetC4 | C4Head):
                module.accelerated = wanted

    def forward(self, images: ImageBatch, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The four losses of a batch: loss_objectness, loss_rpn_box, loss_class, loss_box.

        Args:
            images: B images.
            targets: B targets, in the pixels of ``images``.
        """
        features, outputs = self.features(images)
        losses = self.rpn.losses(outputs, targets)
        with record_function("proposals"):
            regions = [
                self.roi_head.sample(self.rpn.propose(output), target)
                for output, target in zip(outputs, targets, strict=True)
            ]
        return losses | self.roi_head.losses(features, regions)

    @torch.no_grad()
    def detect(self, images: ImageBatch) -> list[Detections]:
        """The detections of each image, best first, in the pixels of ``images``."""
        features, outputs = self.features(images)
        with record_function("proposals"):
            proposals = [self.rpn.propose(output) for output in outputs]
        return self.roi_head.detect(features, proposals, images.sizes)

    def features(self, images: ImageBatch) -> tuple[list[Tensor], list[RPNOutput]]:
        """C4 features ``(C, H, W)`` and RPN outputs, one an image, in the order of the batch."""
        found: dict[int, tuple[Tensor, RPNOutput]] = {}
        for positions, pixels in images.groups():
            # A CPU gains nothing from several images at once, whose features leave its cache.
            together = 1 if pixels.device.type == "cpu" and not self.training else len(positions)
            for start in range(0, len(positions), together):
                chosen = positions[start : start + together]
                with record_function("backbone"):
                    features = self.backbone(self.normalize(pixels[start : start + together]))
                with record_function("rpn"):
                    outputs = self.rpn(features, images.sizes[chosen[0]])
                found.update(zip(chosen, zip(features, outputs, strict=True), strict=True))
        ordered = [found[position] for position in range(len(images))]
        return [features for features, _ in ordered], [output for _, output in ordered]
