"""A configuration to a network: the one place that sees every section of the model."""

from __future__ import annotations

from detector.config.schema import EvaluationConfig, ModelConfig
from detector.models.faster_rcnn import FasterRCNN
from detector.models.resnet import STRIDE, ResNetC4
from detector.models.roi_head import C4Head
from detector.models.rpn import RegionProposalNetwork


def build_model(model: ModelConfig, num_classes: int, evaluation: EvaluationConfig) -> FasterRCNN:
    """Builds the network with random weights.

    Args:
        model: all its settings.
        num_classes: K, without background.
        evaluation: for the number of proposals outside training, box refinement and voting.
    """
    backbone = ResNetC4(model.backbone)
    rpn = RegionProposalNetwork(backbone.out_channels, STRIDE, model.anchors, model.rpn, evaluation.proposals)
    roi_head = C4Head(num_classes, model.backbone, model.roi_head, evaluation)
    return FasterRCNN(backbone, rpn, roi_head, model.pixel_order, model.pixel_mean, model.pixel_std)
