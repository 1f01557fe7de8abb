"""The complete state of a training on disk, written so that no crash can tear it.

A checkpoint is a folder ``step-000012000`` with ``model.safetensors``, ``average.safetensors`` (if weights are
averaged), ``state.pt`` and ``manifest.json``. It is written under another name, every file is flushed to the disk, the
manifest with sizes and checksums comes last, and only then is the folder renamed. What lacks a manifest that verifies
is no checkpoint. There is no pointer to the newest: the names say it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from detector.durable import checksum, make_folder, make_folders, new_file, remove_folder, rename, sync_folder
from detector.errors import MachineError, TrainingError, WeightsError, one_line
from detector.weights.files import read_torch

_log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{9,})")
_FORMAT = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training needs to go on.

    The learning rate, the order of samples and all random draws are functions of seed, iteration and position; they
    need no state.

    Attributes:
        iteration: updates done.
        model: its state dict.
        average: the averaged weights; None if there are none.
        learner: the state of optimiser and gradient scaler.
        meter: the losses since the last log line.
        origin: what it must agree with to go on exactly: configuration, fingerprint of the data, versions.
    """

    iteration: int
    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    learner: dict[str, Any]
    meter: dict[str, Any]
    origin: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, state: TrainingState) -> Path:
    """Writes a checkpoint; one of the same iteration is replaced.

    Args:
        folder: the run's ``checkpoints``.
        state: what to save, on the CPU.

    Raises:
        MachineError: it cannot be written; other checkpoints are untouched.
        TrainingError: a weight is not finite; nothing is written.
    """
    _check_finite(state)
    final = folder / f"step-{state.iteration:09d}"
    temporary = folder / f".tmp-{final.name}-{os.getpid()}"
    try:
        make_folders(folder)
        sweep(folder)
        make_folder(temporary)
        _write(temporary, state)
        if final.exists():
            discard(final)
        rename(temporary, final)
        sync_folder(folder)
    except OSError as error:
        remove_folder(temporary)
        raise MachineError(f"{final}: the checkpoint cannot be written: {_reason(error, folder, state)}") from None
    return final


def _write(folder: Path, state: TrainingState) -> None:
    rest = {name: getattr(state, name) for name in ("iteration", "learner", "meter", "origin")}
    weights = {"model": state.model} | ({} if state.average is None else {"average": state.average})
    files = {}
    for name, tensors in weights.items():
        with new_file(folder / f"{name}.safetensors") as file:
            file.write(safetensors.torch.save(tensors))
        files[f"{name}.safetensors"] = {"bytes": file.size, "sha256": file.sha256}
    with new_file(folder / "state.pt") as file:
        torch.save(rest, cast(IO[bytes], file))
    files["state.pt"] = {"bytes": file.size, "sha256": file.sha256}
    sync_folder(folder)
    with new_file(folder / MANIFEST) as file:
        file.write(json.dumps({"format": _FORMAT, "torch": torch.__version__, "files": files}, indent=1).encode())
    sync_folder(folder)


def _check_finite(state: TrainingState) -> None:
    weights = [*state.model.items(), *(state.average or {}).items()]
    bad = [name for name, value in weights if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise TrainingError(
            f"iteration {state.iteration}: {len(bad)} of the weights are not finite ({bad[0]}, ...); they are not "
            "saved; lower training.learning_rate or set training.gradient_clip, and start in a new folder"
        )


def _reason(error: OSError, folder: Path, state: TrainingState) -> str:
    tensors = [*state.model.values(), *(state.average or {}).values(), *_tensors_in(state.learner)]
    need = sum(value.numel() * value.element_size() for value in tensors) / 2**20
    try:
        free = f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB"
    except OSError:
        free = "an unknown amount"
    return f"{error.strerror or error} (it needs {need:.0f} MiB, {free} is free on that disk)"


def _tensors_in(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors_in(item)]


def list_checkpoints(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first; they are not verified."""
    found = [item for item in folder.glob("step-*") if _NAME.fullmatch(item.name)]
    return sorted(found, key=iteration_of)


def iteration_of(checkpoint: Path) -> int:
    """The iteration in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def prune(folder: Path, keep: int, keep_every: int, best: int | None) -> None:
    """Removes old checkpoints.

    Args:
        folder: the run's ``checkpoints``; the newest has just been written.
        keep: how many of the newest stay.
        keep_every: those of multiples of this iteration stay, too; 0 for none.
        best: that of this iteration stays.
    """
    for old in list_checkpoints(folder)[:-keep]:
        iteration = iteration_of(old)
        if iteration != best and not (keep_every and iteration % keep_every == 0):
            try:
                discard(old)
            except OSError as error:
                _log.warning("%s: cannot be removed (%s) and stays", old, error.strerror)
    sweep(folder)


def discard(checkpoint: Path) -> None:
    """Takes a checkpoint's name away, so that nobody reads it half deleted; ``sweep`` removes it."""
    rename(checkpoint, checkpoint.with_name(f".trash-{checkpoint.name}-{os.getpid()}"))


def sweep(folder: Path) -> None:
    """Removes what writers left that died, and what was discarded."""
    for pattern in (".tmp-*", ".trash-*"):
        for item in folder.glob(pattern):
            remove_folder(item)


def load_newest(folder: Path) -> tuple[Path, TrainingState] | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over. None where there is none."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, load_checkpoint(path)
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
    verify(path)
    try:
        model = safetensors.torch.load_file(path / "model.safetensors")
        average = path / "average.safetensors"
        averaged = safetensors.torch.load_file(average) if average.exists() else None
        rest = read_torch(path / "state.pt")
        return TrainingState(model=model, average=averaged, **rest)
    except (SafetensorError, OSError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def verify(path: Path) -> None:
    """Compares sizes and checksums of all files with the manifest.

    Raises:
        WeightsError: they differ, or there is no manifest that this version reads.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise WeightsError(f"{path}: written in format {manifest['format']}, this version reads {_FORMAT}")
        facts = {name: (item["bytes"], item["sha256"]) for name, item in manifest["files"].items()}
        if not {"model.safetensors", "state.pt"} <= set(facts):
            raise KeyError
        for name, (size, digest) in facts.items():
            if (path / name).stat().st_size != size:
                raise WeightsError(f"{path}: {name} is cut off ({(path / name).stat().st_size} of {size} bytes)")
            if checksum(path / name) != digest:
                raise WeightsError(f"{path}: {name} is damaged (its checksum differs)")
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: is incomplete ({one_line(Path(error.filename).name)} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightsError(f"{path}: is damaged ({MANIFEST} cannot be read)") from None
