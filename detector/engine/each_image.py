"""One pass over a data set, shared by all processes, with a result for each image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from tqdm import tqdm

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch, EvaluationBatches, Views, iterate
from detector.engine.distributed import Processes
from detector.engine.machine import workers_that_fit
from detector.errors import DetectorError

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


def each_image(
    model: nn.Module,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    views: Views,
    compute: Callable[[Batch], Sequence[Result]],
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, Result] | None:
    """Results of every image of a data set, computed by all processes together, without gradients.

    Args:
        model: in evaluation mode meanwhile; its mode is put back at the end.
        dataset: the images.
        config: for the data and evaluation sections.
        device: where to compute.
        processes: each takes every n-th image.
        views: all the forms in which an image is shown to the network.
        compute: from a batch to one result for each of its ``infos``, on the CPU.
        should_stop: asked before each batch; one process that is asked stops all.

    Returns:
        Results by the image's index, on every process; None if it was stopped. An image that cannot be read has none
        where ``data.on_bad_sample`` allows that.

    Raises:
        DetectorError: as the data set raises it.
    """
    mine = range(processes.rank, len(dataset), processes.world_size)
    batches = EvaluationBatches(dataset, mine, config, views)
    workers = _workers(config)
    fate = "left out of the evaluation" if config.model.classifier else "it counts as an image without detections"
    stream = iterate(batches, range(len(batches)), min(workers, len(batches)), device, config.data.worker_timeout)
    found: dict[int, Result] = {}
    problem: DetectorError | None = None
    stop = processes.shared_flag()
    was_training = model.training
    model.eval()
    try:
        for batch in tqdm(stream, "evaluating", len(batches), leave=False, disable=None if processes.is_main else True):
            if should_stop():
                stop.set()
            if stop.is_set():
                break
            for item in batch.bad:
                _log.warning("%s; %s", item.problem, fate)
            if batch.infos:
                found.update(zip(batch.indices, compute(batch), strict=True))
    except DetectorError as error:
        problem = error
        stop.set()
    finally:
        model.train(was_training)
    processes.agree(problem)
    if processes.any(stop.is_set()):
        return None
    gathered: dict[int, Result] = {}
    for part in processes.gather(found):
        gathered.update(part)
    return gathered


def _workers(config: Config) -> int:
    evaluation = config.evaluation
    count = max(1, len(evaluation.short_sides)) * (2 if evaluation.flip else 1)
    return workers_that_fit(config, evaluation.batch_size * count)
