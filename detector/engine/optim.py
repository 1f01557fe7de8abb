"""The optimiser and the learning rate over time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from detector.config.schema import Config, ScheduleConfig, TrainingConfig
from detector.models.trainable import Trainable


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over what is trained; the parameters of norms do not decay.

    Each group has a ``factor`` on the learning rate: ``config.body_rate`` for the body of a network, else 1.
    """
    slow: set[Tensor] = set()
    if config.body_rate != 1 and isinstance(model, Trainable):
        slow = {parameter for module in model.body for parameter in module.parameters()}
    norms = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm)
    undecayed = {
        parameter for module in model.modules() if isinstance(module, norms) for parameter in module.parameters()
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [item for item in trained if (item in slow) == is_slow and (item in undecayed) == is_norm],
            "weight_decay": 0.0 if is_norm else config.weight_decay,
            "factor": config.body_rate if is_slow else 1.0,
        }
        for is_slow in (True, False)
        for is_norm in (False, True)
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.nesterov)


def learning_rate(config: TrainingConfig, iteration: int) -> float:
    """The rate of an iteration, counted from 0; a function of the iteration alone, so that resuming cannot shift it."""
    return config.learning_rate * _warmup(config.schedule, iteration) * _decay(config, iteration)


def _warmup(schedule: ScheduleConfig, iteration: int) -> float:
    if iteration >= schedule.warmup_iterations:
        return 1.0
    progress = iteration / schedule.warmup_iterations
    return schedule.warmup_factor * (1 - progress) + progress


def _decay(config: TrainingConfig, iteration: int) -> float:
    schedule = config.schedule
    if schedule.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * iteration / config.iterations))
    return schedule.factor ** sum(iteration >= step for step in schedule_steps(config))


def schedule_steps(config: TrainingConfig) -> list[int]:
    """The iterations at which the rate falls."""
    return [round(step * config.iterations) if step < 1 else int(step) for step in config.schedule.steps]


def with_iterations(config: Config, images: int) -> Config:
    """The configuration with ``training.epochs`` turned into iterations.

    Args:
        config: all settings.
        images: that an epoch shows.
    """
    training = config.training
    if training.epochs is None:
        return config
    iterations = math.ceil(training.epochs * images / training.batch_size)
    return config.model_copy(update={"training": training.model_copy(update={"iterations": iterations})})
