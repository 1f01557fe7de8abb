"""A model scored on a data set, with everything that is written about it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from detector.config.schema import Config, EvaluationConfig
from detector.data.dataset import DetectionDataset
from detector.durable import replace_file
from detector.engine.distributed import Processes
from detector.engine.inference import detect_dataset
from detector.engine.reporting import draw_examples, write_report_of_model
from detector.errors import MachineError
from detector.evaluation.results_file import write_results
from detector.evaluation.score import Metrics, score
from detector.evaluation.suspicions import suspicions
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Annotations, DetectionTable

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """What an evaluation shall do beyond its metrics.

    Attributes:
        verify: compute COCO's metrics by both engines.
        stages: follow missed objects through the network.
        provenance: what the page says about where the detections come from: title -> text.
        should_stop: asked between batches.
    """

    verify: bool = False
    stages: bool = False
    provenance: dict[str, str] = field(default_factory=dict)
    should_stop: Callable[[], bool] = lambda: False


def evaluate_model(
    model: FasterRCNN,
    dataset: DetectionDataset,
    config: Config,
    device: torch.device,
    processes: Processes,
    output: Path,
    asked: Asked,
) -> Metrics | None:
    """Detects on all images and scores the detections; the main process writes all that is known to ``output``.

    Args:
        model: on ``device``.
        dataset: the images.
        config: for the data and evaluation sections.
        device: where to compute.
        processes: share the images.
        output: folder for metrics.json, detections.json, analysis.json, report.html and pictures.
        asked: what else to do.

    Returns:
        The content of metrics.json, on every process; None if it was stopped.

    Raises:
        MachineError: the disk is full.
        VerificationError: the two engines differ.
    """
    found = detect_dataset(model, dataset, config, device, processes, asked.should_stop)
    if found is None:
        return None
    metrics: Metrics | None = None
    with processes.together():
        if processes.is_main:
            table = DetectionTable.of(found)
            _log.info("scoring %d images", len(dataset))
            metrics, warnings = write_evaluation(dataset.annotations, table, config.evaluation, output, asked.verify)
            draw_examples(dataset, found, output / "pictures")
            through = model if asked.stages else None
            write_report_of_model(
                output, dataset, found, table, metrics, warnings, asked.provenance, config, device, through
            )
    return processes.from_main(metrics)  # type: ignore[no-any-return]


def write_evaluation(
    truth: Annotations, found: DetectionTable, config: EvaluationConfig, output: Path, verify: bool = False
) -> tuple[Metrics, Sequence[str]]:
    """Scores detections, and writes metrics.json and detections.json.

    Returns:
        The metrics, and sentences on what is probably wrong.

    Raises:
        MachineError: they cannot be written.
        VerificationError: the two engines differ.
    """
    scores, warnings = score_and_explain(truth, found, config, verify)
    try:
        output.mkdir(parents=True, exist_ok=True)
        replace_file(output / "metrics.json", json.dumps(scores, indent=1))
        write_results(output / "detections.json", found, truth)
    except OSError as error:
        raise MachineError(f"{output}: the evaluation cannot be written ({error.strerror}); make room") from None
    return scores, warnings


def score_and_explain(
    truth: Annotations, found: DetectionTable, config: EvaluationConfig, verify: bool = False
) -> tuple[Metrics, Sequence[str]]:
    """Scores detections; what would puzzle in the numbers is said in warnings, which are returned, too.

    Raises:
        VerificationError: the two engines differ.
    """
    scores = score(truth, found, config.metrics, config.backend, verify)
    ap50 = scores["coco"]["AP50"] if "coco" in scores else (scores.get("voc") or scores["voc07"])["mAP50"]
    warnings = suspicions(truth, found, ap50)
    for sentence in warnings:
        _log.warning("%s", sentence)
    return scores, warnings
