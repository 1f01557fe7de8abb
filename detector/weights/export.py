"""Weights written in the layouts of other toolkits."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from detector.config.schema import ModelConfig
from detector.errors import MachineError, UsageError
from detector.weights.layouts import DETECTRON2, DETECTRON2_BACKBONE, TORCHVISION, Layout, to_layout


def target_layout(to: str, whole: bool) -> Layout:
    """The layout of a target of conversion.

    Args:
        to: "detectron2" or "torchvision".
        whole: there is more than a ResNet to write.
    """
    if to == "torchvision":
        return TORCHVISION
    return DETECTRON2 if whole else DETECTRON2_BACKBONE


def write_foreign(path: Path, own: Mapping[str, Tensor], layout: Layout, config: ModelConfig) -> None:
    """Writes our tensors in another toolkit's layout; the suffix says how: .pkl (numpy), .pth or .safetensors.

    Args:
        path: the file.
        own: tensors by our keys.
        layout: the other toolkit's.
        config: of the network they belong to.

    Raises:
        UsageError: another suffix.
        MachineError: the file cannot be written.
    """
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in to_layout(layout, own, config.anchors).items()
    }
    if layout is DETECTRON2:
        tensors["pixel_mean"] = torch.tensor(config.pixel_mean)[:, None, None]
        tensors["pixel_std"] = torch.tensor(config.pixel_std)[:, None, None]
    nested = {"model": tensors} if layout in (DETECTRON2, DETECTRON2_BACKBONE) else tensors
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            save_file(tensors, temporary)
        elif path.suffix == ".pth":
            torch.save(nested, temporary)
        elif path.suffix == ".pkl":
            arrays = {name: value.numpy() for name, value in tensors.items()}
            with open(temporary, "wb") as file:
                pickle.dump({"model": arrays, "__author__": "detector", "matching_heuristics": False}, file, protocol=4)
        else:
            raise UsageError(f"{path}: write .pkl, .pth or .safetensors")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"{path}: cannot be written: {error}") from None
