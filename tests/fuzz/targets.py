"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.fuzz.cases import Target
from tests.fuzz.cifar_target import CifarTarget
from tests.fuzz.coco_target import CocoTarget
from tests.fuzz.config_target import ConfigTarget
from tests.fuzz.detections_target import DetectionsTarget
from tests.fuzz.images_target import ImagesTarget
from tests.fuzz.voc_target import VocTarget
from tests.fuzz.weights_target import WeightsTarget

TARGETS: dict[str, Callable[[Path, Path | None], Target]] = {
    "cifar": CifarTarget,
    "coco": CocoTarget,
    "config": ConfigTarget,
    "detections": DetectionsTarget,
    "images": ImagesTarget,
    "voc": VocTarget,
    "weights": WeightsTarget,
}
