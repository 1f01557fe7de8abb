"""Where the network computes, and in which precision."""

from __future__ import annotations

import contextlib

import torch

from detector.errors import ConfigError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Convolutions and linear layers in ``precision``; box arithmetic and losses stay in fp32.

    Args:
        device: where the network is.
        precision: fp32, bf16 or fp16.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])
