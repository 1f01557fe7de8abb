"""Precision, batches and compilation of inference."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from detector import Detector
from detector.config.schema import Config
from detector.engine.device import compile_backbone, evaluation_precision
from detector.errors import UsageError
from detector.structures import Detections
from tests.tiny import NUM_CLASSES, tiny_config, tiny_model

CPU = torch.device("cpu")
NAMES = [f"class {number}" for number in range(NUM_CLASSES)]


def detector_of(*overrides: str) -> Detector:
    config: Config = tiny_config("model.roi_head.score_threshold=0.01", *overrides)
    return Detector(tiny_model("model.roi_head.score_threshold=0.01"), config, NAMES, range(NUM_CLASSES), CPU)


def pictures(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (60 + number % 2, 80, 3), dtype=np.uint8) for number in range(count)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), "fp32"),
        (("training.precision=bf16",), "bf16"),
        (("training.precision=bf16", "evaluation.precision=fp32"), "fp32"),
    ],
)
def test_evaluation_computes_as_training_unless_it_is_told(overrides: tuple[str, ...], expected: str) -> None:
    assert evaluation_precision(tiny_config(*overrides)) == expected


@pytest.mark.parametrize("together", [1, 2, 4])
def test_a_list_of_images_gives_what_each_gives_alone(together: int) -> None:
    detector = detector_of(f"evaluation.batch_size={together}")
    images = pictures(5)
    found = detector.predict(images, score_threshold=0.0)
    assert len(found) == 5
    for image, one in zip(images, found, strict=True):
        alone = detector.predict(image, score_threshold=0.0)
        assert len(one)
        assert one.labels.tolist() == alone.labels.tolist()
        torch.testing.assert_close(one.boxes, alone.boxes, rtol=0, atol=1e-3)


def test_images_are_computed_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def detect(model: object, images: object, mirrored: list[bool], *_: object) -> list[Detections]:
        sizes.append(len(mirrored))
        return [nothing] * len(mirrored)

    monkeypatch.setattr("detector.engine.detector.detect", detect)
    detector_of("evaluation.batch_size=2").predict(pictures(5))
    assert sizes == [2, 2, 1]


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        compile_backbone(tiny_model(), CPU)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_backbone_gives_the_same_detections() -> None:
    detector, image = detector_of(), pictures(1)[0]
    expected = detector.predict(image, score_threshold=0.0)
    compile_backbone(detector.model, CPU)
    found = detector.predict(image, score_threshold=0.0)
    assert len(found)
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-2)
