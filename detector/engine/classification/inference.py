"""The classifier over many images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from detector.config.schema import Config
from detector.data.classification.transform import classification_views
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch
from detector.engine.device import autocast, evaluation_precision
from detector.engine.distributed import Processes
from detector.engine.each_image import each_image
from detector.evaluation.classification import Answer, Answers, judge
from detector.models.classifier import ClassificationNetwork
from detector.structures import ImageBatch


def classify(
    model: ClassificationNetwork, images: ImageBatch, views: int, device: torch.device, precision: str
) -> Tensor:
    """Logarithms of the probabilities of a batch, each a mean over the views of an image.

    Args:
        model: in evaluation mode, on ``device``.
        images: the same number of views of each original image, one after another.
        views: this number.
        device: where to compute.
        precision: fp32, bf16 or fp16.

    Returns:
        ``(N, K)`` float64 on the CPU, of N original images; NaN where the network gives no numbers.
    """
    with torch.no_grad(), autocast(device, precision):
        logits = model.classify(images.to(device))
    # In the logits' own precision a sure answer would lose the probabilities of the other classes.
    logs = logits.cpu().double().log_softmax(dim=1)
    return logs.reshape(-1, views, logs.shape[1]).logsumexp(dim=1) - math.log(views)


def classify_dataset(
    model: ClassificationNetwork,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    should_stop: Callable[[], bool] = lambda: False,
) -> Answers | None:
    """Answers on every image of a data set that can be read, computed by all processes together.

    Args:
        model: its mode is put back at the end.
        dataset: one object an image.
        config: for the data and evaluation sections and the precision.
        device: where to compute.
        processes: each takes every n-th image.
        should_stop: asked before each batch; one process that is asked stops all.

    Returns:
        The answers on every process; None if it was stopped.

    Raises:
        DetectorError: as the data set raises it.
    """
    precision = evaluation_precision(config)
    views = functools.partial(classification_views, config=config)
    labels = dataset.annotations.labels

    def compute(batch: Batch) -> list[Answer]:
        logs = classify(model, batch.images, len(batch.images) // len(batch.infos), device, precision)
        return judge(logs.numpy(), labels[list(batch.indices)])

    found = each_image(model, dataset, config, device, processes, views, compute, should_stop)
    return None if found is None else Answers.of(found)
