"""An object-detection toolkit around one network: Faster R-CNN on ResNet "C4".

>>> from detector import Detector
>>> detector = Detector.load("runs/quickstart/model_best.safetensors")
>>> detections = detector.predict("image.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from detector.config import load_config
    from detector.engine.classifier import Classification, Classifier
    from detector.engine.detector import Detector
    from detector.structures import Detections

__all__ = ["Classification", "Classifier", "Detections", "Detector", "__version__", "load_config"]

_HOMES = {
    "Classification": "detector.engine.classifier",
    "Classifier": "detector.engine.classifier",
    "Detector": "detector.engine.detector",
    "Detections": "detector.structures",
    "load_config": "detector.config",
}


def __getattr__(name: str) -> Any:
    # Late, so that --help and the configuration do not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'detector' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
