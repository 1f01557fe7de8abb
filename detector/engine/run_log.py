"""What a training tells: metrics.jsonl, TensorBoard, train.log and the progress bar."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from typing_extensions import Self

from detector.durable import not_a_link, replace_file
from detector.errors import MachineError

_log = logging.getLogger(__name__)

_PICTURES = 4


class RunLog:
    """metrics.jsonl, TensorBoard, train.log and the progress bar of the main process.

    Args:
        path: the run's folder.
        first_iteration: where this part of the run begins; later records of an earlier part are taken out.
        iterations: of the whole run.

    Attributes:
        path: of metrics.jsonl.
        evaluations: the headline of each evaluation so far, by iteration.
    """

    def __init__(self, path: Path, first_iteration: int, iterations: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.evaluations: dict[int, float] = {}
        self.path = path / "metrics.jsonl"
        self._cut(first_iteration)
        self._board: Any = SummaryWriter(str(path / "tensorboard"), purge_step=first_iteration + 1)
        self._bar = tqdm(
            total=iterations, initial=first_iteration, unit="it", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )
        self._hook, threading.excepthook = threading.excepthook, self._of_a_thread
        self._start = time.monotonic()
        self._first = first_iteration
        self._iterations = iterations

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        threading.excepthook = self._hook
        if self._board is not None:
            with suppress(OSError):
                self._board.close()

    def _of_a_thread(self, failed: threading.ExceptHookArgs) -> None:
        """TensorBoard's thread cannot write; ``_draw`` tells of it."""
        if not isinstance(failed.exc_value, OSError):
            self._hook(failed)

    def advance(self) -> None:
        """Counts one iteration on the progress bar."""
        self._bar.update()

    def training(self, record: dict[str, float]) -> None:
        """Writes the numbers of an iteration, and a line for people."""
        done = int(record["iteration"])
        left = (time.monotonic() - self._start) / max(1, done - self._first) * (self._iterations - done)
        self._append(record)
        self._draw({f"train/{name}": value for name, value in record.items() if name != "iteration"}, done)
        loss = f"loss {record['loss']:.3f}" if "loss" in record else "no update"
        error = f"  error {record['error']:.1%}" if "error" in record else ""
        line = (
            f"{loss}{error}  rate {record['learning_rate']:.2g}  "
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
        groups = {group: metrics.get(group, {}) for group in ("coco", "voc07", "voc", "classification")}
        values = {f"{group}/{name}": value for group, row in groups.items() for name, value in row.items()}
        self._draw({name: value for name, value in values.items() if value is not None}, iteration)

    def pictures(self, iteration: int, folder: Path) -> None:
        """Shows the first drawn images of an evaluation in TensorBoard."""
        for path in sorted(folder.glob("*.jpg"))[:_PICTURES]:
            with suppress(OSError), Image.open(path) as image:
                if self._board is not None:
                    self._board.add_image(f"evaluation/{path.stem}", np.asarray(image), iteration, dataformats="HWC")

    def draw_curves(self) -> None:
        """Draws losses, learning rate and evaluations of the whole run to curves.png."""
        from detector.visualization.plots import plot_training

        with suppress(MachineError, OSError):
            lines = self.path.read_text(encoding="utf-8").splitlines()
            plot_training(self.path.with_name("curves.png"), [json.loads(line) for line in lines])

    @property
    def best(self) -> int | None:
        """The iteration of the best evaluation so far, the latest of equal ones."""
        return max(self.evaluations, key=lambda done: (self.evaluations[done], done), default=None)

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations came after the first of the best ones."""
        values = list(self.evaluations.values())
        return len(values) - 1 - values.index(max(values)) if values else 0

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(not_a_link(self.path), "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            _log.warning("%s: a record is lost (%s); training goes on; make room", self.path, error.strerror)

    def _draw(self, values: dict[str, float], iteration: int) -> None:
        if self._board is None:
            return
        try:
            for name, value in values.items():
                self._board.add_scalar(name, value, iteration)
        except OSError as error:
            _log.warning("TensorBoard cannot be written (%s) and is left aside", error.strerror)
            self._board = None

    def _cut(self, first_iteration: int) -> None:
        """A killed run may have logged iterations that its last checkpoint does not hold; they will come again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                if record["iteration"] > first_iteration:
                    continue
            except (ValueError, KeyError, TypeError):
                continue  # the line that was being written
            kept.append(line + "\n")
            if "headline" in record:
                self.evaluations[record["iteration"]] = record["headline"]
        replace_file(self.path, "".join(kept))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
