"""Predictions, pictures and report.html of a classifier's evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from detector.config.load import dump_config
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.engine.reporting import jpeg, spread
from detector.engine.run_folder import environment
from detector.errors import DatasetError, ImageError
from detector.evaluation.classification import NOTHING, Answers
from detector.evaluation.classification_analysis import Analysis
from detector.evaluation.report.classification_page import Mistake, write_classification_report
from detector.evaluation.score import Metrics
from detector.structures import Annotations
from detector.visualization.draw import save_image
from detector.visualization.labels import draw_answer, enlarge

_EXAMPLES = 8
_SIDE = 480


def predictions_of(answers: Answers, truth: Annotations) -> list[dict[str, Any]]:
    """The content of predictions.json: one record an image that could be read, nulls where the network gave no numbers.

    Args:
        answers: of these images.
        truth: ground truth.
    """
    columns = (answers.indices, answers.labels, answers.predicted, answers.probabilities)
    return [
        {
            "image_id": truth.image_ids[index],
            "class": truth.class_names[label],
            "predicted": None if predicted == NOTHING else truth.class_names[predicted],
            "probability": None if predicted == NOTHING else probability,
        }
        for index, label, predicted, probability in zip(*(column.tolist() for column in columns), strict=True)
    ]


def draw_examples(dataset: DetectionDataset, answers: Answers, folder: Path) -> None:
    """Pictures of a few images, spread over the data set, with their classes and the predicted ones."""
    names = dataset.annotations.class_names
    for row in spread(len(answers), _EXAMPLES):
        index, predicted = int(answers.indices[row]), int(answers.predicted[row])
        image = _image(dataset, index)
        if image is not None:
            answer = None if predicted == NOTHING else names[predicted]
            picture = draw_answer(image, names[answers.labels[row]], answer, float(answers.probabilities[row]))
            save_image(folder / f"{index:06d}.jpg", picture)


def write_report_of_classifier(
    path: Path,
    dataset: DetectionDataset,
    metrics: Metrics,
    analysis: Analysis,
    provenance: dict[str, str],
    config: Config,
) -> None:
    """Writes the page, with pictures of the mistakes that the network was surest of.

    Args:
        path: the HTML file.
        dataset: the images.
        metrics: the content of metrics.json.
        analysis: the content of analysis.json.
        provenance: title -> text.
        config: all settings.

    Raises:
        MachineError: the disk is full.
    """
    mistakes = []
    for item in analysis["worst_images"]:
        image = _image(dataset, item["index"])
        if image is not None:
            names = (item["class"], item["predicted"])
            mistakes.append(
                Mistake(
                    str(item["image_id"]), {}, names, jpeg(enlarge(image, _SIDE)), item["probability"], item["rank"]
                )
            )
    settings = {"Configuration": dump_config(config), "Environment": json.dumps(environment(), indent=1)}
    write_classification_report(path, metrics, analysis, provenance | settings, mistakes)


def _image(dataset: DetectionDataset, index: int) -> np.ndarray | None:
    """The pixels of an image; None if it cannot be read, which has been told."""
    try:
        return dataset[index].image
    except (ImageError, DatasetError):
        return None
