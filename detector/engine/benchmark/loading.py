"""Images a second that the loader prepares, with no network to wait for it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

import torch

from detector.config.schema import Config
from detector.data.build import open_split, wide_images
from detector.data.dataset import DetectionDataset
from detector.data.loader import TrainingBatches, iterate
from detector.data.sampler import TrainingOrder
from detector.data.transforms import TrainTransform
from detector.engine.benchmark.timing import Summary
from detector.engine.machine import PREFETCHED

_log = logging.getLogger(__name__)

_BATCHES = 8


@dataclass(frozen=True)
class Loading:
    """Data loading alone.

    Attributes:
        workers: processes.
        images_per_second: from the first batch to the last, so that starting the workers does not count.
        cpu_per_image: CPU seconds of all processes, their start included.
    """

    workers: int
    images_per_second: Summary
    cpu_per_image: float


def measure_loading(config: Config, batch: int, rounds: int) -> list[Loading]:
    """Reads batches of ``data.train`` with 0 to ``data.workers`` processes, in turns.

    Args:
        config: all settings.
        batch: images at once.
        rounds: of each number of workers.

    Raises:
        DetectorError: the data cannot be read.
    """
    dataset = open_split(config, "train")
    counts = range(config.data.workers + 1)
    rates: dict[int, list[float]] = {workers: [] for workers in counts}
    cpu: dict[int, list[float]] = {workers: [] for workers in counts}
    for number in range(rounds):
        _log.info("data: round %d of %d", number + 1, rounds)
        for workers in counts:
            rate, spent = _read(dataset, config, batch, workers)
            rates[workers].append(rate)
            cpu[workers].append(spent)
    return [Loading(workers, Summary.of(rates[workers]), Summary.of(cpu[workers]).median) for workers in counts]


def _read(dataset: DetectionDataset, config: Config, batch: int, workers: int) -> tuple[float, float]:
    """Images a second on the wall, and CPU seconds an image."""
    order = TrainingOrder(wide_images(dataset), batch, config.seed)
    batches = TrainingBatches(dataset, order, TrainTransform(config.data, config.seed), 0, 1, batch)
    # The first batches are ready at once: what the workers have prepared ahead would count as speed.
    unread = 1 + PREFETCHED * workers
    numbers = range(unread + _BATCHES)
    stream = iterate(batches, numbers, workers, torch.device("cpu"), config.data.worker_timeout)
    before, ends = os.times(), []
    for _ in stream:
        ends.append(time.perf_counter())
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    return batch * _BATCHES / (ends[-1] - ends[unread - 1]), spent / (batch * len(ends))
