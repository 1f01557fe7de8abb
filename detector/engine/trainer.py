"""Training from the first iteration, or from a checkpoint, to the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NoReturn

import torch

from detector.config.load import dump_config
from detector.config.schema import Config
from detector.data.build import training_order
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch, TrainingBatches, iterate
from detector.data.randomness import seed_global_streams
from detector.engine.bad_samples import BadSamples
from detector.engine.checkpoint import TrainingState
from detector.engine.checkpoint_writer import CheckpointWriter
from detector.engine.distributed import Processes
from detector.engine.divergence import explain_divergence, save_diverged
from detector.engine.evaluation import Asked
from detector.engine.learner import Learner, Update
from detector.engine.machine import workers_that_fit
from detector.engine.meter import Meter
from detector.engine.optim import learning_rate
from detector.engine.origin import origin_of
from detector.engine.reporting import draw_first_batch
from detector.engine.run_folder import RunFolder
from detector.engine.run_log import RunLog
from detector.engine.signals import StopRequest, exit_code_of
from detector.engine.task import task_of
from detector.engine.update_errors import update_errors
from detector.errors import (
    DetectorError,
    FailedElsewhere,
    Interrupted,
    MachineError,
    TrainingError,
    WeightsError,
)
from detector.evaluation.score import Metrics
from detector.models.trainable import Trainable
from detector.weights.own_file import WeightsInfo, save_weights

_log = logging.getLogger(__name__)

_SKIPPED_IN_ROW = 3


class Trainer:
    """One run.

    Args:
        config: all settings.
        model: with its initial weights.
        train_set: what to train on.
        val_set: what to evaluate on; None if nothing is evaluated.
        folder: the run's; only the main process writes there, apart from what has a process's number in its name.
        device: where to compute.
        processes: all that train together.

    Raises:
        ConfigError: the batch cannot be split over the processes, or an augmentation does not exist.
    """

    def __init__(
        self,
        config: Config,
        model: Trainable,
        train_set: DetectionDataset,
        val_set: DetectionDataset | None,
        folder: RunFolder,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.config, self.folder, self.device, self.processes = config, folder, device, processes
        self.train_set, self.val_set, self.task = train_set, val_set, task_of(config)
        training = config.training
        micro = processes.share_of(training.batch_size, training.micro_batch_size)
        self.accumulation = training.batch_size // processes.world_size // micro
        self.order = training_order(config, train_set)
        self.batches = TrainingBatches(
            train_set, self.order, self.task.transform(config), processes.rank, processes.world_size,
            micro, skip_bad=config.data.on_bad_sample == "skip",
        )  # fmt: skip
        self.learner = Learner(model, training, device, processes)
        self.meter = Meter(training.batch_size)
        self.origin = origin_of(config, train_set, processes.world_size)
        self.iteration = 0
        self.bad = BadSamples(folder.bad_samples, len(train_set), config.data.max_bad_fraction)

    def restore(self, state: TrainingState) -> None:
        """Goes on from a checkpoint.

        Raises:
            WeightsError: it is of another network.
        """
        try:
            self.learner.model.load_state_dict(state.model)
            self.learner.load_state_dict(state.learner)
            self.meter.load_state_dict(state.meter)
            if self.learner.average is not None:
                # An average that was not asked for before begins at the weights so far.
                self.learner.average.load_state_dict(state.average or state.model)
        except (RuntimeError, ValueError, KeyError):
            raise WeightsError(
                f"the checkpoint of iteration {state.iteration} does not fit the network; "
                "has the data set other classes now? choose another --output"
            ) from None
        self.iteration = state.iteration

    def train(self) -> Metrics | None:
        """Runs to the last iteration, or until it stops early, and writes ``model_final.safetensors``.

        Returns:
            The metrics of the last evaluation of this call, if there was one.

        Raises:
            Interrupted: a signal came; the state is saved.
            TrainingError: the loss is no longer finite.
            DetectorError: a sample cannot be read, a worker was lost, or the disk is full; the state is saved where
                that can be.
        """
        metrics: Metrics | None = None
        with ExitStack() as stack:
            stop = stack.enter_context(StopRequest())
            log = None
            if self.processes.is_main:
                log = stack.enter_context(RunLog(self.folder.path, self.iteration, self.config.training.iterations))
            writer = self._writer(stack)
            stack.enter_context(self._saved_on_error(log, writer))
            if self.processes.from_main(self._evaluation_is_missing(log)):
                metrics = self._evaluate(log, writer, stop)
            for _ in self._iterations(log, writer, stop):
                if self._save_is_due():
                    self._save(log, writer)
                if self._evaluation_is_due():
                    metrics = self._evaluate(log, writer, stop)
            if writer is not None:
                writer.finish(self._state(), log.best if log else None)
            self._write_weights("model_final.safetensors")
            if log is not None:
                log.draw_curves()
        return metrics

    def _writer(self, stack: ExitStack) -> CheckpointWriter | None:
        if not self.processes.is_main:
            return None
        training = self.config.training
        writer = CheckpointWriter(
            self.folder.checkpoints, training.keep_checkpoints, training.keep_every, self.folder.metrics
        )
        writer.last = self.iteration
        stack.callback(writer.close)
        return writer

    def _iterations(self, log: RunLog | None, writer: CheckpointWriter | None, stop: StopRequest) -> Iterator[None]:
        """Does one iteration after another, until the last, or until no evaluation gets better."""
        training, data = self.config.training, self.config.data
        numbers = range(self.iteration * self.accumulation, training.iterations * self.accumulation)
        workers = workers_that_fit(self.config, self.batches.micro_batch_size)
        stream = iterate(self.batches, numbers, workers, self.device, data.worker_timeout)
        while self.iteration < training.iterations and not self._stops_early(log):
            waiting = time.monotonic()
            parts: list[Batch] = []
            with self.processes.together():
                parts += [next(stream) for _ in range(self.accumulation)]
                self.bad.note([item for part in parts for item in part.bad])
                if writer is not None:
                    writer.poll()
            waited = time.monotonic() - waiting
            if self.iteration == 0 and self.processes.is_main:
                draw_first_batch(parts, self.train_set.annotations.class_names, self.folder.samples)
            self.meter.add(self._update(parts), waited)
            self.iteration += 1
            if log is not None:
                log.advance()
            if self.iteration % training.log_every == 0 or self.iteration == training.iterations:
                record = {"iteration": self.iteration, "learning_rate": learning_rate(training, self.iteration - 1)}
                record |= self.meter.read(self.device)
                if log is not None:
                    log.training(record)
            if self.processes.any(bool(stop)) and self.iteration < training.iterations:
                self._interrupt(log, writer, stop)
            yield

    def _update(self, parts: list[Batch]) -> Update:
        training, number = self.config.training, self.iteration + 1
        # What a user's own layer draws from the global generators is the same after a resume, too.
        seed_global_streams(self.config.seed, self.batches.positions(self.iteration * self.accumulation).start)
        rate = learning_rate(training, self.iteration)
        with update_errors(number, parts):
            update = self.learner.update(parts, self.iteration, rate)
        if update.diverged:
            place = save_diverged(
                self.folder.path, self.processes.rank, self.learner, self.config, parts, number, update
            )
            images = self.processes.gather([info.image_id for part in parts for info in part.infos])
            message = explain_divergence(number, update, rate, [name for share in images for name in share], place)
            if training.on_nonfinite_loss == "error" or self.learner.skipped_in_row > _SKIPPED_IN_ROW:
                self.processes.agree(TrainingError(message))
            _log.warning("%s; this update is left out", message)
        return update

    def _save_is_due(self) -> bool:
        every = self.config.training.checkpoint_every
        return (every > 0 and self.iteration % every == 0) or self._evaluation_is_due()

    def _evaluation_is_due(self) -> bool:
        every, done = self.config.training.evaluate_every, self.iteration == self.config.training.iterations
        return self.val_set is not None and every > 0 and self.iteration > 0 and (done or self.iteration % every == 0)

    def _evaluation_is_missing(self, log: RunLog | None) -> bool:
        """The run was stopped between a checkpoint and the end of the evaluation that follows it."""
        return log is not None and self._evaluation_is_due() and self.iteration not in log.evaluations

    def _stops_early(self, log: RunLog | None) -> bool:
        """Whether evaluations no longer get better; a function of the log, so that a resumed run decides alike."""
        patience = self.config.training.early_stopping_patience
        if not patience or not self._evaluation_is_due():
            return False
        stale = self.processes.from_main(None if log is None else log.evaluations_since_best)
        if stale >= patience:
            _log.info("stopped early at iteration %d: no better evaluation in the last %d", self.iteration, stale)
        return bool(stale >= patience)

    def _evaluate(self, log: RunLog | None, writer: CheckpointWriter | None, stop: StopRequest) -> Metrics:
        assert self.val_set is not None
        if writer is not None:
            writer.poll(wait=True)  # the loader's workers are forked, which the writer's thread shall not meet
        self.processes.take_buffers_of_main(self.learner.best_model)
        metrics = self.task.evaluate(
            self.learner.best_model,
            self.val_set,
            self.config,
            self.device,
            self.processes,
            self.folder.evaluation,
            Asked(provenance=self._provenance(), should_stop=lambda: bool(stop)),
        )
        if metrics is None:
            self._interrupt(log, writer, stop)
        if log is not None:
            value = self.task.headline(metrics, self.config.training.best_metric) or 0.0
            if value >= max(log.evaluations.values(), default=0.0):
                self._write_weights("model_best.safetensors")
            log.evaluation(self.iteration, metrics, value)
            log.pictures(self.iteration, self.folder.evaluation / "pictures")
            _log.info("evaluation at iteration %d\n%s", self.iteration, self.task.format_metrics(metrics))
        return metrics

    def _provenance(self) -> dict[str, str]:
        return {
            "Run": str(self.folder.path.absolute()),
            "Iteration": f"{self.iteration} of {self.config.training.iterations}",
            "Training set": f"{len(self.train_set)} images, fingerprint {self.origin['train_set']}",
        }

    def _interrupt(self, log: RunLog | None, writer: CheckpointWriter | None, stop: StopRequest) -> NoReturn:
        if writer is not None:
            writer.finish(self._state(), log.best if log else None)
        number = max(self.processes.gather(stop.signal_number))
        message = (
            f"stopped by signal {number} after iteration {self.iteration} of {self.config.training.iterations}; "
            f"the state is saved in {self.folder.checkpoints}; start the same command again to go on"
        )
        kind = Interrupted if self.processes.is_main else FailedElsewhere  # one of them tells
        raise kind(message, exit_code_of(number))

    @contextmanager
    def _saved_on_error(self, log: RunLog | None, writer: CheckpointWriter | None) -> Iterator[None]:
        """A sample that cannot be read, or a lost worker, shall not cost the iterations before it."""
        try:
            yield
        except (Interrupted, TrainingError):
            raise
        except DetectorError:
            if writer is not None and self.iteration:
                with suppress(MachineError, TrainingError):
                    writer.finish(self._state(), log.best if log else None)
            raise

    def _save(self, log: RunLog | None, writer: CheckpointWriter | None) -> None:
        if writer is not None:
            writer.save(self._state(), log.best if log else None)

    def _state(self) -> TrainingState:
        learner = self.learner
        average = None if learner.average is None else learner.average.state_dict()
        return TrainingState(
            self.iteration,
            learner.model.state_dict(),
            average,
            learner.state_dict(),
            self.meter.state_dict(),
            self.origin,
        )

    def _write_weights(self, name: str) -> None:
        if self.processes.is_main:
            annotations = self.train_set.annotations
            info = WeightsInfo(
                dump_config(self.config),
                annotations.class_names,
                annotations.category_ids,
                self.iteration,
                run=str(self.folder.path.absolute()),
                fingerprint=self.origin["train_set"],
            )
            save_weights(self.folder.path / name, self.learner.best_model.state_dict(), info)
