"""The C4 head: conv5_x on every pooled region, then classes and boxes (He et al. 2015, appendix A).

Shape letters: N regions, K classes, S side of a pooled region in cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import record_function
from torchvision.ops import batched_nms, box_iou

from detector.config.schema import BackboneConfig, EvaluationConfig, RoIHeadConfig
from detector.models.blocks import PartlyFrozen
from detector.models.region_vectors import fast_vectors, plain_vectors
from detector.models.resnet import conv5_x, stage_channels
from detector.ops.box_coder import decode_boxes, encode_boxes
from detector.ops.boxes import clip_boxes, usable_boxes
from detector.ops.matching import match_boxes, sample_roles
from detector.ops.voting import vote_boxes
from detector.structures import Detections, Size, Target


@dataclass(frozen=True)
class Regions:
    """Proposals sampled for the head in one image, with what they shall become.

    Attributes:
        boxes: ``(N, 4)``.
        labels: ``(N,)`` in 0..K; K is background.
        truth: ``(N, 4)`` matched ground truth; meaningless for background.
        foreground: so many of the first are no background.
    """

    boxes: Tensor
    labels: Tensor
    truth: Tensor
    foreground: int


@dataclass(frozen=True)
class Candidates:
    """Detections of one image before NMS.

    Attributes:
        boxes: ``(M, 4)``.
        scores: ``(M,)``.
        labels: ``(M,)``.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def joined(self, other: Candidates) -> Candidates:
        """Both together."""
        return Candidates(
            torch.cat([self.boxes, other.boxes]),
            torch.cat([self.scores, other.scores]),
            torch.cat([self.labels, other.labels]),
        )


class C4Head(PartlyFrozen):
    """Pool, conv5_x, average, and two sibling layers: K + 1 class logits and 4K box deltas, background last.

    Args:
        num_classes: K.
        backbone: depth, norm and stride of conv5_x, and whether it is frozen.
        config: pooling, sampling and selection.
        evaluation: box refinement and voting.

    Attributes:
        accelerated: compute the same numbers faster, up to rounding.
    """

    def __init__(
        self, num_classes: int, backbone: BackboneConfig, config: RoIHeadConfig, evaluation: EvaluationConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.evaluation = evaluation
        self.num_classes = num_classes
        self.accelerated = True
        self.conv5_x = conv5_x(backbone)
        channels = stage_channels(backbone.depth, 5)
        self.class_layer = nn.Linear(channels, num_classes + 1)
        self.box_layer = nn.Linear(channels, num_classes * 4)
        nn.init.normal_(self.class_layer.weight, std=0.01)
        nn.init.normal_(self.box_layer.weight, std=0.001)
        nn.init.zeros_(self.class_layer.bias)
        nn.init.zeros_(self.box_layer.bias)
        self.freeze(backbone.frozen)

    def forward(self, features: Sequence[Tensor], regions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Classifies and refines regions.

        Args:
            features: a ``(C, H, W)`` map for each image.
            regions: ``(N, 4)`` boxes for each image.

        Returns:
            ``(sum of N, K + 1)`` class logits and ``(sum of N, K, 4)`` deltas, float32.
        """
        # Other devices may lack what the fast way is made of.
        fast = self.accelerated and features[0].device.type in ("cpu", "cuda")
        vectors_of = fast_vectors if fast else plain_vectors
        with record_function("head"):
            vectors = vectors_of(self.conv5_x, features, regions, self.config).float()
            with torch.autocast(vectors.device.type, enabled=False):
                logits, deltas = self.class_layer(vectors), self.box_layer(vectors)
        return logits, deltas.unflatten(1, (self.num_classes, 4))

    @torch.no_grad()
    def sample(self, proposals: Tensor, target: Target) -> Regions:
        """Chooses regions of one image to learn from; the ground truth itself is among the candidates."""
        config = self.config
        candidates = torch.cat([proposals, target.boxes])
        matches = match_boxes(box_iou(target.boxes, candidates), config.foreground_iou, config.foreground_iou)
        foreground, background = sample_roles(
            matches.role, config.regions_per_image, config.foreground_fraction, target.seed
        )
        sampled = torch.cat([foreground, background])
        labels = torch.full_like(sampled, self.num_classes)
        truth = candidates[sampled]
        labels[: len(foreground)] = target.labels[matches.truth[foreground]]
        truth[: len(foreground)] = target.boxes[matches.truth[foreground]]
        return Regions(candidates[sampled], labels, truth, len(foreground))

    def losses(self, features: Sequence[Tensor], regions: Sequence[Regions]) -> dict[str, Tensor]:
        """The two losses of the head, each divided by the number of sampled regions.

        By all regions, not by the foreground ones: a box counts the same alone or in a crowd. The mean is taken in
        each image and then over images, so that the losses of a batch do not depend on how it is split over
        processes. Where every image yields its full number of regions, as in the recipes, this equals
        detectron2's division by the regions of the whole batch.
        """
        logits, deltas = self(features, [region.boxes for region in regions])
        labels = torch.cat([region.labels for region in regions])
        counts = [len(region.labels) for region in regions]
        scale = torch.cat([logits.new_full((count,), 1 / max(count, 1)) for count in counts]) / len(counts)
        loss_class = (F.cross_entropy(logits, labels, reduction="none") * scale).sum()
        starts = accumulate(counts, initial=0)
        rows = torch.cat(
            [
                torch.arange(start, start + region.foreground, device=labels.device)
                for start, region in zip(starts, regions, strict=False)
            ]
        )
        wanted = encode_boxes(
            torch.cat([region.truth for region in regions])[rows],
            torch.cat([region.boxes for region in regions])[rows],
            self.config.box_weights,
        )
        distance = F.l1_loss(deltas[rows, labels[rows]], wanted, reduction="none").sum(dim=1)
        return {"loss_class": loss_class, "loss_box": (distance * scale[rows]).sum()}

    def detect(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[Detections]:
        """The detections of each image, in the pixels of the network's input.

        With box refinement, every region is pooled once more from its box of the best class, and both rounds together
        go into NMS (He et al. 2015, appendix B; which class's box is pooled, the paper leaves open).
        """
        outputs = self._outputs(features, proposals)
        candidates = self._candidates(outputs, proposals, sizes)
        if self.evaluation.box_refinement:
            best = [self._best_boxes_of(*image) for image in zip(*outputs, proposals, sizes, strict=True)]
            refined = self._candidates(self._outputs(features, best), best, sizes)
            candidates = [one.joined(other) for one, other in zip(candidates, refined, strict=True)]
        with record_function("post-processing"):
            return [self.select(image) for image in candidates]

    def _outputs(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Of each image the scores ``(N, K)``, without background, and the deltas ``(N, K, 4)``."""
        counts = [len(boxes) for boxes in proposals]
        logits, deltas = self(features, proposals)
        return logits.softmax(dim=1)[:, : self.num_classes].split(counts), deltas.split(counts)

    def _candidates(
        self,
        outputs: tuple[Sequence[Tensor], Sequence[Tensor]],
        proposals: Sequence[Tensor],
        sizes: Sequence[Size],
    ) -> list[Candidates]:
        """What reaches the score threshold in each image."""
        with record_function("post-processing"):
            return [self._candidates_of(*image) for image in zip(*outputs, proposals, sizes, strict=True)]

    def _candidates_of(self, scores: Tensor, deltas: Tensor, proposals: Tensor, size: Size) -> Candidates:
        # Only what reaches the threshold is decoded: of 1000 regions and 80 classes that is 1 in 100.
        finite = torch.isfinite(scores).all(dim=1) & torch.isfinite(deltas).all(dim=2).all(dim=1)
        rows, labels = torch.nonzero((scores > self.config.score_threshold) & finite[:, None]).unbind(dim=1)
        boxes = decode_boxes(deltas[rows, labels], proposals[rows], self.config.box_weights)
        chosen = torch.nonzero(torch.isfinite(boxes).all(dim=1)).flatten()
        return Candidates(clip_boxes(boxes[chosen], size), scores[rows[chosen], labels[chosen]], labels[chosen])

    def _best_boxes_of(self, scores: Tensor, deltas: Tensor, proposals: Tensor, size: Size) -> Tensor:
        """Of each region the box of its best class."""
        best = deltas[torch.arange(len(deltas), device=deltas.device), scores.argmax(dim=1)]
        boxes = decode_boxes(best, proposals, self.config.box_weights)
        boxes = clip_boxes(boxes[torch.isfinite(boxes).all(dim=1)], size)
        return boxes[usable_boxes(boxes)]

    def select(self, candidates: Candidates) -> Detections:
        """NMS within each class, and the best of all classes together, without what clipping left no area.

        In this order, as in detectron2: a box without area takes one of the places.
        """
        boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
        kept = batched_nms(boxes, scores, labels, self.config.nms_iou)[: self.config.detections_per_image]
        chosen = boxes[kept]
        if self.evaluation.box_voting:
            chosen = vote_boxes(chosen, labels[kept], boxes, scores, labels)
        return Detections(chosen, scores[kept], labels[kept]).keep(usable_boxes(chosen))
