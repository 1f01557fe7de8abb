"""What is decided before the first iteration."""

from __future__ import annotations

import logging

import torch

from detector.config.schema import Config
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.models.weights import load_initial

_log = logging.getLogger(__name__)


def build_initial_model(config: Config, num_classes: int, fresh: bool) -> FasterRCNN:
    """The network as a run starts with it.

    Args:
        config: all settings; its seed decides the random weights.
        num_classes: K.
        fresh: take ``model.weights``; a run that goes on has its own.

    Raises:
        WeightsError: ``model.weights`` cannot be had or do not fit.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model, num_classes, config.evaluation)
    backbone = config.model.backbone
    if fresh:
        load_initial(model, config.model)
    if fresh and config.model.weights is None and (backbone.norm == "frozen_batch" or backbone.frozen_stages):
        _log.warning(
            "model.weights is null, but model.backbone.norm is %s and frozen_stages is %d: random layers that never "
            "learn; give weights, or set norm to group and frozen_stages to 0",
            backbone.norm,
            backbone.frozen_stages,
        )
    return model
