"""Training from the first iteration, or from a checkpoint, to the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import numpy as np
import psutil
import torch

from detector.config.load import dump_config
from detector.config.schema import Config
from detector.data.build import wide_images
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch, TrainingBatches, iterate
from detector.data.sampler import TrainingOrder
from detector.data.transforms import TrainTransform
from detector.engine.checkpoint import TrainingState, save_checkpoint
from detector.engine.distributed import Processes
from detector.engine.evaluation import evaluate_model
from detector.engine.learner import LOSSES, Learner
from detector.engine.optim import learning_rate
from detector.engine.run_log import RunFolder, RunLog
from detector.engine.signals import StopRequest
from detector.errors import DetectorError, Interrupted, MachineError, TrainingError, WeightsError, quote
from detector.evaluation.score import Metrics, format_metrics, headline
from detector.models.faster_rcnn import FasterRCNN
from detector.visualization.draw import draw_batch, save_image
from detector.weights.own_file import WeightsInfo, save_weights

_log = logging.getLogger(__name__)


class Trainer:
    """One run.

    Args:
        config: all settings.
        model: with its initial weights.
        train_set: what to train on.
        val_set: what to evaluate on; None if nothing is evaluated.
        folder: the run's; only the main process writes there.
        device: where to compute.
        processes: all that train together.

    Raises:
        ConfigError: the batch cannot be split over the processes, or an augmentation does not exist.
    """

    def __init__(
        self,
        config: Config,
        model: FasterRCNN,
        train_set: DetectionDataset,
        val_set: DetectionDataset | None,
        folder: RunFolder,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.config, self.folder, self.device, self.processes = config, folder, device, processes
        self.train_set, self.val_set = train_set, val_set
        batch_size = config.training.batch_size
        micro = processes.share_of(batch_size, config.training.micro_batch_size)
        self.accumulation = batch_size // processes.world_size // micro
        wide = wide_images(train_set)
        order = TrainingOrder(wide if config.data.group_by_aspect_ratio else wide | True, batch_size, config.seed)
        transform = TrainTransform(config.data, config.seed)
        self.batches = TrainingBatches(train_set, order, transform, processes.rank, processes.world_size, micro)
        self.learner = Learner(model, config.training, device, processes)
        self.iteration = 0

    def restore(self, state: TrainingState) -> None:
        """Goes on from a checkpoint.

        Raises:
            WeightsError: it is of another network.
        """
        try:
            self.learner.model.load_state_dict(state.model)
            self.learner.load_state_dict(state.learner)
        except (RuntimeError, ValueError, KeyError):
            raise WeightsError(
                f"the checkpoint of iteration {state.iteration} does not fit the network; "
                "has the data set other classes now? choose another --output"
            ) from None
        self.iteration = state.iteration

    def summary(self) -> list[str]:
        """What will be done, in lines for the log."""
        training, annotations = self.config.training, self.train_set.annotations
        late = [step for step in training.schedule.steps if step >= training.iterations]
        if late:
            _log.warning("training.schedule.steps %s lie beyond the last iteration and never come", late)
        empty = int((np.diff(annotations.rows) == 0).sum())
        parameters = sum(value.numel() for value in self.learner.model.parameters() if value.requires_grad)
        seen = training.iterations * training.batch_size / len(self.train_set)
        classes = ", ".join(quote(name) for name in annotations.class_names[:8])
        return [
            f"ResNet-{self.config.model.backbone.depth} C4, {parameters / 1e6:.1f} million trained parameters, "
            f"on {self.device} in {training.precision}",
            f"{len(self.train_set)} images ({empty} without objects), {len(annotations.labels)} objects of "
            f"{len(annotations.class_names)} classes: {classes}{', ...' if len(annotations.class_names) > 8 else ''}",
            f"{training.iterations} iterations of {training.batch_size} images ({seen:.1f} epochs): "
            f"{self.processes.world_size} process(es) x {self.accumulation} micro-batch(es) x "
            f"{self.batches.micro_batch_size} image(s); learning rate {training.learning_rate:g}",
        ]

    def train(self) -> Metrics | None:
        """Runs to the last iteration and writes ``model_final.safetensors``.

        Returns:
            The metrics of the last evaluation of this call, if there was one.

        Raises:
            Interrupted: a signal came; the state is saved.
            TrainingError: the loss is no longer finite.
            DetectorError: a sample cannot be read, or the disk is full; the state is saved where that can be.
        """
        total = self.config.training.iterations
        metrics: Metrics | None = None
        with ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            log = None
            if self.processes.is_main:
                log = stack.enter_context(RunLog(self.folder.path, self.iteration, total))
            stack.enter_context(self._saved_on_error())
            if self.processes.from_main(self._evaluation_is_missing(log)):
                metrics = self._evaluate(log, stop)
            for stopping in self._iterations(log, stop):
                done = self.iteration == total
                if stopping and not done:
                    self._interrupt(stop)
                if done or _falls_on(self.iteration, self.config.training.checkpoint_every):
                    self._save()
                if self._evaluation_is_due():
                    metrics = self._evaluate(log, stop)
        self._write_weights("model_final.safetensors")
        return metrics

    def _iterations(self, log: RunLog | None, stop: StopRequest) -> Iterator[bool]:
        """Does one iteration after another; yields whether a process has been asked to stop."""
        training = self.config.training
        numbers = range(self.iteration * self.accumulation, training.iterations * self.accumulation)
        stream = iterate(self.batches, numbers, self.config.data.workers, self.device)
        meter = _Meter(training.batch_size)
        while self.iteration < training.iterations:
            waiting = time.monotonic()
            parts = [next(stream) for _ in range(self.accumulation)]
            waited = time.monotonic() - waiting
            if self.iteration == 0 and self.processes.is_main:
                self._draw_first(parts)
            losses, stopping = self.learner.update(parts, self.iteration, bool(stop))
            self.iteration += 1
            meter.add(losses, waited)
            if log is not None:
                log.advance()
            if self.iteration % training.log_every == 0 or self.iteration == training.iterations:
                record = {"iteration": self.iteration, "learning_rate": learning_rate(training, self.iteration - 1)}
                record |= meter.read(self.device)
                if log is not None:
                    log.training(record)
            yield stopping

    def _evaluation_is_due(self) -> bool:
        every, done = self.config.training.evaluate_every, self.iteration == self.config.training.iterations
        return self.val_set is not None and every > 0 and self.iteration > 0 and (done or self.iteration % every == 0)

    def _evaluation_is_missing(self, log: RunLog | None) -> bool:
        """The run was stopped between a checkpoint and the end of the evaluation that follows it."""
        return log is not None and self._evaluation_is_due() and self.iteration not in log.evaluations

    def _evaluate(self, log: RunLog | None, stop: StopRequest) -> Metrics:
        assert self.val_set is not None
        metrics = evaluate_model(
            self.learner.model,
            self.val_set,
            self.config,
            self.device,
            self.processes,
            self.folder.evaluation,
            lambda: bool(stop),
        )
        if metrics is None:
            self._interrupt(stop)
        if log is not None:
            value = headline(metrics) or 0.0
            if value >= max(log.evaluations.values(), default=0.0):
                self._write_weights("model_best.safetensors")
            log.evaluation(self.iteration, metrics, value)
            _log.info("evaluation at iteration %d\n%s", self.iteration, format_metrics(metrics))
        return metrics

    def _interrupt(self, stop: StopRequest) -> NoReturn:
        self._save()
        number = stop.signal_number or 15
        raise Interrupted(
            f"stopped by signal {number} after iteration {self.iteration} of {self.config.training.iterations}; "
            f"the state is saved in {self.folder.checkpoints}; start the same command again to go on",
            128 + number,
        )

    @contextmanager
    def _saved_on_error(self) -> Iterator[None]:
        """A sample that cannot be read shall not cost the iterations before it."""
        try:
            yield
        except (Interrupted, TrainingError, MachineError):
            raise
        except DetectorError:
            self._save()
            raise

    def _save(self) -> None:
        if self.processes.is_main and self.iteration:
            state = TrainingState(self.iteration, self.learner.model.state_dict(), self.learner.state_dict())
            save_checkpoint(self.folder.checkpoints, state, self.config.training.keep_checkpoints)

    def _write_weights(self, name: str) -> None:
        if self.processes.is_main:
            annotations = self.train_set.annotations
            info = WeightsInfo(
                dump_config(self.config), annotations.class_names, annotations.category_ids, self.iteration
            )
            save_weights(self.folder.path / name, self.learner.model.state_dict(), info)

    def _draw_first(self, parts: list[Batch]) -> None:
        """The first batch as the network gets it, for a look at boxes and augmentation."""
        pictures = [
            (image[:, : size.height, : size.width], target)
            for part in parts
            for image, size, target in zip(part.images.pixels, part.images.sizes, part.targets, strict=True)
        ]
        path = self.folder.samples / "first_batch.jpg"
        save_image(path, draw_batch(pictures, self.train_set.annotations.class_names))
        _log.info("the first batch, augmented, with its boxes: %s", path)


class _Meter:
    """Means over the iterations since it was last read."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self.sums = dict.fromkeys(LOSSES, 0.0)
        self.iterations = 0
        self.waited = 0.0
        self.started = time.monotonic()

    def add(self, losses: dict[str, float], waited: float) -> None:
        """Takes the losses of an iteration and the seconds that it waited for data."""
        self.iterations += 1
        self.waited += waited
        for name, value in losses.items():
            self.sums[name] += value

    def read(self, device: torch.device) -> dict[str, float]:
        """Mean losses, images a second, share of the time spent waiting for data, and memory."""
        passed = max(time.monotonic() - self.started, 1e-9)
        means = {name: value / self.iterations for name, value in self.sums.items()}
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            memory = psutil.Process().memory_info().rss
        result = {
            "loss": sum(means.values()),
            **means,
            "images_per_second": self.iterations * self.batch_size / passed,
            "data_wait": self.waited / passed,
            "memory_mib": memory / 2**20,
        }
        self._clear()
        return result


def _falls_on(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0
