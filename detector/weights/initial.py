"""Weights that a training starts from."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from detector.config.schema import ModelConfig
from detector.errors import WeightsError, quote
from detector.weights.bridge import refuse_other_networks, taken_from_classifier
from detector.weights.layouts import OWN_CLASSIFIER, TORCHVISION, Layout
from detector.weights.load import CLASS_LAYERS, Weights, fill, read_weights, refuse_contradictions
from detector.weights.published import RESNETS, published
from detector.weights.report import LoadReport

_log = logging.getLogger(__name__)

TORCHVISION_PREFIX = "torchvision:"


def load_initial(model: nn.Module, config: ModelConfig, class_names: Sequence[str] | None = None) -> LoadReport | None:
    """Fills a new model with ``model.weights`` for a training.

    What a ResNet alone lacks (the RPN, say) keeps its random values, and so do class layers of another size or for
    other classes.

    Args:
        model: gets them.
        config: its settings.
        class_names: in the order of labels; None takes the class layers of the same number of classes.

    Raises:
        WeightsError: the weights cannot be had, do not fit, or contradict a setting.
    """
    if config.weights is None:
        return None
    if config.weights.startswith(TORCHVISION_PREFIX):
        weights = published_resnet(config)
    else:
        weights = read_weights(config.weights)
        if weights.config is not None:
            refuse_other_networks(weights.source, weights.config.model)
        refuse_contradictions(config, weights)
    weights = without_other_classes(weights, model, class_names)
    report = fill(model, config, weights, renew_classes=True)
    for line in report.lines():
        _log.info("%s", line)
    if weights.layout is OWN_CLASSIFIER and weights.info is not None:
        _log.info("%s", taken_from_classifier(weights.source, weights.info, config, len(report.matched)))
    return report


def without_other_classes(weights: Weights, model: nn.Module, class_names: Sequence[str] | None) -> Weights:
    """The weights without their class layers if the file says that these know other classes, or another order.

    Args:
        weights: the contents of a file.
        model: what is to be filled.
        class_names: in the order of labels; None is as those of the file.
    """
    if weights.info is None or class_names is None or tuple(class_names) == tuple(weights.info.class_names):
        return weights
    layers = {key for key in model.state_dict() if key.startswith(CLASS_LAYERS) and key in weights.tensors}
    if not layers:  # a detector's weights for a classifier, or the other way round
        return weights
    kept = {key: value for key, value in weights.tensors.items() if key not in layers}
    _log.info(
        "%s: is for other classes (%s): its class layers are left out", weights.source,
        quote(", ".join(weights.info.class_names), 60),
    )  # fmt: skip
    return replace(weights, tensors=kept, left_out=frozenset(layers))


def published_resnet(config: ModelConfig) -> Weights:
    """The ResNet that ``model.weights: torchvision:NAME`` names.

    Raises:
        WeightsError: as ``published_weights``, or it is of another depth.
    """
    depth = config.backbone.depth
    named = re.fullmatch(rf"{TORCHVISION_PREFIX}ResNet(\d+)_Weights\.IMAGENET1K_V[12]", str(config.weights))
    if named and int(named[1]) != depth:
        raise WeightsError(f"{config.weights}: model.backbone.depth is {depth}, the weights are of depth {named[1]}")
    return published_weights(config, TORCHVISION, "ResNet", RESNETS)


def published_weights(config: ModelConfig, layout: Layout, family: str, networks: Sequence[str]) -> Weights:
    """What ``model.weights: torchvision:NAME`` names, found to agree with the settings before it is fetched.

    Args:
        config: the settings.
        layout: of the weights.
        family: as of ``published``.
        networks: as of ``published``.

    Raises:
        WeightsError: there are no such weights, they cannot be had, or they contradict a setting.
    """
    source = str(config.weights)
    refuse_contradictions(config, Weights(source, layout, {}))
    return Weights(source, layout, published(source.removeprefix(TORCHVISION_PREFIX), family, networks))
