"""One update of the weights from one whole batch."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from detector.config.schema import TrainingConfig
from detector.data.loader import Batch
from detector.engine.average import WeightAverage
from detector.engine.device import autocast
from detector.engine.distributed import Processes
from detector.engine.optim import build_optimizer
from detector.errors import ConfigError
from detector.models.trainable import Trainable

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Update:
    """What came of a batch; the same on all processes.

    Attributes:
        losses: means over the whole batch.
        gradient_norm: of all trained parameters together, before clipping.
        made: False if the weights are untouched: it diverged, or fp16's gradient overflowed.
        diverged: a loss was not finite, or the gradient without the excuse of fp16.
        measures: what else the network tells, means over the whole batch.
    """

    losses: dict[str, float]
    gradient_norm: float
    made: bool
    diverged: bool = False
    measures: dict[str, float] = field(default_factory=dict)


class Learner:
    """The network with its optimiser and, if asked for, the average of its weights.

    Args:
        model: with its initial weights; it is moved to ``device``.
        config: the training section.
        device: where to compute.
        processes: all that train together.

    Raises:
        ConfigError: the kind of norm does not work over several processes on this device.

    Attributes:
        skipped_in_row: batches without an update since the last one with.
    """

    def __init__(self, model: Trainable, config: TrainingConfig, device: torch.device, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.model = model.to(device).train()
        self.average = WeightAverage(self.model, config.ema_decay) if config.ema_decay else None
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.skipped_in_row = 0
        batch_norms = (nn.BatchNorm2d, nn.SyncBatchNorm)
        self._statistics = [
            value for module in self.model.modules() if isinstance(module, batch_norms) for value in module.buffers()
        ]
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._parallel: nn.Module = self.model
        if processes.world_size > 1:
            if device.type == "cpu" and any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
                raise ConfigError("model.backbone.norm: sync_batch works on GPUs alone; set batch or group")
            ids = [device.index] if device.type == "cuda" else None
            # What is frozen needs no gradient, and DDP leaves it out by itself.
            self._parallel = DistributedDataParallel(self.model, device_ids=ids)

    @property
    def best_model(self) -> Trainable:
        """The network to evaluate and to keep: the average where there is one."""
        return self.model if self.average is None else cast(Trainable, self.average.model)

    def update(self, parts: list[Batch], iteration: int, rate: float) -> Update:
        """Accumulates the gradients of the micro-batches and steps once, if all numbers are finite.

        Args:
            parts: micro-batches of this process, all of one size.
            iteration: counted from 0.
            rate: learning rate.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        statistics = [value.clone() for value in self._statistics]
        found = self.processes.mean(self._backward(parts))
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([value.grad for value in self._trained if value.grad is not None])
        *values, gradient_norm = torch.cat([found, norm.reshape(1).to(found)]).tolist()
        # In fp16 a gradient may overflow now and then; the scaler leaves that update out and lowers its scale.
        finite = all(map(math.isfinite, values)) and (math.isfinite(gradient_norm) or self.scaler.is_enabled())
        self.skipped_in_row = 0 if finite else self.skipped_in_row + 1
        if finite:
            self._step(norm, iteration)
        else:
            for value, before in zip(self._statistics, statistics, strict=True):
                value.copy_(before)  # they have taken in the batch
            if self.scaler.is_enabled():
                self.scaler.update()  # it insists
        self.optimizer.zero_grad(set_to_none=True)
        made = finite and math.isfinite(gradient_norm)
        names = self.model.losses
        measures = dict(zip(self.model.measures, values[len(names) :], strict=True))
        return Update(dict(zip(names, values, strict=False)), gradient_norm, made, not finite, measures)

    def _step(self, norm: Tensor, iteration: int) -> None:
        if self.config.gradient_clip is not None:
            clip_grads_with_norm_(self._trained, self.config.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, iteration + 1)

    def state_dict(self) -> dict[str, Any]:
        """The state of optimiser and gradient scaler; tensors and plain values."""
        return {
            "kind": self.config.optimizer,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_in_row": self.skipped_in_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        saved, own = state["optimizer"], self.optimizer.state_dict()
        numbers, own_numbers = ([group["params"] for group in part["param_groups"]] for part in (saved, own))
        if state["kind"] == self.config.optimizer and numbers == own_numbers:
            # The settings in the groups are the configuration's, which may be new.
            self.optimizer.load_state_dict({"state": saved["state"], "param_groups": own["param_groups"]})
        else:
            _log.warning("the optimiser, or what it trains, is another one now; it begins without a past")
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_in_row = state["skipped_in_row"]

    def _backward(self, parts: list[Batch]) -> Tensor:
        """Gradients of the mean over the micro-batches; returns losses and measures."""
        losses = len(self.model.losses)
        names = self.model.losses + self.model.measures
        sums = torch.zeros(len(names), device=self.device)
        for number, part in enumerate(parts, start=1):
            parallel = self._parallel
            more = number < len(parts) and isinstance(parallel, DistributedDataParallel)
            with cast(DistributedDataParallel, parallel).no_sync() if more else nullcontext():
                images, targets = part.images.to(self.device), [target.to(self.device) for target in part.targets]
                with autocast(self.device, self.config.precision):
                    found = parallel(images, targets)
                shares = torch.stack([found[name] for name in names]) / len(parts)
                self.scaler.scale(shares[:losses].sum()).backward()  # type: ignore[no-untyped-call]
            sums += shares.detach()
        return sums
