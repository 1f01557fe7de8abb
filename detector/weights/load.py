"""Weights into a model, with a report of what went where."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.config.load import parse_config
from detector.config.schema import Config, ModelConfig
from detector.errors import ConfigError, WeightsError, one_line, quote
from detector.weights.files import read_tensors
from detector.weights.layouts import (
    LAYOUTS,
    OWN,
    OWN_CLASSIFIER,
    Conventions,
    Layout,
    depth_of,
    detector_key,
    from_layout,
    recognise,
)  # fmt: skip
from detector.weights.own_file import WeightsInfo, parse_info
from detector.weights.report import LoadReport

_log = logging.getLogger(__name__)

# Layers whose shape follows the classes of the data set; fine-tuning starts them anew. The last two are the classic
# networks' of torchvision.
CLASS_LAYERS = (
    "roi_head.class_layer.", "roi_head.box_layer.", "class_layer.", "network.fc.", "network.classifier.6.",
)  # fmt: skip
_RESNET_KEYS = ("backbone.", "roi_head.conv5_x.", "conv5_x.")
# In files, but of no use here.
_IGNORED = ("pixel_mean", "pixel_std", "num_batches_tracked")


@dataclass(frozen=True)
class Weights:
    """The contents of a file.

    Attributes:
        source: its name.
        layout: how it names its tensors.
        tensors: under those names.
        info: what it says of itself; None for files of other toolkits.
        left_out: our keys that it is not to fill.
    """

    source: str
    layout: Layout
    tensors: dict[str, Tensor]
    info: WeightsInfo | None = None
    left_out: frozenset[str] = frozenset()

    @cached_property
    def config(self) -> Config | None:
        """The settings in the file; None for files of other toolkits.

        Raises:
            ConfigError: they cannot be read.
        """
        return parse_config(self.info.config, f"{self.source}: its configuration") if self.info else None


def read_weights(path: str | Path, layouts: Iterable[Layout] = LAYOUTS) -> Weights:
    """Reads any weights file and recognises its layout.

    Args:
        path: the file.
        layouts: those that files of other toolkits may have.

    Raises:
        WeightsError: it cannot be read, or its layout is none of those known.
    """
    tensors, metadata = read_tensors(Path(path))
    info = parse_info(metadata, Path(path))
    if info is not None:
        weights = Weights(str(path), OWN, tensors, info)
        return replace(weights, layout=OWN_CLASSIFIER) if _is_classifier(weights) else weights
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    layout = recognise(tensors, layouts)
    if layout is None:
        hint = ""
        if any(key.startswith(("neck.", "backbone.fpn_", "backbone.bottom_up.")) for key in tensors):
            hint = "; it has a feature pyramid, which this network has not"
        raise WeightsError(
            f"{path}: the layout of its {len(tensors)} tensors ({quote(next(iter(tensors)))}, ...) is not known; "
            f"wanted is a file of this toolkit, of detectron2, mmdetection, torchvision or caffe{hint}"
        )
    return Weights(str(path), layout, tensors)


def _is_classifier(weights: Weights) -> bool:
    try:
        return weights.config is not None and weights.config.model.classifier is not None
    except ConfigError:  # told by whoever needs the settings
        return False


def refuse_contradictions(config: ModelConfig, weights: Weights) -> None:
    """Makes an error of settings that the weights were not made for.

    Raises:
        WeightsError: one line each.
    """
    problems = contradictions(config, weights)
    if problems:
        raise WeightsError("\n".join(f"{weights.source}: {problem}" for problem in problems))


def contradictions(config: ModelConfig, weights: Weights) -> list[str]:
    """Settings that the weights were not made for; one line each."""
    ours, theirs = Conventions.of(config), _conventions(config, weights)
    lines = []
    for field in fields(Conventions):
        found, wanted = getattr(ours, field.name), getattr(theirs, field.name)
        if found == wanted or not _matters(field.name, config):
            continue
        if field.name == "batch_norm":
            shown = "frozen_batch or batch" if wanted else "group"
            lines.append(f"model.backbone.norm is {config.backbone.norm}, but these weights need {shown}")
        else:
            section = "model.backbone" if field.name == "stride_in_1x1" else "model"
            lines.append(f"{section}.{field.name} is {_yaml(found)}, but these weights need {_yaml(wanted)}")
    return lines


def _matters(convention: str, config: ModelConfig) -> bool:
    """Whether the configured network can follow a convention or not."""
    classifier = config.as_classifier
    if convention == "stride_in_1x1":
        return classifier.network == "resnet" and config.backbone.depth >= 50
    return convention != "batch_norm" or classifier.has_stages


def adopt_conventions(config: ModelConfig, weights: Weights) -> ModelConfig:
    """The settings with those replaced that come with the weights: pixels, stride, kind of norm."""
    theirs = _conventions(config, weights)
    for line in contradictions(config, weights):
        _log.info("%s: %s: changed", weights.source, line)
    backbone: dict[str, object] = {"stride_in_1x1": theirs.stride_in_1x1}
    if theirs.batch_norm != (config.backbone.norm != "group"):
        backbone["norm"] = "frozen_batch" if theirs.batch_norm else "group"
    return config.model_copy(
        update={
            "pixel_order": theirs.pixel_order,
            "pixel_mean": theirs.pixel_mean,
            "pixel_std": theirs.pixel_std,
            "backbone": config.backbone.model_copy(update=backbone),
        }
    )


def _conventions(config: ModelConfig, weights: Weights) -> Conventions:
    """What the weights were made for; where neither layout nor file tell, what is configured."""
    if weights.config is not None:
        return Conventions.of(weights.config.model)
    pixels = [weights.tensors.get(key) for key in ("pixel_mean", "pixel_std")]
    if all(value is not None and value.numel() == 3 for value in pixels):
        mean, std = (tuple(weights.tensors[key].flatten().tolist()) for key in ("pixel_mean", "pixel_std"))
        # Red is the brightest channel of ImageNet; caffe's weights come with a std of 1 and the stride in the 1x1.
        return Conventions("rgb" if mean[0] > mean[2] else "bgr", _rounded(mean), _rounded(std), std == (1.0, 1.0, 1.0))
    return weights.layout.conventions or Conventions.of(config)


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    """Undoes float32: 103.53 is stored as 103.52999877929688."""
    return tuple(float(f"{value:.6g}") for value in values)


def _yaml(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value).lower()


def fill(model: nn.Module, config: ModelConfig, weights: Weights, renew_classes: bool = False) -> LoadReport:
    """Copies tensors into a model.

    Args:
        model: gets them.
        config: its settings.
        weights: where they come from.
        renew_classes: class layers of another size keep their random values instead of being an error.

    Raises:
        WeightsError: names what is missing, of another shape or not finite.
    """
    expected = model.state_dict()
    keys = {detector_key(key): key for key in expected}
    found, unexpected = from_layout(weights.layout, weights.tensors, keys, config.anchors)
    tensors = {keys.get(key, key): value for key, value in found.items()}
    unexpected = [name for name in unexpected if not name.endswith(_IGNORED)]
    shapes = {
        key: f"{key} is {one_line(tuple(tensors[key].shape), 80)}, the model wants {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    }
    taken = {key: value for key, value in tensors.items() if key not in shapes and key in expected}
    report = LoadReport(
        weights.source,
        weights.layout.name,
        tuple(taken),
        tuple(key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")),
        tuple(unexpected),
        tuple(shapes.values()),
    )
    _check(report, weights, config, shapes, renew_classes)
    for key, value in taken.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{weights.source}: {key} holds NaN or infinity")
    model.load_state_dict({**expected, **taken})
    return report


def _check(
    report: LoadReport, weights: Weights, config: ModelConfig, shapes: Mapping[str, str], renew_classes: bool
) -> None:
    is_resnet = config.classifier is None or config.classifier.network == "resnet"
    depth = depth_of(weights.tensors) if is_resnet else None
    if depth and depth != config.backbone.depth:
        raise WeightsError(
            f"{weights.source}: does not fit the model: model.backbone.depth is {config.backbone.depth}, "
            f"the weights are of depth {depth}"
        )
    missing = [key for key in report.missing if key not in weights.left_out]
    if not weights.layout.whole:
        missing = [key for key in missing if key.startswith(_RESNET_KEYS)]
    wrong = [line for key, line in shapes.items() if not (renew_classes and key.startswith(CLASS_LAYERS))]
    unused: Sequence[str] = report.unexpected if weights.layout.ours and weights.layout.whole else ()
    problems = [*wrong, *(f"{key} is missing" for key in missing)]
    problems += [f"{one_line(key, 100)} is unexpected" for key in unused]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{weights.source}: does not fit the model: {'; '.join(problems[:3])}{more}")
