"""A run's folder: whose it is, and what it was made with."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from detector import __version__
from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.durable import make_folders, replace_file
from detector.errors import ConfigError, MachineError, UsageError

_log = logging.getLogger(__name__)

# What may change between the parts of a run without making it another run.
_FREE_KEYS = (
    "output_dir", "device", "data.workers", "data.worker_timeout", "data.on_bad_sample", "data.max_bad_fraction",
    "training.on_nonfinite_loss", "training.micro_batch_size", "training.log_every",
    "training.checkpoint_every", "training.keep_checkpoints", "training.keep_every", "training.evaluate_every",
    "training.process_timeout", "evaluation",
)  # fmt: skip
_HALF_WRITTEN = re.compile(r"\.probe-\d+|\.(config\.yaml|.+\.(json|jsonl|safetensors|pt))\.tmp-\d+")
_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "albumentations", "opencv-python-headless", "pycocotools")


class RunFolder:
    """Paths of a run, its configuration and its environment.

    Args:
        path: the folder; made if it is not there.

    Raises:
        MachineError: it cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.index = path / "index"
        self.evaluation = path / "evaluation"
        self.metrics = path / "metrics.jsonl"
        self.final = path / "model_final.safetensors"
        self.bad_samples = path / "bad_samples.jsonl"
        try:
            make_folders(self.path)
            probe = path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink(missing_ok=True)  # the process that claims the folder may have been quicker
        except OSError as error:
            raise MachineError(
                f"{path}: the run's folder cannot be written to ({error.strerror}); choose another --output"
            ) from None

    def claim(self, config: Config, resume: bool, anyway: bool = False) -> None:
        """Makes the folder that of a run with this configuration.

        Args:
            config: the resolved configuration.
            resume: an existing run may go on here if its configuration agrees.
            anyway: ... or if it does not.

        Raises:
            UsageError: the folder holds another run, or something else.
            ConfigError: it holds a run with another configuration.
        """
        saved = self.path / "config.yaml"
        has_run = any(self.checkpoints.glob("step-*")) or self.metrics.exists()
        if not has_run and not saved.exists() and not all(_is_ours(item.name) for item in self.path.iterdir()):
            raise UsageError(f"{self.path}: holds files but no run; choose an empty or new --output")
        self._sweep()
        # A run that failed before its first iteration leaves nothing to protect.
        if has_run:
            if not resume:
                raise UsageError(
                    f"{self.path}: holds a run already; choose another --output, or go on with it by --resume auto"
                )
            if saved.exists():  # else the checkpoint knows
                old = parse_config(saved.read_text(encoding="utf-8"), str(saved))
                check_same_config(f"{self.path}: holds a run with", old, config, anyway)
        else:
            self.write_config(config)

    def _sweep(self) -> None:
        """Removes what killed processes left half written."""
        for item in self.path.glob(".*"):
            if _HALF_WRITTEN.fullmatch(item.name):
                with suppress(OSError):
                    item.unlink()

    def write_config(self, config: Config) -> None:
        """Saves all settings in config.yaml."""
        replace_file(self.path / "config.yaml", dump_config(config))

    def write_environment(self) -> None:
        """Notes versions, hardware, revision and command in environment.json."""
        replace_file(self.path / "environment.json", json.dumps(environment(), indent=1))


def environment() -> dict[str, Any]:
    """Versions, hardware, revision and command."""
    return {
        "detector": __version__,
        "python": platform.python_version(),
        **versions(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "cpu": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "system": platform.platform(),
        "host": socket.gethostname(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "git_revision": _git_revision(),
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str | None]:
    """The packages that results depend on."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def check_same_config(whose: str, old: Config, new: Config, anyway: bool) -> None:
    """Compares all settings that make a run what it is.

    Args:
        whose: begins the message.
        old: of the run.
        new: of the command.
        anyway: a difference is only told.

    Raises:
        ConfigError: they differ.
    """
    free = (*_FREE_KEYS, "training.iterations") if new.training.epochs else _FREE_KEYS
    lines = [
        line for line in _differences(old.model_dump(), new.model_dump()) if not line.split(":")[0].startswith(free)
    ]
    if lines and anyway:
        _log.warning("%s another configuration, and is gone on with anyway: %s", whose, "; ".join(lines))
    elif lines:
        more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise ConfigError(
            f"{whose} another configuration ({'; '.join(lines[:3])}{more}); "
            "choose another --output, restore these settings, or add --resume-anyway"
        )


def _is_ours(name: str) -> bool:
    own = name == ".lock" or re.fullmatch(r"train(-\d+)?\.log|exit-\d+\.json", name)
    return bool(own or _HALF_WRITTEN.fullmatch(name))


def _differences(old: Any, new: Any, key: str = "") -> Sequence[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            line
            for name in names
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [f"{key}: {_short(old)} there, {_short(new)} here"]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _git_revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
