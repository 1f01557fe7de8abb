"""Weights in files: our own, and ResNets in torchvision's layout. No file can run code.

Our own file is safetensors; its metadata holds the configuration and the class names, so that it is all one needs.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from detector.config.schema import ModelConfig
from detector.errors import MachineError, WeightsError, quote
from detector.structures import ImageId

_log = logging.getLogger(__name__)

FORMAT = "detector-weights-1"
_TORCHVISION_PREFIX = "torchvision:"
# Layers whose shape follows the classes of the data set; fine-tuning starts them anew.
CLASS_LAYERS = ("roi_head.class_layer", "roi_head.box_layer")


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself.

    Attributes:
        config: the resolved configuration, as YAML.
        class_names: in the order of labels.
        category_ids: of the data set it was trained on, in the same order; results are written with them.
        iteration: of the training that made it.
        score_threshold: the score from which detections are worth showing; None if nobody has chosen one.
    """

    config: str
    class_names: tuple[str, ...]
    category_ids: tuple[ImageId, ...]
    iteration: int
    score_threshold: float | None = None


def save_weights(path: Path, model: nn.Module, info: WeightsInfo) -> None:
    """Writes a weights file, so that at any moment there is the old one or the new one under that name.

    Raises:
        MachineError: it cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "config": info.config,
        "class_names": json.dumps(info.class_names),
        "category_ids": json.dumps(info.category_ids),
        "iteration": str(info.iteration),
        "score_threshold": json.dumps(info.score_threshold),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"{path}: cannot be written: {error}") from None


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], WeightsInfo]:
    """Reads a weights file of our own.

    Raises:
        WeightsError: it is missing, damaged or of another kind.
    """
    tensors, metadata = _read_safetensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: holds tensors but no configuration, so it is no weights file of this toolkit; "
            "to start a training from it, set model.weights"
        )
    try:
        info = WeightsInfo(
            metadata["config"],
            tuple(json.loads(metadata["class_names"])),
            tuple(json.loads(metadata["category_ids"])),
            int(metadata["iteration"]),
            json.loads(metadata["score_threshold"]),
        )
    except (KeyError, ValueError, TypeError):
        raise WeightsError(f"{path}: its metadata is damaged; fetch or write the file again") from None
    return tensors, info


def load_own(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Fills a model with tensors that must fit it exactly.

    Raises:
        WeightsError: names the tensors that are missing, unexpected or of another shape.
    """
    expected = model.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in tensors]
    problems += [f"{key} is unexpected" for key in tensors if key not in expected]
    problems += [
        f"{key} is {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    problems += [f"{key} holds NaN or infinity" for key in expected if key in tensors and not _finite(tensors[key])]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{source}: does not fit the model: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(dict(tensors))


def load_initial(model: nn.Module, config: ModelConfig) -> None:
    """Fills a new model with ``model.weights``: a file of our own or a ResNet in torchvision's layout.

    What the weights lack (the RPN, say) keeps its random values, and so do class layers of another size.

    Raises:
        WeightsError: they cannot be had, are of an unknown layout, or do not fit the configuration.
    """
    if config.weights is None:
        return
    if config.weights.startswith(_TORCHVISION_PREFIX):
        tensors = _from_torchvision(config.weights.removeprefix(_TORCHVISION_PREFIX))
        _check_conventions(config)
    else:
        tensors = _read_any(Path(config.weights))
    if "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors:
        _check_norm(config)
        tensors = {own: tensors[name] for own, name in _torchvision_keys(model).items() if name in tensors}
        required = [key for key in model.state_dict() if key.startswith(("backbone.", "roi_head.conv5_x."))]
    elif "backbone.conv1.conv.weight" in tensors:
        required = [key for key in model.state_dict() if not key.startswith(CLASS_LAYERS)]
    else:
        raise WeightsError(
            f"{config.weights}: the layout of its {len(tensors)} tensors is not known; "
            "wanted is a file of this toolkit or a ResNet in torchvision's layout"
        )
    _fill(model, tensors, required, config.weights)


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], required: Sequence[str], source: str) -> None:
    expected = model.state_dict()
    missing = [key for key in required if key not in tensors and not key.endswith("num_batches_tracked")]
    shapes = [key for key in expected if key in tensors and tensors[key].shape != expected[key].shape]
    wrong = [key for key in shapes if not key.startswith(CLASS_LAYERS)]
    if missing or wrong:
        first = (
            f"{wrong[0]} is {tuple(tensors[wrong[0]].shape)}, the model wants {tuple(expected[wrong[0]].shape)}"
            if wrong
            else f"{missing[0]} is missing"
        )
        raise WeightsError(
            f"{source}: does not fit the model: {first} ({len(missing) + len(wrong)} such tensors); "
            "is model.backbone.depth or norm another?"
        )
    taken = {key: value for key, value in tensors.items() if key in expected and key not in shapes}
    if bad := [key for key, value in taken.items() if not _finite(value)]:
        raise WeightsError(f"{source}: {bad[0]} holds NaN or infinity")
    model.load_state_dict({**expected, **taken})
    fresh = sorted({key.rsplit(".", 1)[0] for key in expected if key not in taken and "num_batches" not in key})
    _log.info("%s: took %d tensors; new and random: %s", source, len(taken), ", ".join(fresh) or "none")


def _torchvision_keys(model: nn.Module) -> dict[str, str]:
    """Each key of ours that torchvision's ResNet has, with its name there."""
    rules: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^backbone\.conv1\.conv\.", "conv1."),
        (r"^backbone\.conv1\.norm\.", "bn1."),
        (r"^(?:backbone|roi_head)\.conv([2345])_x\.", lambda match: f"layer{int(match[1]) - 1}."),
        (r"\.shortcut\.conv\.", ".downsample.0."),
        (r"\.shortcut\.norm\.", ".downsample.1."),
        (r"\.conv(\d)\.conv\.", r".conv\1."),
        (r"\.conv(\d)\.norm\.", r".bn\1."),
    ]
    names = {}
    for key in model.state_dict():
        name = key
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if name != key:
            names[key] = name
    return names


def _from_torchvision(name: str) -> dict[str, Tensor]:
    """Weights by torchvision's own loader, which keeps them in torch's cache folder."""
    from torchvision.models import get_model_weights, get_weight

    try:
        weights = get_weight(name)
    except (ValueError, KeyError, AttributeError):
        known = [str(item) for depth in (18, 34, 50, 101, 152) for item in get_model_weights(f"resnet{depth}")]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
        raise WeightsError(f"model.weights: torchvision has no weights {quote(name)}; {hint}") from None
    if not name.startswith("ResNet"):
        raise WeightsError(f"model.weights: {quote(name)} is no ResNet")
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise WeightsError(
            f"model.weights: {name} cannot be downloaded ({quote(str(error), 80)}); fetch {weights.url} on a machine "
            f"with a network and put it at {cache}, or set model.weights to the file, or to null for random weights"
        ) from None


def _check_conventions(config: ModelConfig) -> None:
    """Weights of torchvision come with conventions of their own; with others they are worth little."""
    wanted: dict[str, tuple[Any, Any]] = {
        "model.pixel_order": (config.pixel_order, "rgb"),
        "model.pixel_mean": (config.pixel_mean, (123.675, 116.28, 103.53)),
        "model.pixel_std": (config.pixel_std, (58.395, 57.12, 57.375)),
    }
    if config.backbone.depth >= 50:
        wanted["model.backbone.stride_in_1x1"] = (config.backbone.stride_in_1x1, False)
    for key, (found, value) in wanted.items():
        if found != value:
            shown = list(value) if isinstance(value, tuple) else str(value).lower()
            raise WeightsError(f"{key}: torchvision's weights need {shown}, got {quote(found)}")


def _check_norm(config: ModelConfig) -> None:
    if config.backbone.norm == "group":
        raise WeightsError(
            f"{config.weights}: holds batch norms, but model.backbone.norm is group; set it to frozen_batch"
        )


def _read_any(path: Path) -> dict[str, Tensor]:
    """Tensors of a file whose kind its contents tell."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    with path.open("rb") as file:
        is_pickle = file.read(2) == b"\x80\x02"  # of torch before 1.6
    content = _read_pickle(path) if is_pickle or zipfile.is_zipfile(path) else _read_safetensors(path)[0]
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors")
    return tensors


def _read_pickle(path: Path) -> dict[Any, Any]:
    """A file of ``torch.save``, restricted to tensors and plain containers."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        OSError,
        KeyError,
        AttributeError,
        IndexError,
    ) as error:
        reason = "holds more than tensors" if isinstance(error, UnpicklingError) else "is damaged"
        raise WeightsError(f"{path}: {reason}, or is no weights file") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__} instead of named tensors")
    for key in ("state_dict", "model"):
        if isinstance(content.get(key), dict):
            return content[key]  # type: ignore[no-any-return]
    return content


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a weights file, or damaged ({quote(str(error), 80)[1:-1]})") from None


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
