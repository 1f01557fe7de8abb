"""Weights into a model, with a report of what went where."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.config.load import parse_config
from detector.config.schema import ModelConfig
from detector.errors import WeightsError, one_line, quote
from detector.weights.files import read_tensors
from detector.weights.layouts import OWN, TORCHVISION, Conventions, Layout, depth_of, from_layout, recognise
from detector.weights.own_file import WeightsInfo, parse_info

_log = logging.getLogger(__name__)

_TORCHVISION_PREFIX = "torchvision:"
# Layers whose shape follows the classes of the data set; fine-tuning starts them anew.
CLASS_LAYERS = ("roi_head.class_layer.", "roi_head.box_layer.")
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
    """

    source: str
    layout: Layout
    tensors: dict[str, Tensor]
    info: WeightsInfo | None = None


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Attributes:
        source: the file.
        layout: its name.
        matched: our keys that were filled.
        missing: our keys that the file does not have.
        unexpected: names in the file that have no place in the model.
        wrong_shape: our keys whose tensor in the file has another shape, with both shapes.
    """

    source: str
    layout: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people, each tensor by name."""
        counts = f"{len(self.matched)} tensors matched, {len(self.missing)} missing"
        head = f"{self.source} ({self.layout} layout): {counts}, {len(self.unexpected)} unexpected"
        lines = [f"{head}, {len(self.wrong_shape)} of another shape"]
        for title, names in (
            ("missing", self.missing), ("unexpected", self.unexpected), ("another shape", self.wrong_shape),
        ):  # fmt: skip
            lines += [f"  {title}: {', '.join(quote(name, 120)[1:-1] for name in names)}"] if names else []
        return lines


def read_weights(path: str | Path) -> Weights:
    """Reads any weights file and recognises its layout.

    Raises:
        WeightsError: it cannot be read, or its layout is none of those known.
    """
    tensors, metadata = read_tensors(Path(path))
    info = parse_info(metadata, Path(path))
    if info is not None:
        return Weights(str(path), OWN, tensors, info)
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    layout = recognise(tensors)
    if layout is None:
        hint = ""
        if any(key.startswith(("neck.", "backbone.fpn_", "backbone.bottom_up.")) for key in tensors):
            hint = "; it has a feature pyramid, which this network has not"
        raise WeightsError(
            f"{path}: the layout of its {len(tensors)} tensors ({quote(next(iter(tensors)))}, ...) is not known; "
            f"wanted is a file of this toolkit, of detectron2, mmdetection, torchvision or caffe{hint}"
        )
    return Weights(str(path), layout, tensors)


def load_initial(model: nn.Module, config: ModelConfig) -> LoadReport | None:
    """Fills a new model with ``model.weights`` for a training.

    What a ResNet alone lacks (the RPN, say) keeps its random values, and so do class layers of another size.

    Raises:
        WeightsError: the weights cannot be had, do not fit, or contradict a setting.
    """
    if config.weights is None:
        return None
    if config.weights.startswith(_TORCHVISION_PREFIX):
        _refuse_contradictions(config, Weights(config.weights, TORCHVISION, {}))
        name = config.weights.removeprefix(_TORCHVISION_PREFIX)
        weights = Weights(config.weights, TORCHVISION, _from_torchvision(name))
    else:
        weights = read_weights(config.weights)
        _refuse_contradictions(config, weights)
    report = fill(model, config, weights, renew_classes=True)
    for line in report.lines():
        _log.info("%s", line)
    return report


def _refuse_contradictions(config: ModelConfig, weights: Weights) -> None:
    problems = contradictions(config, weights)
    if problems:
        raise WeightsError("\n".join(f"{weights.source}: {problem}" for problem in problems))


def contradictions(config: ModelConfig, weights: Weights) -> list[str]:
    """Settings that the weights were not made for; one line each."""
    ours, theirs = Conventions.of(config), _conventions(config, weights)
    lines = []
    for field in fields(Conventions):
        found, wanted = getattr(ours, field.name), getattr(theirs, field.name)
        if found == wanted or (field.name == "stride_in_1x1" and config.backbone.depth < 50):
            continue
        if field.name == "batch_norm":
            shown = "frozen_batch or batch" if wanted else "group"
            lines.append(f"model.backbone.norm is {config.backbone.norm}, but these weights need {shown}")
        else:
            section = "model.backbone" if field.name == "stride_in_1x1" else "model"
            lines.append(f"{section}.{field.name} is {_yaml(found)}, but these weights need {_yaml(wanted)}")
    return lines


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
    if weights.info is not None:
        return Conventions.of(parse_config(weights.info.config, f"{weights.source}: its configuration").model)
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
    tensors, unexpected = from_layout(weights.layout, weights.tensors, expected, config.anchors)
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
    depth = depth_of(weights.tensors)
    if depth and depth != config.backbone.depth:
        raise WeightsError(
            f"{weights.source}: does not fit the model: model.backbone.depth is {config.backbone.depth}, "
            f"the weights are of depth {depth}"
        )
    missing: Sequence[str] = report.missing
    if not weights.layout.whole:
        missing = [key for key in missing if key.startswith(("backbone.", "roi_head.conv5_x."))]
    wrong = [line for key, line in shapes.items() if not (renew_classes and key.startswith(CLASS_LAYERS))]
    unused: Sequence[str] = report.unexpected if weights.layout is OWN else ()
    problems = [*wrong, *(f"{key} is missing" for key in missing)]
    problems += [f"{one_line(key, 100)} is unexpected" for key in unused]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{weights.source}: does not fit the model: {'; '.join(problems[:3])}{more}")


def _from_torchvision(name: str) -> dict[str, Tensor]:
    """Weights by torchvision's name and address, kept in torch's cache folder; read as strangers' files are."""
    from torchvision.models import get_model_weights, get_weight

    known = [str(item) for depth in (18, 34, 50, 101, 152) for item in get_model_weights(f"resnet{depth}")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise WeightsError(f"model.weights: torchvision has no ResNet weights {quote(name)}; {hint}")
    weights = get_weight(name)
    cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        if not cache.is_file():
            cache.parent.mkdir(parents=True, exist_ok=True)
            digest = cache.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(weights.url, str(cache), digest)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"model.weights: {name} cannot be downloaded ({quote(str(error), 80)}); fetch {weights.url} on a machine "
            f"with a network and put it at {cache}, or set model.weights to the file, or to null for random weights"
        ) from None
    return read_tensors(cache)[0]
