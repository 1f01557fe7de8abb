"""Proof that two networks compute the same, stage by stage, on a fixed image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detector.config.schema import Config
from detector.data.classification.transform import classification_views
from detector.data.shapes import ShapesDataset
from detector.data.transforms import test_views
from detector.models.classifier import ClassificationNetwork
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import ImageBatch, Size

_IMAGE = Size(240, 320)


@torch.no_grad()
def stage_outputs(model: FasterRCNN, config: Config) -> dict[str, Tensor]:
    """What each stage gives for the fixed image, a drawn one resized by the configured rule.

    Args:
        model: on the CPU.
        config: for the resize rule.
    """
    image = ShapesDataset(1, 7, _IMAGE, hard=True)[0].image
    batch = ImageBatch.of([test_views(image, config.data.resize, config.evaluation)[0][0]])
    model.eval()
    features = model.backbone(model.normalize(batch.pixels))
    output = model.rpn(features, batch.sizes[0])[0]
    proposals = model.rpn.propose(output)
    logits, deltas = model.roi_head([features[0]], [proposals])
    detections = model.roi_head.detect([features[0]], [proposals], batch.sizes)[0]
    return {
        "c4_features": features,
        "rpn_logits": output.objectness,
        "rpn_deltas": output.deltas,
        "proposals": proposals,
        "class_logits": logits,
        "box_deltas": deltas,
        "boxes": detections.boxes,
    }


@torch.no_grad()
def class_outputs(model: ClassificationNetwork, config: Config) -> dict[str, Tensor]:
    """As ``stage_outputs``, of a classifier: its logits alone."""
    image = ShapesDataset(1, 7, _IMAGE, hard=True)[0].image
    return {"class_logits": model.eval().classify(ImageBatch.of([classification_views(image, config)[0][0]]))}


def compare(before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Any]:
    """The largest absolute difference of each stage, with its largest value for scale; None if the shapes differ."""
    return {
        stage: {
            "largest_difference": _difference(value, after[stage]),
            "largest_value": float(value.abs().max()) if value.numel() else 0.0,
            "shape": list(value.shape),
        }
        for stage, value in before.items()
        if stage in after
    }


def _difference(one: Tensor, other: Tensor) -> float | None:
    if one.shape != other.shape:
        return None
    return float((one - other).abs().max()) if one.numel() else 0.0
