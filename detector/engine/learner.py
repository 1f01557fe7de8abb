"""One update of the weights from one whole batch."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detector.config.schema import TrainingConfig
from detector.data.loader import Batch
from detector.engine.device import autocast
from detector.engine.distributed import Processes
from detector.engine.optim import build_optimizer, learning_rate
from detector.errors import TrainingError
from detector.models.faster_rcnn import FasterRCNN

LOSSES = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")


class Learner:
    """The network with its optimiser.

    Args:
        model: with its initial weights; it is moved to ``device``.
        config: the training section.
        device: where to compute.
        processes: all that train together.
    """

    def __init__(self, model: FasterRCNN, config: TrainingConfig, device: torch.device, processes: Processes) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.model = model.to(device).train()
        self.optimizer = build_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._parallel: nn.Module = self.model
        if processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self._parallel = DistributedDataParallel(self.model, device_ids=ids, broadcast_buffers=False)

    def update(self, parts: list[Batch], iteration: int, stop: bool) -> tuple[dict[str, float], bool]:
        """Accumulates the gradients of the micro-batches and steps once.

        Args:
            parts: micro-batches of this process, all of one size.
            iteration: counted from 0.
            stop: this process has been asked to stop.

        Returns:
            The losses, means over the whole batch of all processes, and whether any process was asked to stop.

        Raises:
            TrainingError: the loss is not finite; the weights are untouched.
        """
        rate = learning_rate(self.config, iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self._backward(parts)
        # One message carries both, so that all processes decide alike at the cost of one synchronisation.
        *values, stopping = self.processes.mean(torch.cat([losses, losses.new_tensor([float(stop)])])).tolist()
        self._check_finite(values, iteration, rate, parts)
        if self.config.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return dict(zip(LOSSES, values, strict=True)), stopping > 0

    def state_dict(self) -> dict[str, Any]:
        """The state of optimiser and gradient scaler; tensors and plain values."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _backward(self, parts: list[Batch]) -> Tensor:
        """Gradients of the mean over the micro-batches; returns the four losses."""
        sums = torch.zeros(len(LOSSES), device=self.device)
        for number, part in enumerate(parts, start=1):
            parallel = self._parallel
            more = number < len(parts) and isinstance(parallel, DistributedDataParallel)
            with cast(DistributedDataParallel, parallel).no_sync() if more else nullcontext():
                images, targets = part.images.to(self.device), [target.to(self.device) for target in part.targets]
                with autocast(self.device, self.config.precision):
                    losses = parallel(images, targets)
                shares = torch.stack([losses[name] for name in LOSSES]) / len(parts)
                self.scaler.scale(shares.sum()).backward()  # type: ignore[no-untyped-call]
            sums += shares.detach()
        return sums

    def _check_finite(self, values: list[float], iteration: int, rate: float, parts: list[Batch]) -> None:
        if all(math.isfinite(value) for value in values):
            return
        shown = ", ".join(f"{name} {value:.4g}" for name, value in zip(LOSSES, values, strict=True))
        images = ", ".join(str(info.image_id) for part in parts for info in part.infos)
        raise TrainingError(
            f"iteration {iteration + 1}: the loss is not finite ({shown}; learning rate {rate:.3g}; "
            f"images {images}); lower training.learning_rate or set training.gradient_clip, and start in a new folder"
        )
