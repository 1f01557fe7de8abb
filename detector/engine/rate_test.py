"""Learning-rate range test: at which rate does the loss fall? (Smith 2015, "Cyclical Learning Rates", section 3.3)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator

from tqdm import tqdm

from detector.data.loader import Batch, iterate
from detector.durable import replace_file
from detector.engine.trainer import Trainer
from detector.errors import TrainingError
from detector.visualization.plots import plot_rate_test

_log = logging.getLogger(__name__)

ITERATIONS = 100
_LOWEST, _HIGHEST = 1e-7, 1.0
_SMOOTHING = 0.9
_BLOWN_UP = 3.0  # times the best smoothed loss


def find_learning_rate(trainer: Trainer) -> float:
    """Trains for some iterations while the rate rises exponentially; writes learning_rate.jsonl and .png.

    Args:
        trainer: new; its weights are spent afterwards.

    Returns:
        A rate to start with: a third of the one at which the smoothed loss was lowest, which leaves it room to fall for
        longer than this test.

    Raises:
        TrainingError: not even the lowest rate gives a finite loss.
    """
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    for rate, parts in _rising(trainer):
        update = trainer.learner.update(parts, len(rates), rate)
        loss = sum(update.losses.values())
        if not update.made or (smoothed and loss > _BLOWN_UP * min(smoothed)):
            _log.info("the loss blows up at a learning rate of %.2g", rate)
            break
        rates.append(rate)
        losses.append(loss)
        smoothed.append(_smooth(losses))
    if not rates:
        raise TrainingError("the loss is not finite even at a learning rate of 1e-7; look at data and weights")
    best = rates[smoothed.index(min(smoothed))] / 3
    if trainer.processes.is_main:
        records = [
            {"learning_rate": rate, "loss": loss, "smoothed": mean}
            for rate, loss, mean in zip(rates, losses, smoothed, strict=True)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        replace_file(trainer.folder.path / "learning_rate.jsonl", lines)
        plot_rate_test(trainer.folder.path / "learning_rate.png", rates, losses, smoothed, best)
    return best


def _rising(trainer: Trainer) -> Iterator[tuple[float, list[Batch]]]:
    data = trainer.config.data
    numbers = range(ITERATIONS * trainer.accumulation)
    stream = iterate(trainer.batches, numbers, data.workers, trainer.device, data.worker_timeout)
    for number in tqdm(range(ITERATIONS), "rising learning rate", disable=None if trainer.processes.is_main else True):
        rate = _LOWEST * (_HIGHEST / _LOWEST) ** (number / (ITERATIONS - 1))
        with trainer.processes.together():
            parts = [next(stream) for _ in range(trainer.accumulation)]
        yield rate, parts


def _smooth(losses: list[float]) -> float:
    """The exponential mean, corrected for its start."""
    weights = [_SMOOTHING ** (len(losses) - 1 - index) for index in range(len(losses))]
    return math.fsum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / math.fsum(weights)
