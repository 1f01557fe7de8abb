"""Small runs, parts of runs, and what is left of one, for comparisons to the last bit."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from detector.cli import train
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from tests.tiny import write_tiny

# Channels of conv2_x to conv5_x: a seventieth of the weights, so that computing and saving take milliseconds.
NARROW = (32, 32, 32, 32)
AUGMENTATIONS = "data.augmentations=[{name: RandomBrightnessContrast, arguments: {p: 0.5}}, {name: Blur}]"
TIMING = {"images_per_second", "data_wait", "memory_mib"}


def start(folder: Path, *arguments: str) -> int:
    """Trains in ``folder/run``; returns the exit code."""
    folder.mkdir(exist_ok=True)
    return train.main([str(write_tiny(folder)), *arguments, "--output", str(folder / "run")])


def stopped_at(whole: Path, iteration: int, folder: Path) -> Path:
    """A copy of a run as it was when the checkpoint of ``iteration`` had just been written, but for a longer log."""
    name = f"step-{iteration:09d}"
    shutil.copytree(whole / "checkpoints" / name, folder / "run" / "checkpoints" / name)
    for file in ("config.yaml", "metrics.jsonl"):
        shutil.copy(whole / file, folder / "run" / file)
    return folder / "run"


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMING} for line in lines]


def outcome(run: Path) -> dict[str, Any]:
    """Everything that a finished run has computed."""
    state = dict(vars(load_checkpoint(list_checkpoints(run / "checkpoints")[-1])))
    del state["origin"]  # it tells the number of workers
    return {
        "newest checkpoint": state,
        "final weights": load_file(run / "model_final.safetensors"),
        "best weights": load_file(run / "model_best.safetensors"),
        "metrics": records(run),
        "detections": (run / "evaluation" / "detections.json").read_text(encoding="utf-8"),
    }


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """The places where two trees are not the same to the last bit."""
    if type(one) is not type(other):
        return [f"{place}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"{place}: other keys"]
        return [line for key in one for line in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{place}: {len(one)} and {len(other)} items"]
        pairs = zip(one, other, strict=True)
        return [line for number, pair in enumerate(pairs) for line in differences(*pair, f"{place}/{number}")]
    return [] if _bits(one) == _bits(other) else [place]


def _bits(value: Any) -> Any:
    """Equal only for equal bits: not a number equals itself, and zero has a sign."""
    if isinstance(value, Tensor):
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return value.dtype, tuple(value.shape), data
    return struct.pack("d", value) if isinstance(value, float) else value
