"""Trainings on disks that are too small or read-only; run in a mount namespace of its own, prints JSON.

The network is a narrow one; without momentum its checkpoints take hardly more than its weights.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from detector.cli import train
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from detector.engine.trainer import Trainer
from detector.models import resnet
from tests.reliability.runs import NARROW
from tests.tiny import write_tiny

# Checkpoints, and 110 KiB of pictures and logs.
TWO_AND_A_HALF = 1_900_000
OPTIONS = (
    "training.checkpoint_every=1", "training.evaluate_every=0", "training.keep_checkpoints=9",
    "training.optimizer=sgd", "training.momentum=0",
)  # fmt: skip


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _train(run: Path, iterations: int, before: dict[int, Callable[[], None]] | None = None) -> dict[str, Any]:
    """A training, and what is left of it.

    Args:
        run: its folder.
        iterations: how many.
        before: what happens before an iteration, counted from 1.
    """
    update = Trainer._update

    def interrupted(trainer: Trainer, *arguments: Any) -> Any:
        (before or {}).get(trainer.iteration + 1, lambda: None)()
        return update(trainer, *arguments)

    out, errors = io.StringIO(), io.StringIO()
    command = [str(write_tiny(Path.cwd())), *OPTIONS, f"training.iterations={iterations}", "--output", str(run)]
    with redirect_stdout(out), redirect_stderr(errors), patch.object(Trainer, "_update", interrupted):
        code = train.main(command)
    log = run / "metrics.jsonl"
    return {
        "code": code,
        "errors": errors.getvalue().splitlines(),
        "whole": [load_checkpoint(path).iteration for path in list_checkpoints(run / "checkpoints")],
        "names": sorted(path.relative_to(run).as_posix() for path in run.rglob("*")) if run.is_dir() else [],
        "logged": [json.loads(line)["iteration"] for line in log.read_text().splitlines()] if log.exists() else [],
    }


def _fill(path: Path, leave: int) -> None:
    """Takes what is free on a disk, but for so many bytes."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(path.parent).free - leave)


def _fill_up(path: Path) -> None:
    """Takes all that is free on a disk, and what becomes free meanwhile."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def _clear(disk: Path) -> None:
    for item in disk.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        else:
            item.unlink()


def main() -> None:
    """All scenes, one after another."""
    torch.set_num_threads(1)
    assert hasattr(resnet, "_WIDTHS")
    resnet._WIDTHS = NARROW
    disk, read_only = Path("disk").absolute(), Path("read_only").absolute()
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", "size=8m", "none", str(disk))
    room, run = disk / "room", disk / "run"
    results = {}

    _fill(room, leave=TWO_AND_A_HALF)
    results["third does not fit"] = _train(run, 7)
    _clear(disk)
    _fill(room, leave=TWO_AND_A_HALF)
    results["last does not fit"] = _train(run, 3)
    results["started again on the full disk"] = _train(run, 3)
    room.unlink()
    results["started again with room"] = _train(run, 3)
    _clear(disk)
    _fill(room, leave=TWO_AND_A_HALF)
    results["room is made"] = _train(run, 5, {5: room.unlink})
    _clear(disk)
    results["full to the last byte"] = _train(run, 8, {3: lambda: _fill_up(room)})
    _clear(disk)
    # Gone at once: half a checkpoint that is being written would else be left behind.
    gone = run.with_name("gone")
    results["deleted"] = _train(run, 5, {3: lambda: shutil.rmtree(run.rename(gone), ignore_errors=True)})
    _clear(disk)
    _fill_up(room)
    results["full from the start"] = _train(run, 8)
    read_only.mkdir()
    _mount("--bind", str(read_only), str(read_only))
    _mount("-o", "remount,bind,ro", str(read_only))
    results["read-only"] = _train(read_only, 8)
    results["below a read-only folder"] = _train(read_only / "run", 8)
    print(json.dumps(results))


if __name__ == "__main__":
    sys.exit(main())
