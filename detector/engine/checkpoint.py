"""The complete state of a training on disk, written so that no crash can tear it.

A checkpoint is a folder ``step-000012000`` with ``model.safetensors``, ``state.pt`` and ``manifest.json``. It is
written under another name, every file is flushed to the disk, the manifest with the checksums comes last, and only
then is the folder renamed. What lacks a manifest that verifies is no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from detector.errors import MachineError, WeightsError

_log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{9,})")
_FORMAT = 1


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training needs to go on.

    The learning rate and the order of samples are functions of the iteration and need no state; all random draws
    are functions of seed and position.

    Attributes:
        iteration: updates done.
        model: its state dict.
        learner: the state of optimiser and gradient scaler.
    """

    iteration: int
    model: dict[str, Tensor]
    learner: dict[str, Any]


def save_checkpoint(folder: Path, state: TrainingState, keep: int) -> Path:
    """Writes a checkpoint, unless that of this iteration is there, and then removes the oldest beyond ``keep``.

    Args:
        folder: the run's ``checkpoints``.
        state: what to save.
        keep: how many to leave, at least 1.

    Raises:
        MachineError: it cannot be written; older checkpoints are untouched.
    """
    final = folder / f"step-{state.iteration:09d}"
    if final.exists():
        return final
    temporary = folder / f".tmp-{final.name}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        temporary.mkdir()
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in state.model.items()},
            temporary / "model.safetensors",
        )
        torch.save({"iteration": state.iteration, "learner": state.learner}, temporary / "state.pt")
        _seal(temporary)
        temporary.rename(final)
        _flush(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch and safetensors hide the reason of a failed write in errors of their own.
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(folder).free // 2**20 if folder.exists() else 0
        raise MachineError(
            f"{final}: the checkpoint cannot be written ({str(error).splitlines()[0]}; {free} MiB free on that disk); "
            "make room, then start the same command again: it resumes"
        ) from None
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first; they are not verified."""
    found = [item for item in folder.glob("step-*") if _NAME.fullmatch(item.name)]
    return sorted(found, key=lambda item: int(item.name.removeprefix("step-")))


def load_newest(folder: Path) -> TrainingState | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over. None where there is none."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return load_checkpoint(path)
        except WeightsError as error:
            _log.warning("%s; passed over", error)
    return None


def load_checkpoint(path: Path) -> TrainingState:
    """Reads a checkpoint.

    Raises:
        WeightsError: it is missing, damaged or of another format.
    """
    if not path.is_dir():
        raise WeightsError(f"{path}: no such checkpoint; name a folder such as checkpoints/step-000012000")
    _verify(path)
    try:
        model = load_file(path / "model.safetensors")
        rest = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
        return TrainingState(model=model, **rest)
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def _seal(folder: Path) -> None:
    """Flushes every file, then writes the manifest that makes the folder a checkpoint."""
    files = {}
    for path in sorted(folder.iterdir()):
        _flush(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _checksum(path)}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"format": _FORMAT, "files": files}, indent=1), encoding="utf-8")
    _flush(manifest)
    _flush(folder)


def _verify(folder: Path) -> None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise WeightsError(f"{folder}: written in format {manifest['format']}, this version reads {_FORMAT}")
        for name, facts in manifest["files"].items():
            if _checksum(folder / name) != facts["sha256"]:
                raise WeightsError(f"{folder}: {name} is damaged (its checksum differs)")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{folder}: is damaged or incomplete") from None


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Removes what writers left that died."""
    for item in folder.glob(".tmp-step-*"):
        shutil.rmtree(item, ignore_errors=True)
