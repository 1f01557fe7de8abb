"""A network ready for use: new for a training, or out of a weights file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from detector.config.load import dump_config
from detector.config.schema import Config, ModelConfig
from detector.errors import WeightsError
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.weights.initial import load_initial
from detector.weights.known_classes import classes_of
from detector.weights.layouts import OWN_CLASSIFIER, depth_of
from detector.weights.load import Weights, adopt_conventions, fill, read_weights
from detector.weights.own_file import WeightsInfo
from detector.weights.report import LoadReport

_log = logging.getLogger(__name__)

_LARGE = 200_000_000  # twice a ResNet-152 with a head for a thousand classes


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Loaded(Generic[Network]):
    """A network out of a file.

    Attributes:
        model: on the CPU.
        config: all settings; those of the model are what the weights were made for.
        info: class names and what else the file says; made up for files of other toolkits.
        report: what became of every tensor.
    """

    model: Network
    config: Config
    info: WeightsInfo
    report: LoadReport


LoadedModel = Loaded[FasterRCNN]


def build_initial_model(config: Config, class_names: Sequence[str], fresh: bool) -> FasterRCNN:
    """The network as a run starts with it.

    Args:
        config: all settings; its seed decides the random weights.
        class_names: K names.
        fresh: take ``model.weights``; a run that goes on has its own.

    Raises:
        WeightsError: ``model.weights`` cannot be had, do not fit, or contradict a setting.
    """
    torch.manual_seed(config.seed)
    model = build_model(config.model, len(class_names), config.evaluation)
    if fresh:
        load_initial(model, config.model, class_names)
        warn_of_random_layers(config.model)
    return model


def warn_of_random_layers(model: ModelConfig) -> None:
    """Says that layers of a new ResNet which never learn have nothing to start from."""
    backbone = model.backbone
    if model.weights is None and (backbone.norm == "frozen_batch" or backbone.frozen):
        _log.warning(
            "model.weights is null, but model.backbone.norm is %s and frozen_stages is %s: random layers that never "
            "learn; give weights, or set norm to group and frozen_stages to 0",
            backbone.norm,
            list(backbone.frozen) if isinstance(backbone.frozen_stages, tuple) else backbone.frozen_stages,
        )


def load_model(path: str | Path, config: Config | None = None) -> LoadedModel:
    """A whole detector out of a file of this toolkit or of another one.

    Args:
        path: the file.
        config: used instead of the file's own. Pixel order, mean and std, the place of the stride and the kind of norm
            come from the weights all the same.

    Raises:
        WeightsError: it cannot be read, holds no whole detector, or does not fit ``config``.
    """
    return model_of(read_weights(path), config)


def model_of(weights: Weights, config: Config | None = None) -> LoadedModel:
    """As ``load_model``, for a file that has been read.

    Raises:
        WeightsError: it holds no whole detector, or does not fit ``config``.
    """
    if weights.layout is OWN_CLASSIFIER:
        raise WeightsError(
            f"{weights.source}: holds a classifier and no detector; use Classifier.load in Python, evaluate.py or "
            "visualize.py; to start a training of a detector from it, set model.weights"
        )
    if not weights.layout.whole:
        raise WeightsError(
            f"{weights.source}: holds a ResNet alone ({weights.layout.name} layout) and no detector; "
            "to start a training from it, set model.weights"
        )
    return _build(weights, config)


def load_for_conversion(weights: Weights, config: Config | None = None) -> tuple[LoadedModel, bool]:
    """As ``model_of``, but takes a ResNet alone, too; what it lacks is random.

    Returns:
        The network, and whether the file held a whole detector.

    Raises:
        WeightsError: it does not fit ``config``.
    """
    return _build(weights, config), weights.layout.whole


def _build(weights: Weights, config: Config | None) -> LoadedModel:
    config = with_conventions(config or _own_config(weights), weights)
    info = weights.info or _made_up_info(weights, config)
    return assemble(weights, config, info, lambda config, count: build_model(config.model, count, config.evaluation))


def with_conventions(config: Config, weights: Weights) -> Config:
    """The settings with those of the model that come with the weights."""
    return config.model_copy(update={"model": adopt_conventions(config.model, weights)})


def assemble(
    weights: Weights, config: Config, info: WeightsInfo, build: Callable[[Config, int], Network]
) -> Loaded[Network]:
    """A new network with the tensors of a file.

    Args:
        weights: the contents of the file.
        config: all settings, with the conventions of the weights.
        info: what the file says of itself, or what has been made up for it.
        build: makes the network from configuration and K.

    Raises:
        WeightsError: the tensors do not fit.
    """
    count = len(info.class_names)
    _refuse_hollow(weights, lambda: build(config, count))
    model = build(config, count)
    report = fill(model, config.model, weights)
    level = logging.DEBUG if weights.info else logging.INFO
    for line in report.lines():
        _log.log(level, "%s", line)
    return Loaded(model, config, info, report)


def _refuse_hollow(weights: Weights, build: Callable[[], nn.Module]) -> None:
    """A small file may not make a network that fills the memory before anyone compares shapes."""
    with torch.device("meta"):
        outline = build()
    wanted = sum(value.numel() for value in outline.state_dict().values())
    held = sum(value.numel() for value in weights.tensors.values())
    if wanted > 2 * held + _LARGE:
        raise WeightsError(f"{weights.source}: its settings describe a network of {wanted} numbers, it holds {held}")


def _own_config(weights: Weights) -> Config:
    """The configuration in the file; for other toolkits the published recipe at the depth of the weights."""
    if weights.config is not None:
        return weights.config
    config = Config()
    backbone = config.model.backbone.model_copy(update={"depth": depth_of(weights.tensors) or 101})
    return config.model_copy(update={"model": config.model.model_copy(update={"backbone": backbone})})


def _made_up_info(weights: Weights, config: Config) -> WeightsInfo:
    bias = weights.tensors.get(weights.layout.names(["roi_head.class_layer.bias"]).get("roi_head.class_layer.bias", ""))
    count = 1 if bias is None or bias.ndim != 1 else max(1, len(bias) - 1)
    names, ids = classes_of(count)
    if config.data.class_names and len(config.data.class_names) == count:
        names, ids = config.data.class_names, tuple(range(1, count + 1))
    return WeightsInfo(dump_config(config), names, ids, iteration=0)
