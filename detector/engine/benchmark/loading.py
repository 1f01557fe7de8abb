"""Images a second that the loader prepares, with no network to wait for it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader

from detector.config.schema import Config
from detector.data.build import open_split, wide_images
from detector.data.dataset import DetectionDataset
from detector.data.loader import TrainingBatches, iterate
from detector.data.sampler import TrainingOrder
from detector.data.transforms import TrainTransform
from detector.engine.benchmark.loading_peers import PeerBatches
from detector.engine.benchmark.timing import Summary
from detector.engine.machine import PREFETCHED
from detector.errors import UsageError

_log = logging.getLogger(__name__)

_BATCHES = 8


@dataclass(frozen=True)
class Loading:
    """Data loading alone.

    Attributes:
        way: whose loading: "ours", or a key of ``loading_peers.WAYS``.
        workers: processes.
        images_per_second: from the first batch to the last, so that starting the workers does not count.
        cpu_per_image: CPU seconds of all processes, their start included.
    """

    way: str
    workers: int
    images_per_second: Summary
    cpu_per_image: float


def measure_loading(config: Config, batch: int, rounds: int, against: Sequence[str] = ()) -> list[Loading]:
    """Reads batches of ``data.train`` with 0 to ``data.workers`` processes, in turns.

    Args:
        config: all settings.
        batch: images at once.
        rounds: of each number of workers.
        against: keys of ``loading_peers.WAYS``: other ways to load the same images.

    Raises:
        DetectorError: the data cannot be read.
    """
    dataset = open_split(config, "train")
    if against and any(item.format == "shapes" for item in config.data.train):
        raise UsageError("--against: shapes are drawn, and other toolkits read files; give a configuration of files")
    cases = [(way, workers) for workers in range(config.data.workers + 1) for way in ("ours", *against)]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    cpu: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for number in range(rounds):
        _log.info("data: round %d of %d", number + 1, rounds)
        for case in cases:
            rate, spent = _read(dataset, config, batch, *case)
            rates[case].append(rate)
            cpu[case].append(spent)
    return [Loading(*case, Summary.of(rates[case]), Summary.of(cpu[case]).median) for case in cases]


def _read(dataset: DetectionDataset, config: Config, batch: int, way: str, workers: int) -> tuple[float, float]:
    """Images a second on the wall, and CPU seconds an image."""
    order = TrainingOrder(wide_images(dataset), batch, config.seed)
    batches = TrainingBatches(dataset, order, TrainTransform(config.data, config.seed), 0, 1, batch)
    # The first batches are ready at once: what the workers have prepared ahead would count as speed.
    unread = 1 + PREFETCHED * workers
    numbers = range(unread + _BATCHES)
    stream: Iterator[object]
    if way == "ours":
        stream = iterate(batches, numbers, workers, torch.device("cpu"), config.data.worker_timeout)
    else:
        prefetched = PREFETCHED if workers else None
        loader = DataLoader(
            PeerBatches(batches, way), batch_size=None, sampler=numbers, num_workers=workers,
            prefetch_factor=prefetched,
        )  # fmt: skip
        stream = iter(loader)
    before, ends = os.times(), []
    for _ in stream:
        ends.append(time.perf_counter())
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    return batch * _BATCHES / (ends[-1] - ends[unread - 1]), spent / (batch * len(ends))
