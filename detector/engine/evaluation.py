"""A model scored on a data set, with everything that is written about it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from detector.config.schema import Config, EvaluationConfig
from detector.data.dataset import DetectionDataset
from detector.durable import replace_file
from detector.engine.distributed import Processes
from detector.engine.inference import detect_dataset
from detector.errors import DatasetError, ImageError, MachineError
from detector.evaluation.results_file import write_results
from detector.evaluation.score import Metrics, explain, score
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Annotations, Detections, DetectionTable
from detector.visualization.draw import draw_comparison, save_image

_log = logging.getLogger(__name__)

_PICTURES = 8
_SHOWN_SCORE = 0.5


def evaluate_model(
    model: FasterRCNN,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    output: Path,
    should_stop: Callable[[], bool] = lambda: False,
    verify: bool = False,
) -> Metrics | None:
    """Detects on all images and scores the detections; the main process writes both to ``output``.

    Args:
        model: on ``device``.
        dataset: the images.
        config: for the data and evaluation sections.
        device: where to compute.
        processes: share the images.
        output: folder for metrics.json, detections.json and pictures.
        should_stop: asked between batches.
        verify: compute COCO's metrics by both engines.

    Returns:
        The content of metrics.json, on every process; None if it was stopped.
    """
    found = detect_dataset(model, dataset, config, device, processes, should_stop)
    if found is None:
        return None
    metrics: Metrics | None = None
    with processes.together():
        if processes.is_main:
            _log.info("scoring %d images by %s", len(dataset), config.evaluation.backend)
            table = DetectionTable.of(found)
            metrics = write_evaluation(dataset.annotations, table, config.evaluation, output, verify)
            draw_examples(dataset, found, output / "pictures")
    return processes.from_main(metrics)  # type: ignore[no-any-return]


def write_evaluation(
    truth: Annotations, found: DetectionTable, config: EvaluationConfig, output: Path, verify: bool = False
) -> Metrics:
    """Scores detections and writes metrics.json and detections.json.

    Raises:
        MachineError: they cannot be written.
    """
    scores = score_and_explain(truth, found, config, verify)
    try:
        output.mkdir(parents=True, exist_ok=True)
        replace_file(output / "metrics.json", json.dumps(scores, indent=1))
        write_results(output / "detections.json", found, truth)
    except OSError as error:
        raise MachineError(f"{output}: the evaluation cannot be written ({error.strerror}); make room") from None
    return scores


def score_and_explain(
    truth: Annotations, found: DetectionTable, config: EvaluationConfig, verify: bool = False
) -> Metrics:
    """Scores detections; what would puzzle in the numbers is said in warnings."""
    scores = score(truth, found, config.metrics, config.backend, verify)
    for sentence in explain(truth, found, scores):
        _log.warning("%s", sentence)
    return scores


def draw_examples(dataset: DetectionDataset, found: list[Detections], folder: Path) -> None:
    """Pictures of a few images, spread over the data set: ground truth beside detections."""
    chosen = sorted({int(index) for index in np.linspace(0, len(dataset) - 1, min(_PICTURES, len(dataset)))})
    for index in chosen:
        try:
            sample = dataset[index]
        except (ImageError, DatasetError):
            continue  # it has been told
        shown = found[index].keep(found[index].scores >= _SHOWN_SCORE)
        picture = draw_comparison(sample, shown, dataset.annotations.class_names)
        save_image(folder / f"{index:06d}.jpg", picture)
