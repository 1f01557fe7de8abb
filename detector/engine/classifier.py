"""The classifier as its users hold it: load a file, predict on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor

from detector.config.schema import Config
from detector.data.classification.transform import classification_views
from detector.engine.classification.inference import classify
from detector.engine.classification.setup import classifier_of
from detector.engine.device import check_precision, select_device
from detector.engine.pictures import Picture, in_batches, read_picture
from detector.models.classifier import ClassificationNetwork
from detector.structures import ImageBatch
from detector.weights.load import Weights, read_weights


@dataclass(frozen=True)
class Classification:
    """What the classifier takes an image for.

    Attributes:
        names: of the K classes, the most probable first.
        probabilities: ``(K,)`` float32 in the same order; their sum is 1.
        label: of the most probable class, 0..K-1, as it indexes ``Classifier.class_names``.
    """

    names: tuple[str, ...]
    probabilities: Tensor
    label: int

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.names[0]


class Classifier:
    """A trained network with its class names, ready for images.

    Example:
        >>> classifier = Classifier.load("runs/pretrain/model_best.safetensors")
        >>> answer = classifier.predict("cat.jpg")
        >>> for name, probability in zip(answer.names[:5], answer.probabilities):
        ...     print(f"{name}: {100 * float(probability):.1f} %")

    Attributes:
        model: the ``ClassificationNetwork`` module; ``model.classify(images)`` gives logits.
        config: all settings.
        class_names: K names.
        device: where it computes.
        precision: fp32, bf16 or fp16.
    """

    def __init__(
        self,
        model: ClassificationNetwork,
        config: Config,
        class_names: Sequence[str],
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.model = model.to(device).eval()
        self.config = config
        self.class_names = list(class_names)
        self.device = device
        self.precision = precision

    @classmethod
    def load(cls, weights: str | Path, device: str = "auto", precision: str = "fp32") -> Classifier:
        """Loads a weights file of pretrain.py, such as ``runs/NAME/model_best.safetensors``.

        Args:
            weights: the file, in which configuration and class names travel.
            device: auto, cpu, cuda or mps.
            precision: fp32, bf16 or fp16.

        Raises:
            WeightsError: the file is missing, damaged, or holds no classifier of this toolkit.
            ConfigError: this machine has no such device, or the settings in the file cannot be read.
            UsageError: the precision is unknown.
        """
        return cls.of(read_weights(weights), device, precision)

    @classmethod
    def of(cls, weights: Weights, device: str = "auto", precision: str = "fp32") -> Classifier:
        """As ``load``, for a file that has been read."""
        check_precision(precision)
        loaded = classifier_of(weights)
        return cls(loaded.model, loaded.config, loaded.info.class_names, select_device(device), precision)

    @overload
    def predict(self, images: Picture) -> Classification: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[Picture]) -> list[Classification]: ...

    def predict(self, images: Picture | Sequence[Picture]) -> Classification | list[Classification]:
        """Tells the classes of whole images.

        Args:
            images: a path, a PIL image, or a uint8 array, RGB ``(H, W, 3)`` or gray ``(H, W)``; or a list of such, of
                which ``evaluation.batch_size`` are computed at once.

        Returns:
            All classes of the image with their probabilities, averaged over the views that ``evaluation`` asks for;
            for a list of images a list.

        Raises:
            ImageError: a file cannot be read, or an array is not of that form.
        """
        if isinstance(images, Picture):
            return self._predict([images])[0]
        batches = in_batches(images, self.config.evaluation.batch_size)
        return [answer for batch in batches for answer in self._predict(batch)]

    def _predict(self, pictures: Sequence[Picture]) -> list[Classification]:
        images = [read_picture(_in_colour(picture), self.config.data.max_image_pixels) for picture in pictures]
        views = [[pixels for pixels, _ in classification_views(image, self.config)] for image in images]
        batch = ImageBatch.of([pixels for of_image in views for pixels in of_image])
        logs = classify(self.model, batch, len(views[0]), self.device, self.precision)
        return [self._answer(row) for row in logs.exp().float()]

    def _answer(self, probabilities: Tensor) -> Classification:
        falling, labels = probabilities.sort(descending=True, stable=True)
        return Classification(tuple(self.class_names[label] for label in labels.tolist()), falling, int(labels[0]))


def _in_colour(picture: Picture) -> Picture:
    if isinstance(picture, np.ndarray) and picture.ndim == 2:
        return np.stack([picture] * 3, axis=2)
    return picture
