"""torchvision's Faster R-CNN classes around the same trunk and conv5_x, with the same weights.

The peer is torchvision's all through, but for what would be another network: it gets our anchors (its own are rounded
to whole pixels), an RPN head of our layers, and RoIAlign with ``aligned=True``, which its MultiScaleRoIAlign lacks.
What is left differs in rounding, and in the least side of a box. It pads image sides to multiples of 32. Its losses are
its own: a smooth L1 for the RPN's boxes, and means over the anchors that it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import record_function
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_align

from detector.config.schema import ModelConfig
from detector.models.faster_rcnn import FasterRCNN
from detector.models.resnet import STRIDE, ResNetC4
from detector.models.roi_head import C4Head
from detector.models.rpn import RegionProposalNetwork
from detector.structures import Detections, ImageBatch, Size, Target

PADDED_TO = 32
_LOSSES = {
    "loss_objectness": "loss_objectness",
    "loss_rpn_box_reg": "loss_rpn_box",
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
}


class Peer(nn.Module):
    """Answers as our network does, with torchvision's code.

    Args:
        model: whose layers are used; put to the plain way before.
        config: the model section.
        size: of the images, which it does not resize.
    """

    def __init__(self, model: FasterRCNN, config: ModelConfig, size: Size) -> None:
        super().__init__()
        self.pixel_order = model.pixel_order
        head, rpn = config.roi_head, config.rpn
        self.network = TorchvisionFasterRCNN(
            _Labelled("backbone", _Trunk(model.backbone)),
            min_size=min(size), max_size=max(size), _skip_resize=True, size_divisible=PADDED_TO,
            image_mean=model.pixel_mean.flatten().tolist(), image_std=model.pixel_std.flatten().tolist(),
            rpn_anchor_generator=_anchors(model.rpn), rpn_head=_Labelled("rpn", _RPNHead(model.rpn)),
            rpn_pre_nms_top_n_train=rpn.train_candidates, rpn_pre_nms_top_n_test=rpn.test_candidates,
            rpn_post_nms_top_n_train=rpn.train_proposals, rpn_post_nms_top_n_test=model.rpn.test_proposals,
            rpn_nms_thresh=rpn.nms_iou, rpn_fg_iou_thresh=rpn.foreground_iou, rpn_bg_iou_thresh=rpn.background_iou,
            rpn_batch_size_per_image=rpn.anchors_per_image, rpn_positive_fraction=rpn.foreground_fraction,
            box_roi_pool=_AlignedPool(head.pooled_size, head.sampling_ratio),
            box_head=_Labelled("head", _Vectors(model.roi_head)),
            box_predictor=_Labelled("head", _Predictor(model.roi_head)),
            box_score_thresh=head.score_threshold, box_nms_thresh=head.nms_iou,
            box_detections_per_img=head.detections_per_image, box_fg_iou_thresh=head.foreground_iou,
            box_bg_iou_thresh=head.foreground_iou, box_batch_size_per_image=head.regions_per_image,
            box_positive_fraction=head.foreground_fraction, bbox_reg_weights=head.box_weights,
        )  # fmt: skip
        # Labels around the whole: what their parts do not take is theirs.
        for name, label in (("rpn", "proposals"), ("roi_heads", "post-processing")):
            setattr(self.network, name, _Labelled(label, getattr(self.network, name)))

    def forward(self, images: ImageBatch, targets: Sequence[Target]) -> dict[str, Tensor]:
        """The four losses, under our names."""
        truth = [{"boxes": target.boxes, "labels": target.labels + 1} for target in targets]
        losses = self.network(self._inputs(images), truth)
        return {ours: losses[theirs] for theirs, ours in _LOSSES.items()}

    def detect(self, images: ImageBatch) -> list[Detections]:
        """The detections of each image."""
        found = self.network(self._inputs(images))
        return [Detections(image["boxes"], image["scores"], image["labels"] - 1) for image in found]

    def _inputs(self, images: ImageBatch) -> list[Tensor]:
        pixels = images.pixels.float()
        if self.pixel_order == "bgr":
            pixels = pixels.flip(1)
        return [image[:, : size.height, : size.width] for image, size in zip(pixels, images.sizes, strict=True)]


class _Labelled(nn.Module):
    """A part under its label."""

    def __init__(self, label: str, part: nn.Module) -> None:
        super().__init__()
        self.label = label
        self.part = part
        self.out_channels = getattr(part, "out_channels", None)

    def forward(self, *inputs: Any) -> Any:
        with record_function(self.label):
            return self.part(*inputs)


class _Trunk(nn.Module):
    def __init__(self, backbone: ResNetC4) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_channels = backbone.out_channels

    def forward(self, pixels: Tensor) -> Tensor:
        return self.backbone(pixels)  # type: ignore[no-any-return]


class _RPNHead(nn.Module):
    def __init__(self, rpn: RegionProposalNetwork) -> None:
        super().__init__()
        self.conv, self.objectness, self.deltas = rpn.conv, rpn.objectness, rpn.deltas

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [F.relu(self.conv(each)).float() for each in features]
        with torch.autocast(hidden[0].device.type, enabled=False):
            return [self.objectness(each) for each in hidden], [self.deltas(each) for each in hidden]


def _anchors(rpn: RegionProposalNetwork) -> AnchorGenerator:
    generator = AnchorGenerator(((1,) * len(rpn.cell),), ((1.0,),))  # only their number is read
    generator.cell_anchors = [rpn.cell]
    return generator


class _AlignedPool(MultiScaleRoIAlign):  # type: ignore[misc]
    """Of its base torchvision asks no more than to be there."""

    def __init__(self, side: int, sampling_ratio: int) -> None:
        super().__init__(["0"], side, sampling_ratio)

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        with record_function("pooling"):
            return roi_align(  # type: ignore[no-any-return]
                features["0"].float(), boxes, self.output_size, 1 / STRIDE, self.sampling_ratio, aligned=True
            )


class _Vectors(nn.Module):
    def __init__(self, head: C4Head) -> None:
        super().__init__()
        self.conv5_x = head.conv5_x

    def forward(self, pooled: Tensor) -> Tensor:
        return self.conv5_x(pooled).mean(dim=(2, 3))  # type: ignore[no-any-return]


class _Predictor(nn.Module):
    """The two layers with background first, and with deltas for it."""

    def __init__(self, head: C4Head) -> None:
        super().__init__()
        self.class_layer, self.box_layer = (
            nn.Linear(layer.in_features, outputs)
            for layer, outputs in ((head.class_layer, head.num_classes + 1), (head.box_layer, 4 * head.num_classes + 4))
        )
        with torch.no_grad():
            for own, theirs in ((self.class_layer, head.class_layer), (self.box_layer, head.box_layer)):
                first = theirs.weight[-1:], theirs.bias[-1:]
                if theirs is head.box_layer:
                    first = theirs.weight.new_zeros(4, theirs.in_features), theirs.bias.new_zeros(4)
                own.weight.copy_(torch.cat([first[0], theirs.weight])[: len(own.weight)])
                own.bias.copy_(torch.cat([first[1], theirs.bias])[: len(own.bias)])

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        vectors = vectors.float()
        with torch.autocast(vectors.device.type, enabled=False):
            return self.class_layer(vectors), self.box_layer(vectors)
