"""What visualize.py draws with: a detector or a classifier, whichever the weights file holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from detector.engine.classifier import Classifier
from detector.engine.detector import Detector
from detector.errors import UsageError
from detector.structures import Sample
from detector.visualization.draw import draw_comparison, draw_detections
from detector.visualization.labels import draw_answer, draw_classes
from detector.weights.layouts import OWN_CLASSIFIER
from detector.weights.load import read_weights

_MOST_PROBABLE = 5


class Network(Protocol):
    """A trained network that draws what it finds.

    Attributes:
        finds: what, in the plural.
        classifies: it tells the classes of whole images.
        class_names: K names.
        max_pixels: larger images are refused.
    """

    finds: str
    classifies: bool
    class_names: Sequence[str]
    max_pixels: int

    def draw(self, image: np.ndarray, image_id: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """An image, ``(H, W, 3)`` uint8 RGB, with what was found in it; and that as records for a JSON file."""

    def compare(self, sample: Sample) -> np.ndarray:
        """Ground truth and what was found, in one picture."""


class DetectorThatDraws:
    """Detections as boxes; ground truth stands beside them."""

    finds = "detections"
    classifies = False

    def __init__(self, detector: Detector, score_threshold: float | None) -> None:
        self.detector = detector
        self.score_threshold = score_threshold
        self.class_names: Sequence[str] = detector.class_names
        self.max_pixels = detector.config.data.max_image_pixels

    def draw(self, image: np.ndarray, image_id: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Boxes; and records in COCO's form of results."""
        found = self.detector.predict(image, self.score_threshold)
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        records = [
            {
                "image_id": image_id,
                "category_id": self.detector.category_ids[label],
                "category_name": self.class_names[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in rows
        ]
        return draw_detections(image, found, self.class_names), records

    def compare(self, sample: Sample) -> np.ndarray:
        """Ground truth on the left, detections on the right."""
        found = self.detector.predict(sample.image, self.score_threshold)
        return draw_comparison(sample, found, self.class_names)


class ClassifierThatDraws:
    """The most probable classes under an image."""

    finds = "classifications"
    classifies = True

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.class_names: Sequence[str] = classifier.class_names
        self.max_pixels = classifier.config.data.max_image_pixels

    def draw(self, image: np.ndarray, image_id: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The five most probable classes; and a record with their names and probabilities."""
        answer = self.classifier.predict(image)
        names, probabilities = answer.names[:_MOST_PROBABLE], answer.probabilities[:_MOST_PROBABLE].tolist()
        numbers = not any(np.isnan(probabilities))
        record = {
            "image_id": image_id,
            "names": names if numbers else None,
            "probabilities": probabilities if numbers else None,
        }
        return draw_classes(image, names, probabilities), [record]

    def compare(self, sample: Sample) -> np.ndarray:
        """The class of the image over the predicted one."""
        answer, true = self.classifier.predict(sample.image), self.class_names[int(sample.labels[0])]
        probability = float(answer.probabilities[0])
        return draw_answer(sample.image, true, None if np.isnan(probability) else answer.name, probability)


def load_network(
    path: str, device: str, precision: str, compiled: bool, score_threshold: float | None
) -> DetectorThatDraws | ClassifierThatDraws:
    """The network in a weights file.

    Args:
        path: the file.
        device: auto, cpu, cuda or mps.
        precision: fp32, bf16 or fp16.
        compiled: let ``torch.compile`` rewrite the backbone of a detector.
        score_threshold: of a detector; None takes what the weights store, else 0.5.

    Raises:
        WeightsError: the file is missing, damaged, or of another kind.
        ConfigError: this machine has no such device.
        UsageError: an option belongs to detectors; or there is no compiler.
    """
    weights = read_weights(path)
    if weights.layout is not OWN_CLASSIFIER:
        detector = Detector.of(weights, device=device, precision=precision, compiled=compiled)
        return DetectorThatDraws(detector, score_threshold)
    if compiled or score_threshold is not None:
        raise UsageError(f"{path}: holds a classifier; --score-threshold and --compile are for detectors")
    return ClassifierThatDraws(Classifier.of(weights, device, precision))
