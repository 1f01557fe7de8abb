"""A network ready for use: new for a training, or out of a weights file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.errors import WeightsError
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.weights.known_classes import classes_of
from detector.weights.layouts import depth_of
from detector.weights.load import LoadReport, Weights, adopt_conventions, fill, load_initial, read_weights
from detector.weights.own_file import WeightsInfo

_log = logging.getLogger(__name__)

_LARGE = 200_000_000  # twice a ResNet-152 with a head for a thousand classes


@dataclass(frozen=True)
class LoadedModel:
    """A network out of a file.

    Attributes:
        model: on the CPU.
        config: all settings; those of the model are what the weights were made for.
        info: class names and what else the file says; made up for files of other toolkits.
        report: what became of every tensor.
    """

    model: FasterRCNN
    config: Config
    info: WeightsInfo
    report: LoadReport


def build_initial_model(config: Config, num_classes: int, fresh: bool) -> FasterRCNN:
    """The network as a run starts with it.

    Args:
        config: all settings; its seed decides the random weights.
        num_classes: K.
        fresh: take ``model.weights``; a run that goes on has its own.

    Raises:
        WeightsError: ``model.weights`` cannot be had, do not fit, or contradict a setting.
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
    if not weights.layout.whole:
        raise WeightsError(
            f"{weights.source}: holds a ResNet alone ({weights.layout.name} layout) and no detector; "
            "to start a training from it, set model.weights"
        )
    return _build(weights, config)


def load_for_conversion(path: str | Path, config: Config | None = None) -> tuple[LoadedModel, bool]:
    """As ``load_model``, but takes a ResNet alone, too; what it lacks is random.

    Returns:
        The network, and whether the file held a whole detector.

    Raises:
        WeightsError: it cannot be read or does not fit ``config``.
    """
    weights = read_weights(path)
    return _build(weights, config), weights.layout.whole


def _build(weights: Weights, config: Config | None) -> LoadedModel:
    config = config or _own_config(weights)
    config = config.model_copy(update={"model": adopt_conventions(config.model, weights)})
    info = weights.info or _made_up_info(weights, config)
    _refuse_hollow(weights, config, len(info.class_names))
    model = build_model(config.model, len(info.class_names), config.evaluation)
    report = fill(model, config.model, weights)
    level = logging.DEBUG if weights.info else logging.INFO
    for line in report.lines():
        _log.log(level, "%s", line)
    return LoadedModel(model, config, info, report)


def _refuse_hollow(weights: Weights, config: Config, num_classes: int) -> None:
    """A small file may not make a network that fills the memory before anyone compares shapes."""
    with torch.device("meta"):
        outline = build_model(config.model, num_classes, config.evaluation)
    wanted = sum(value.numel() for value in outline.state_dict().values())
    held = sum(value.numel() for value in weights.tensors.values())
    if wanted > 2 * held + _LARGE:
        raise WeightsError(f"{weights.source}: its settings describe a network of {wanted} numbers, it holds {held}")


def _own_config(weights: Weights) -> Config:
    """The configuration in the file; for other toolkits the published recipe at the depth of the weights."""
    if weights.info is not None:
        return parse_config(weights.info.config, f"{weights.source}: its configuration")
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
