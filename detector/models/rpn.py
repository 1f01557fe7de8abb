"""Region proposal network (Faster R-CNN, section 3.1).

Shape letters: A anchors a cell, R = H * W * A anchors of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from detector.config.schema import AnchorConfig, RPNConfig
from detector.ops.anchors import cell_anchors, grid_anchors
from detector.ops.box_coder import decode_boxes, encode_boxes
from detector.ops.boxes import clip_boxes, usable_boxes
from detector.ops.matching import match_boxes, sample_roles
from detector.ops.suppression import nms_until
from detector.structures import Size, Target


@dataclass(frozen=True)
class RPNOutput:
    """What the RPN says of one image.

    Attributes:
        objectness: ``(R,)`` logits, float32, cell by cell.
        deltas: ``(R, 4)``, float32.
        anchors: ``(R, 4)`` boxes in pixels.
        size: of the image.
    """

    objectness: Tensor
    deltas: Tensor
    anchors: Tensor
    size: Size


class RegionProposalNetwork(nn.Module):
    """A 3x3 convolution, then two 1x1 layers: objectness and deltas of each anchor.

    Args:
        in_channels: of the features.
        stride: pixels a cell of the features.
        anchors: sizes and aspect ratios.
        config: matching, sampling and selection.
        test_proposals: proposals kept after NMS outside training.
    """

    def __init__(
        self, in_channels: int, stride: int, anchors: AnchorConfig, config: RPNConfig, test_proposals: int
    ) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        self.test_proposals = test_proposals
        self.register_buffer("cell", cell_anchors(anchors.sizes, anchors.aspect_ratios), persistent=False)
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.objectness = nn.Conv2d(in_channels, len(self.cell), 1)
        self.deltas = nn.Conv2d(in_channels, len(self.cell) * 4, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    cell: Tensor

    def forward(self, features: Tensor, size: Size) -> list[RPNOutput]:
        """Scores every anchor of images of one size.

        Args:
            features: ``(B, C, H, W)``.
            size: of each of the images, in pixels.
        """
        hidden = F.relu(self.conv(features)).float()
        with torch.autocast(features.device.type, enabled=False):
            objectness, deltas = self.objectness(hidden), self.deltas(hidden)
        # (B, A, H, W) and (B, A * 4, H, W) to one row an anchor, in the order of grid_anchors.
        objectness = objectness.permute(0, 2, 3, 1).flatten(1)
        deltas = deltas.permute(0, 2, 3, 1).reshape(len(features), -1, 4)
        anchors = grid_anchors(self.cell, Size(*features.shape[-2:]), self.stride)
        return [RPNOutput(*rows, anchors, size) for rows in zip(objectness, deltas, strict=True)]

    @torch.no_grad()
    def propose(self, output: RPNOutput) -> Tensor:
        """The best boxes of an image after NMS: ``(N, 4)``, best first, inside the image, none of them empty."""
        config = self.config
        candidates = config.train_candidates if self.training else config.test_candidates
        wanted = config.train_proposals if self.training else self.test_proposals
        scores, order = output.objectness.topk(min(candidates, len(output.objectness)))
        boxes = decode_boxes(output.deltas[order], output.anchors[order])
        # Before clipping, which makes a border of infinity.
        finite = torch.isfinite(scores) & torch.isfinite(boxes).all(dim=1)
        boxes = clip_boxes(boxes, output.size)
        chosen = torch.nonzero(finite & usable_boxes(boxes)).flatten()
        boxes, scores = boxes[chosen], scores[chosen]
        return boxes[nms_until(boxes, scores, config.nms_iou, wanted)]

    def losses(self, outputs: Sequence[RPNOutput], targets: Sequence[Target]) -> dict[str, Tensor]:
        """The two losses of the RPN, each divided by the number of sampled anchors, as in the paper's equation 1.

        By the number asked for, not the one found: an anchor counts the same in any image.
        """
        both = [self._losses_of(output, target) for output, target in zip(outputs, targets, strict=True)]
        scale = 1 / (self.config.anchors_per_image * len(both))
        return {
            "loss_objectness": torch.stack([objectness for objectness, _ in both]).sum() * scale,
            "loss_rpn_box": torch.stack([box for _, box in both]).sum() * scale,
        }

    def _losses_of(self, output: RPNOutput, target: Target) -> tuple[Tensor, Tensor]:
        config = self.config
        matches = match_boxes(
            box_iou(target.boxes, output.anchors), config.foreground_iou, config.background_iou, claim_best=True
        )
        foreground, background = sample_roles(
            matches.role, config.anchors_per_image, config.foreground_fraction, target.seed
        )
        sampled = torch.cat([foreground, background])
        wanted = torch.zeros_like(sampled, dtype=torch.float32)
        wanted[: len(foreground)] = 1
        loss_objectness = F.binary_cross_entropy_with_logits(output.objectness[sampled], wanted, reduction="sum")
        truth = target.boxes[matches.truth[foreground]]
        deltas = encode_boxes(truth, output.anchors[foreground])
        return loss_objectness, F.l1_loss(output.deltas[foreground], deltas, reduction="sum")
