"""What a training is about to do, in lines for the log."""

from __future__ import annotations

import logging

import numpy as np

from detector.engine.optim import schedule_steps
from detector.engine.trainer import Trainer
from detector.errors import quote

_log = logging.getLogger(__name__)

_SHOWN = 8


def summarise(trainer: Trainer) -> list[str]:
    """Network, data, and the recipe with how the processes share it; warns of what cannot be meant."""
    config, annotations = trainer.config, trainer.train_set.annotations
    training, processes = config.training, trainer.processes
    late = [step for step in schedule_steps(training) if step >= training.iterations]
    if late:
        _log.warning("training.schedule.steps %s lie beyond the last iteration and never come", late)
    objects = np.bincount(annotations.labels, minlength=len(annotations.class_names))
    absent = [name for name, count in zip(annotations.class_names, objects, strict=True) if not count]
    if absent:
        _log.warning("classes without any object in data.train cannot be learned: %s", _names(absent))
    sampling = _sampling(trainer)
    parameters = sum(value.numel() for value in trainer.learner.model.parameters() if value.requires_grad)
    seen = training.iterations * training.batch_size / trainer.order.epoch_length
    average = f"; weights averaged, decay {training.ema_decay:g}" if training.ema_decay else ""
    return [
        f"{trainer.task.network(config)}, {parameters / 1e6:.1f} million trained parameters, "
        f"on {trainer.device} in {training.precision}",
        f"{trainer.task.content(annotations)} of {len(annotations.class_names)} classes: "
        f"{_names(annotations.class_names)}{sampling}",
        f"{training.iterations} iterations of {training.batch_size} images ({seen:.1f} epochs): "
        f"{processes.world_size} process(es) x {trainer.accumulation} micro-batch(es) x "
        f"{trainer.batches.micro_batch_size} image(s); learning rate {training.learning_rate:g}, "
        f"{training.schedule.kind}, whatever the number of processes{average}",
    ]


def _sampling(trainer: Trainer) -> str:
    """How an epoch differs from each image once."""
    data, repeats = trainer.config.data, trainer.order.repeats
    if repeats is None:
        return ""
    if data.sampling == "repeat_factor" and not (repeats > 1).any():
        _log.warning(
            "data.sampling=repeat_factor changes nothing: every class is in %g of the images or more; "
            "raise data.repeat_threshold",
            data.repeat_threshold,
        )
    return f"; an epoch shows {trainer.order.epoch_length} images, one up to {repeats.max():.1f} x ({data.sampling})"


def _names(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(quote(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
