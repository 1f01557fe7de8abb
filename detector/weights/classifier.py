"""Weights into a classifier: published ones, a detector's, or another classifier's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from detector.config.schema import ModelConfig
from detector.errors import WeightsError
from detector.weights.initial import (
    TORCHVISION_PREFIX,
    published_resnet,
    published_weights,
    without_other_classes,
)
from detector.weights.layouts import LAYOUTS, OWN_CLASSIFIER, TORCHVISION, Conventions, Layout, detector_key
from detector.weights.load import CLASS_LAYERS, Weights, fill, read_weights, refuse_contradictions
from detector.weights.report import LoadReport

_log = logging.getLogger(__name__)


def _network(name: str, *marks: str, conventions: Conventions | None = TORCHVISION.conventions) -> Layout:
    return Layout(TORCHVISION_PREFIX + name, marks, ((r"^network\.", ""),), conventions)


# torchvision turns the pixels of these two from its usual mean and std to -1 .. 1 (``transform_input``).
_MINUS_ONE_TO_ONE = Conventions("rgb", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5), stride_in_1x1=False)

# The layouts of the classic networks by model.classifier.network, which is their name.
NETWORKS = {
    layout.name: layout
    for layout in (
        _network("alexnet", "features.3.weight", "features.6.weight", "features.10.weight"),
        _network("vgg16", "features.2.weight", "features.17.weight", "features.28.weight"),
        _network("googlenet", "inception3a.branch1.conv.weight", conventions=_MINUS_ONE_TO_ONE),
        _network("inception_v3", "Mixed_5b.branch1x1.conv.weight", conventions=_MINUS_ONE_TO_ONE),
    )
}


def load_classifier_initial(
    model: nn.Module, config: ModelConfig, class_names: Sequence[str] | None = None
) -> LoadReport | None:
    """Fills a new classifier with ``model.weights`` for a training.

    Class layers of another size or for other classes keep their random values. A network that sees gray gets the
    weights of the first convolution summed over the colours.

    Args:
        model: gets them.
        config: its settings.
        class_names: in the order of labels; None takes the class layer of the same number of classes.

    Raises:
        WeightsError: the weights cannot be had, do not fit, or contradict a setting.
    """
    if config.weights is None:
        return None
    if config.weights.startswith(TORCHVISION_PREFIX):
        weights = _published(config)
    else:
        weights = read_for_classifier(config.weights, config)
        refuse_contradictions(config, weights)
    weights = without_other_classes(weights, model, class_names)
    in_gray = _in_gray(model, weights)
    report = fill(model, config, in_gray, renew_classes=True)
    for line in report.lines():
        _log.info("%s", line)
    if in_gray is not weights:
        _log.info("%s: the weights of the first convolution are summed over the three colours", weights.source)
    if any(key.startswith(CLASS_LAYERS) for key in report.matched):
        _log.info("%s: all layers taken, with the class layer", weights.source)
    else:
        _log.info("%s: all layers taken but the class layer, which starts from random values", weights.source)
    return report


def read_for_classifier(path: str | Path, config: ModelConfig) -> Weights:
    """Reads any weights file for a classifier; as ``for_classifier``.

    Raises:
        WeightsError: it cannot be read, or is of another network.
        ConfigError: the settings in the file cannot be read.
    """
    return for_classifier(read_weights(path, (*LAYOUTS, *NETWORKS.values())), config)


def for_classifier(weights: Weights, config: ModelConfig) -> Weights:
    """The weights under a layout that says what of the classifier they must fill: all, or all but its class layer.

    Raises:
        WeightsError: they are another network's.
        ConfigError: the settings in the file cannot be read.
    """
    theirs = _kind_of(weights)
    for setting, found in _kind(config).items():
        wanted = theirs.get(setting, found)
        if found != wanted:
            # Their tensors could fit all the same, by names and shapes.
            raise WeightsError(f"{weights.source}: {setting} is {found}, but these weights need {wanted}")
    whole = weights.layout is OWN_CLASSIFIER or weights.layout.name in NETWORKS
    return replace(weights, layout=replace(weights.layout, whole=whole))


def torchvision_layout(source: str, config: ModelConfig) -> Layout:
    """How torchvision names the tensors of a classifier.

    Args:
        source: its file, for messages.
        config: its settings.

    Raises:
        WeightsError: torchvision has no such network.
    """
    classifier, backbone = config.as_classifier, config.backbone
    resnet = classifier.network == "resnet"
    lacking = {
        f"network {classifier.network}": not resnet and classifier.network not in NETWORKS,
        f"block {classifier.block}": resnet and classifier.block != "residual",
        "shortcut padding": resnet and classifier.shortcut == "padding",
        "norm group": resnet and backbone.norm == "group",
        "stride_in_1x1": resnet and backbone.depth >= 50 and backbone.stride_in_1x1,
        "channels 1": classifier.channels == 1,
    }
    for what, is_lacking in lacking.items():
        if is_lacking:
            raise WeightsError(f"{source}: is a classifier with {what}, which torchvision does not have")
    return NETWORKS.get(classifier.network, TORCHVISION)


def _published(config: ModelConfig) -> Weights:
    network = _kind(config)["model.classifier.network"]
    if network in NETWORKS:
        name = str(network).removeprefix(TORCHVISION_PREFIX)
        return published_weights(config, NETWORKS[network], name, [name])
    if network != "resnet":
        raise WeightsError(
            f"model.weights: torchvision has no weights of network {network}; set model.weights to a file, or to null"
        )
    for_classifier(Weights(str(config.weights), TORCHVISION, {}), config)  # before anything is downloaded
    return published_resnet(config)


def _kind(config: ModelConfig) -> dict[str, object]:
    """The settings that a classifier must share with the weights it starts from, the most important first."""
    classifier = config.as_classifier
    kind: dict[str, object] = {"model.classifier.network": classifier.network}
    if not classifier.has_stages:
        return kind
    if classifier.network == "resnet":
        kind["model.backbone.depth"] = config.backbone.depth
    else:
        kind["model.classifier.depth"] = classifier.depth
    kind["model.classifier.block"] = classifier.block
    if classifier.block != "plain":
        usual = "projection" if classifier.network == "resnet" else "padding"
        kind["model.classifier.shortcut"] = classifier.shortcut or usual
    return kind | {"model.classifier.activation": classifier.activation}


def _kind_of(weights: Weights) -> dict[str, object]:
    """The same of weights, as far as it is known; a detector has the default."""
    if weights.config is not None:
        return _kind(weights.config.model)
    if weights.layout.name in NETWORKS:
        return {"model.classifier.network": weights.layout.name}
    # Whether the depth fits is seen from the tensors.
    return {key: value for key, value in _kind(ModelConfig()).items() if key != "model.backbone.depth"}


def _in_gray(model: nn.Module, weights: Weights) -> Weights:
    """The weights with the first convolution summed over the colours, if they have three and the model has one."""
    state = {detector_key(key): value for key, value in model.state_dict().items()}
    summed = {}
    for key, name in weights.layout.names(state).items():
        found, wanted = weights.tensors.get(name), state[key]
        if found is not None and found.ndim == wanted.ndim == 4 and (found.shape[1], wanted.shape[1]) == (3, 1):
            summed[name] = found.sum(dim=1, keepdim=True)
    return replace(weights, tensors=weights.tensors | summed) if summed else weights
