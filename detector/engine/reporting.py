"""Pictures, analysis.json and report.html of an evaluation."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from detector.config.load import dump_config
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch
from detector.durable import replace_file
from detector.engine.run_folder import environment
from detector.engine.stages import find_lost
from detector.errors import DatasetError, ImageError, MachineError
from detector.evaluation.analysis import Analysis, analyse
from detector.evaluation.error_kinds import SHOWN_SCORE
from detector.evaluation.report.page import Picture, write_report
from detector.evaluation.score import Metrics
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Annotations, Detections, DetectionTable
from detector.visualization.draw import draw_batch, draw_comparison, save_image

_log = logging.getLogger(__name__)

_EXAMPLES = 8
_SURE_SCORE = 0.5
_WIDEST = 1000


def draw_first_batch(parts: Sequence[Batch], class_names: Sequence[str], folder: Path) -> None:
    """The first batch as the network gets it, for a look at boxes, classes and augmentation."""
    pictures = [
        (image[:, : size.height, : size.width], target)
        for part in parts
        for image, size, target in zip(part.images.pixels, part.images.sizes, part.targets, strict=True)
    ]
    path = folder / "first_batch.jpg"
    save_image(path, draw_batch(pictures, class_names))
    _log.info("the first batch, as the network gets it: %s", path)


def draw_examples(dataset: DetectionDataset, found: list[Detections], folder: Path) -> None:
    """Pictures of a few images, spread over the data set: ground truth beside detections."""
    for index in spread(len(dataset), _EXAMPLES):
        picture = _compared(dataset, found, index, _SURE_SCORE)
        if picture is not None:
            save_image(folder / f"{index:06d}.jpg", picture)


def write_report_of_model(
    output: Path,
    dataset: DetectionDataset,
    found: list[Detections],
    table: DetectionTable,
    metrics: Metrics,
    warnings: Sequence[str],
    provenance: dict[str, str],
    config: Config,
    device: torch.device,
    model: FasterRCNN | None,
) -> None:
    """Writes analysis.json and report.html, with pictures of the worst images.

    Args:
        output: the folder.
        dataset: the images.
        found: their detections.
        table: the same.
        metrics: the content of metrics.json.
        warnings: sentences on what is probably wrong.
        provenance: title -> text.
        config: all settings.
        device: where to compute.
        model: to follow missed objects through it, on some of the images; None not to.

    Raises:
        MachineError: the disk is full.
    """
    analysis = analyse(dataset.annotations, table)
    if model is not None:
        indices = spread(len(dataset), max(20, min(200, len(dataset) // 10)))
        _log.info("following missed objects through the network on %d images", len(indices))
        analysis["stages"] = find_lost(model, dataset, indices, config, device)
    pictures = []
    for item in analysis["worst_images"]:
        picture = _compared(dataset, found, item["index"], SHOWN_SCORE)
        if picture is not None:
            title = str(item["image_id"])
            pictures.append(Picture(title, item["errors"], tuple(item["classes"]), jpeg(picture)))
    settings = {"Configuration": dump_config(config), "Environment": json.dumps(environment(), indent=1)}
    _write(output, metrics, analysis, warnings, provenance | settings, pictures)


def write_report_of_files(
    output: Path,
    truth: Annotations,
    table: DetectionTable,
    metrics: Metrics,
    warnings: Sequence[str],
    provenance: dict[str, str],
) -> None:
    """As ``write_report_of_model``, without images.

    Raises:
        MachineError: the disk is full.
    """
    settings = {"Environment": json.dumps(environment(), indent=1)}
    _write(output, metrics, analyse(truth, table), warnings, provenance | settings, [])


def _write(
    output: Path,
    metrics: Metrics,
    analysis: Analysis,
    warnings: Sequence[str],
    provenance: dict[str, str],
    pictures: Sequence[Picture],
) -> None:
    analysis["warnings"] = list(warnings)
    try:
        replace_file(output / "analysis.json", json.dumps(analysis, indent=1))
    except OSError as error:
        raise MachineError(f"{output}: the analysis cannot be written ({error.strerror}); make room") from None
    write_report(output / "report.html", metrics, analysis, provenance, pictures)


def spread(images: int, count: int) -> list[int]:
    """At most so many images, evenly over the data set."""
    return sorted({int(index) for index in np.linspace(0, images - 1, min(count, images))})


def _compared(dataset: DetectionDataset, found: list[Detections], index: int, score: float) -> np.ndarray | None:
    """Ground truth beside detections; None if the image cannot be read, which has been told."""
    try:
        sample = dataset[index]
    except (ImageError, DatasetError):
        return None
    shown = found[index].keep(found[index].scores >= score)
    return draw_comparison(sample, shown, dataset.annotations.class_names)


def jpeg(picture: np.ndarray) -> bytes:
    """A picture as a page holds it, shrunk if it is very wide.

    Args:
        picture: ``(H, W, 3)`` uint8, RGB.
    """
    image = Image.fromarray(picture)
    image.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
