"""A run's folder and all that is told there and on the console."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torchvision
from tqdm import tqdm
from typing_extensions import Self

from detector import __version__
from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.errors import ConfigError, MachineError, UsageError

_log = logging.getLogger(__name__)

# What may change between the parts of a run without making it another run.
_FREE_KEYS = (
    "output_dir", "device", "data.workers", "training.micro_batch_size", "training.log_every",
    "training.checkpoint_every", "training.keep_checkpoints", "training.evaluate_every", "evaluation",
)  # fmt: skip


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
        self.evaluation = path / "evaluation"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise MachineError(
                f"{path}: the run's folder cannot be written to ({error.strerror}); choose another --output"
            ) from None

    def claim(self, config: Config, resume: bool) -> None:
        """Makes the folder that of a run with this configuration.

        Args:
            config: the resolved configuration.
            resume: an existing run may go on here if its configuration agrees.

        Raises:
            UsageError: the folder holds another run, or something else.
        """
        saved = self.path / "config.yaml"
        if not saved.exists() and any(item.name != "train.log" for item in self.path.iterdir()):
            raise UsageError(f"{self.path}: holds files but no run; choose an empty or new --output")
        # A run that failed before its first iteration leaves nothing to protect.
        if any(self.checkpoints.glob("step-*")) or (self.path / "metrics.jsonl").exists():
            if not resume:
                raise UsageError(
                    f"{self.path}: holds a run already; choose another --output, or go on with it by --resume auto"
                )
            self._check_same(parse_config(saved.read_text(encoding="utf-8"), str(saved)), config)
        saved.write_text(dump_config(config), encoding="utf-8")

    def _check_same(self, old: Config, new: Config) -> None:
        differing = _differences(old.model_dump(), new.model_dump())
        differing = [line for line in differing if not any(line.split(":")[0].startswith(free) for free in _FREE_KEYS)]
        if differing:
            raise ConfigError(
                f"{self.path}: holds a run with another configuration ({'; '.join(differing[:3])}); "
                "choose another --output, or restore these settings to go on with it"
            )

    def write_environment(self) -> None:
        """Notes versions, hardware, revision and command in environment.json."""
        facts = {
            "detector": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "cuda": torch.version.cuda if torch.cuda.is_available() else None,
            "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
            "cpu": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "system": platform.platform(),
            "git_revision": _git_revision(),
            "command": sys.argv,
        }
        (self.path / "environment.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        names = dict.fromkeys([*old, *new])
        return [
            line
            for name in names
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [f"{key}: {old} there, {new} here"]


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


class RunLog:
    """metrics.jsonl, TensorBoard, train.log and the progress bar of the main process.

    Args:
        path: the run's folder.
        first_iteration: where this part of the run begins; later records of an earlier part are taken out.
        iterations: of the whole run.

    Attributes:
        evaluations: the headline of each evaluation so far, by iteration.
    """

    def __init__(self, path: Path, first_iteration: int, iterations: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.evaluations: dict[int, float] = {}
        self._metrics = path / "metrics.jsonl"
        self._cut(first_iteration)
        self._board = SummaryWriter(str(path / "tensorboard"), purge_step=first_iteration)
        self._bar = tqdm(
            total=iterations, initial=first_iteration, unit="it", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )
        self._start = time.monotonic()
        self._first = first_iteration
        self._iterations = iterations

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        self._board.close()

    def advance(self) -> None:
        """Counts one iteration on the progress bar."""
        self._bar.update()

    def training(self, record: dict[str, float]) -> None:
        """Writes the numbers of an iteration, and a line for people."""
        done = int(record["iteration"])
        left = (time.monotonic() - self._start) / max(1, done - self._first) * (self._iterations - done)
        self._append(record)
        for name, value in record.items():
            if name != "iteration":
                self._board.add_scalar(f"train/{name}", value, done)
        line = (
            f"loss {record['loss']:.3f}  rate {record['learning_rate']:.2g}  "
            f"{record['images_per_second']:.1f} images/s  waiting for data {record['data_wait']:.0%}  "
            f"{record['memory_mib']:.0f} MiB  {_duration(left)} left"
        )
        if self._bar.disable:
            _log.info("iteration %d of %d: %s", done, self._iterations, line)
        else:
            self._bar.set_postfix_str(line)
            _log.debug("iteration %d of %d: %s", done, self._iterations, line)

    def evaluation(self, iteration: int, metrics: dict[str, Any], headline: float) -> None:
        """Writes the metrics of an evaluation."""
        self.evaluations[iteration] = headline
        self._append({"iteration": iteration, "headline": headline, **metrics})
        for group in ("coco", "voc07", "voc"):
            for name, value in metrics.get(group, {}).items():
                if value is not None:
                    self._board.add_scalar(f"{group}/{name}", value, iteration)

    def _append(self, record: dict[str, Any]) -> None:
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _cut(self, first_iteration: int) -> None:
        """A killed run may have logged iterations that its last checkpoint does not hold; they will come again."""
        if not self._metrics.exists():
            return
        kept = []
        for line in self._metrics.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                if record["iteration"] > first_iteration:
                    continue
            except (ValueError, KeyError):
                continue  # the line that was being written
            kept.append(line + "\n")
            if "headline" in record:
                self.evaluations[record["iteration"]] = record["headline"]
        temporary = self._metrics.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, self._metrics)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
