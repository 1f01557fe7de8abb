"""Where the network computes, and in which precision."""

from __future__ import annotations

import contextlib
import os
import shutil

import torch

from detector.config.schema import Config
from detector.errors import ConfigError, UsageError
from detector.models.faster_rcnn import FasterRCNN

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: auto, cpu, cuda, mps, or one that torch knows, such as cuda:1.

    Raises:
        ConfigError: this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
    except RuntimeError:
        raise ConfigError(f"device: {name!r} is not one of auto, cpu, cuda, mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda is asked for, but torch sees no GPU here; set device=cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: mps is asked for, but this machine has none; set device=cpu or auto")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    return device


def evaluation_precision(config: Config) -> str:
    """The precision that a data set is evaluated in."""
    return config.evaluation.precision or config.training.precision


def check_precision(name: str) -> None:
    """Looks whether a precision has a known name.

    Raises:
        UsageError: it has not.
    """
    if name not in DTYPES:
        raise UsageError(f"precision must be {', '.join(list(DTYPES)[:-1])} or {list(DTYPES)[-1]}, got {name!r}")


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Convolutions and linear layers in ``precision``; box arithmetic and losses stay in fp32.

    Args:
        device: where the network is.
        precision: fp32, bf16 or fp16.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def compile_backbone(model: FasterRCNN, device: torch.device) -> None:
    """Lets ``torch.compile`` rewrite conv1..conv4_x for inference with the weights that they have now.

    Raises:
        UsageError: the device is a CPU and no C++ compiler is at hand.
    """
    compilers = [os.environ.get("CXX"), "g++", "clang++", "cl"]
    if device.type == "cpu" and not any(shutil.which(name) for name in compilers if name):
        raise UsageError("compiling for a CPU needs a C++ compiler (g++ or clang++); install one, or do without")
    model.backbone.compile(dynamic=False, options={"freezing": True})
