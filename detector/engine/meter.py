"""What the log says of the iterations since its last line."""

from __future__ import annotations

import math
import time
from typing import Any

import psutil
import torch

from detector.engine.learner import Update


class Meter:
    """Means over the iterations since it was last read.

    Args:
        batch_size: images an iteration.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.losses: tuple[str, ...] = ()
        self.skipped = 0
        self.timed = 0
        self.waited = 0.0
        self.started = time.monotonic()

    def add(self, update: Update, waited: float) -> None:
        """Takes an update and the seconds that it waited for data; one that was not made counts as skipped."""
        self.timed += 1
        self.waited += waited
        self.skipped += not update.made
        self.losses = tuple(update.losses)
        for name, value in {**update.losses, **update.measures, "gradient_norm": update.gradient_norm}.items():
            if math.isfinite(value):
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def read(self, device: torch.device) -> dict[str, float]:
        """Means of what was finite, updates skipped, images a second, share of the time spent waiting, and memory."""
        passed = max(time.monotonic() - self.started, 1e-9)
        means = {name: value / self.counts[name] for name, value in self.sums.items() if self.counts[name]}
        complete = bool(self.losses) and set(self.losses) <= set(means)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            memory = psutil.Process().memory_info().rss
        result = {
            **({"loss": sum(means[name] for name in self.losses)} if complete else {}),
            **means,
            "skipped": self.skipped,
            "images_per_second": self.timed * self.batch_size / passed,
            "data_wait": self.waited / passed,
            "memory_mib": memory / 2**20,
        }
        self._clear()
        return result

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs for its next log line to be the one of a run that never stopped."""
        return {"sums": dict(self.sums), "counts": dict(self.counts), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        self.sums.update(state["sums"])
        self.counts.update(state["counts"])
        self.skipped = state["skipped"]
