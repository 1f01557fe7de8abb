"""A classifier scored on a data set, with everything that is written about it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.durable import replace_file
from detector.engine.classification.inference import classify_dataset
from detector.engine.classification.reporting import draw_examples, predictions_of, write_report_of_classifier
from detector.engine.distributed import Processes
from detector.engine.evaluation import Asked
from detector.errors import MachineError
from detector.evaluation.classification import score_classes
from detector.evaluation.classification_analysis import analyse_classes
from detector.evaluation.score import Metrics
from detector.models.classifier import ClassificationNetwork

_log = logging.getLogger(__name__)


def evaluate_classifier(
    model: ClassificationNetwork,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    output: Path,
    asked: Asked,
) -> Metrics | None:
    """Classifies all images and scores the answers; the main process writes all that is known to ``output``.

    Args:
        model: on ``device``.
        dataset: one object an image.
        config: for the data and evaluation sections.
        device: where to compute.
        processes: share the images.
        output: folder for metrics.json, predictions.json, analysis.json, report.html and pictures.
        asked: what the page says of the origin, and whether to stop.

    Returns:
        The content of metrics.json, on every process; None if it was stopped.

    Raises:
        DetectorError: as the data set raises it.
        MachineError: the disk is full.
    """
    answers = classify_dataset(model, dataset, config, device, processes, asked.should_stop)
    if answers is None:
        return None
    metrics: Metrics | None = None
    with processes.together():
        if processes.is_main:
            truth = dataset.annotations
            metrics = score_classes(answers, truth.class_names)
            analysis = analyse_classes(answers, truth)
            for sentence in analysis["warnings"]:
                _log.warning("%s", sentence)
            predictions = predictions_of(answers, truth)
            _write(output, {"metrics": metrics, "predictions": predictions, "analysis": analysis})
            draw_examples(dataset, answers, output / "pictures")
            write_report_of_classifier(output / "report.html", dataset, metrics, analysis, asked.provenance, config)
    return processes.from_main(metrics)  # type: ignore[no-any-return]


def _write(output: Path, contents: dict[str, object]) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            indent = None if name == "predictions" else 1
            replace_file(output / f"{name}.json", json.dumps(content, indent=indent, allow_nan=False))
    except OSError as error:
        raise MachineError(f"{output}: the evaluation cannot be written ({error.strerror}); make room") from None
