"""What the log says of the iterations since its last line."""

from __future__ import annotations

import time
from typing import Any

import psutil
import torch

from detector.engine.learner import LOSSES, Update


class Meter:
    """Means over the iterations since it was last read.

    Args:
        batch_size: images an iteration.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self.sums = dict.fromkeys((*LOSSES, "gradient_norm"), 0.0)
        self.iterations = 0
        self.skipped = 0
        self.timed = 0
        self.waited = 0.0
        self.started = time.monotonic()

    def add(self, update: Update, waited: float) -> None:
        """Takes an update and the seconds that it waited for data; one that was not made counts as skipped."""
        self.timed += 1
        self.waited += waited
        if not update.made:
            self.skipped += 1
            return
        self.iterations += 1
        for name, value in {**update.losses, "gradient_norm": update.gradient_norm}.items():
            self.sums[name] += value

    def read(self, device: torch.device) -> dict[str, float]:
        """Mean losses and gradient norm (if there was an update), updates skipped, speed, waiting for data, memory."""
        passed = max(time.monotonic() - self.started, 1e-9)
        means = {name: value / self.iterations for name, value in self.sums.items() if self.iterations}
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            memory = psutil.Process().memory_info().rss
        result = {
            **({"loss": sum(means[name] for name in LOSSES)} if means else {}),
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
        return {"sums": dict(self.sums), "iterations": self.iterations, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        self.sums.update(state["sums"])
        self.iterations, self.skipped = state["iterations"], state["skipped"]
