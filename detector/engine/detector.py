"""The detector as its users hold it: load a file, predict on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import torch

from detector.config.schema import Config
from detector.data.transforms import test_views
from detector.engine.device import check_precision, compile_backbone, select_device
from detector.engine.inference import detect
from detector.engine.pictures import Picture, in_batches, read_picture
from detector.engine.setup import model_of
from detector.errors import UsageError
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Detections, ImageBatch, ImageId, Size
from detector.weights.load import Weights, read_weights

DEFAULT_SCORE_THRESHOLD = 0.5


class Detector:
    """A trained network with its class names, ready for images.

    Example:
        >>> detector = Detector.load("runs/quickstart/model_best.safetensors")
        >>> detections = detector.predict("street.jpg", score_threshold=0.5)
        >>> for box, score, label in zip(detections.boxes, detections.scores, detections.labels):
        ...     print(detector.class_names[label], float(score), box.tolist())

    Attributes:
        model: the ``FasterRCNN`` module; ``model(images, targets)`` gives losses, ``model.detect(images)``
            detections in the pixels of the resized images.
        class_names: K names; ``detections.labels`` index them.
        category_ids: the id of each class in the data set that the network was trained on.
        config: all settings.
        device: where it computes.
        precision: fp32, bf16 or fp16.
        score_threshold: what ``predict`` uses if it is given none ...
        class_thresholds: ... and this does not hold a threshold for each class.
    """

    def __init__(
        self,
        model: FasterRCNN,
        config: Config,
        class_names: Sequence[str],
        category_ids: Sequence[ImageId],
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.model = model.to(device).eval()
        self.config = config
        self.class_names = list(class_names)
        self.category_ids = list(category_ids)
        self.device = device
        self.precision = precision
        self.score_threshold = DEFAULT_SCORE_THRESHOLD
        self.class_thresholds: tuple[float, ...] = ()

    @classmethod
    def load(
        cls,
        weights: str | Path,
        config: Config | None = None,
        device: str = "auto",
        precision: str = "fp32",
        compiled: bool = False,
    ) -> Detector:
        """Loads a weights file, such as ``runs/NAME/model_best.safetensors``, or one of another toolkit.

        Args:
            weights: a file of this toolkit, in which configuration and class names travel; or a whole detector of
                detectron2 or mmdetection, recognised by its contents.
            config: used instead of the file's own; for other toolkits the published C4 recipe is the default. Pixel
                order, mean and std and the place of the stride come from the weights.
            device: auto, cpu, cuda or mps.
            precision: fp32, bf16 or fp16.
            compiled: let ``torch.compile`` rewrite the backbone. Each new size of the resized images then costs 10 to
                15 seconds once, and the backbone takes about a sixth less time: for videos and cameras. On a CPU it
                needs a C++ compiler. The weights must not change any more.

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or does not fit ``config``.
            ConfigError: this machine has no such device.
            UsageError: the precision is unknown, or there is no compiler.
        """
        return cls.of(read_weights(weights), config, device, precision, compiled)

    @classmethod
    def of(
        cls,
        weights: Weights,
        config: Config | None = None,
        device: str = "auto",
        precision: str = "fp32",
        compiled: bool = False,
    ) -> Detector:
        """As ``load``, for a file that has been read."""
        check_precision(precision)
        loaded = model_of(weights, config)
        info = loaded.info
        detector = cls(
            loaded.model, loaded.config, info.class_names, info.category_ids, select_device(device), precision
        )
        if info.score_threshold is not None:
            detector.score_threshold = info.score_threshold
        detector.class_thresholds = info.class_thresholds
        if compiled:
            compile_backbone(detector.model, detector.device)
        return detector

    @overload
    def predict(self, images: Picture, score_threshold: float | None = None) -> Detections: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[Picture], score_threshold: float | None = None) -> list[Detections]: ...

    def predict(
        self, images: Picture | Sequence[Picture], score_threshold: float | None = None
    ) -> Detections | list[Detections]:
        """Detects objects.

        Args:
            images: a path, a PIL image or an RGB uint8 array ``(H, W, 3)``; or a list of such, of which
                ``evaluation.batch_size`` are computed at once.
            score_threshold: lower scores are left out; None takes what the weights file stores (one a class,
                if ``evaluate.py --store-thresholds`` put them there), else 0.5.

        Returns:
            Detections on the CPU, best first, boxes as (x1, y1, x2, y2) in pixels of the original image, which is
            upright; for a list of images a list.

        Raises:
            ImageError: a file cannot be read, or an array is not of that form.
            UsageError: the threshold is not in 0..1.
        """
        if score_threshold is None:
            thresholds = torch.tensor(self.class_thresholds or [self.score_threshold] * len(self.class_names))
        elif 0 <= score_threshold <= 1:
            thresholds = torch.full((len(self.class_names),), score_threshold)
        else:
            raise UsageError(f"score_threshold must be in 0..1, got {score_threshold}")
        if isinstance(images, Picture):
            return self._predict([images], thresholds)[0]
        batches = in_batches(images, self.config.evaluation.batch_size)
        return [found for batch in batches for found in self._predict(batch, thresholds)]

    def _predict(self, pictures: Sequence[Picture], thresholds: torch.Tensor) -> list[Detections]:
        images = [read_picture(picture, self.config.data.max_image_pixels) for picture in pictures]
        views = [
            view for image in images for view in test_views(image, self.config.data.resize, self.config.evaluation)
        ]
        batch, mirrored = ImageBatch.of([pixels for pixels, _ in views]), [turned for _, turned in views]
        sizes = [Size(*image.shape[:2]) for image in images]
        found = detect(self.model, batch, mirrored, sizes, self.device, self.precision)
        return [one.keep(one.scores >= thresholds[one.labels]) for one in found]
