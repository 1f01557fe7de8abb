"""What a training says before it starts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from detector.data.dataset import Subset
from detector.data.shapes import ShapesDataset
from detector.engine.distributed import Processes
from detector.engine.run_folder import RunFolder
from detector.engine.summary import summarise
from detector.engine.trainer import Trainer
from detector.models import resnet
from detector.structures import Size
from tests.reliability.runs import NARROW
from tests.tiny import tiny_config, tiny_model

SHAPES = ShapesDataset(12, 0, Size(64, 80), hard=False)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, although a command may have taken the log for itself."""
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)
    monkeypatch.setattr(logging.getLogger("detector"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def summary(tmp_path: Path, *overrides: str, images: int = 12) -> list[str]:
    config, model = tiny_config(*overrides), tiny_model(*overrides)
    data = Subset(SHAPES, range(images))
    trainer = Trainer(config, model, data, None, RunFolder(tmp_path), torch.device("cpu"), Processes())
    return summarise(trainer)


def test_it_tells_network_data_and_recipe(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    network, data, recipe = summary(tmp_path, "training.iterations=30", "training.ema_decay=0.99")
    assert "ResNet-18 C4" in network
    assert "on cpu in fp32" in network
    assert f"12 images (0 without objects), {len(SHAPES.annotations.labels)} objects of 6 classes: 'circle'" in data
    assert "30 iterations of 2 images (5.0 epochs)" in recipe
    assert "1 process(es) x 1 micro-batch(es) x 2 image(s)" in recipe
    assert "learning rate 0.001, cosine" in recipe
    assert "weights averaged, decay 0.99" in recipe


def test_micro_batches_are_told(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    lines = summary(tmp_path, "training.batch_size=6", "training.micro_batch_size=2")
    assert "1 process(es) x 3 micro-batch(es) x 2 image(s)" in lines[2]


def test_a_recipe_that_fits_needs_no_warning(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    summary(tmp_path)
    assert not told.records


def test_steps_that_never_come_are_warned_of(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    summary(tmp_path, "training.schedule={kind: steps, steps: [2, 4, 5]}", "training.iterations=4")
    assert "steps [4, 5] lie beyond the last iteration" in told.text


def test_classes_without_objects_are_warned_of(tmp_path: Path, told: pytest.LogCaptureFixture) -> None:
    images = 1
    labels = set(SHAPES.annotations.labels[SHAPES.annotations.of_image(0)].tolist())
    absent = [name for label, name in enumerate(SHAPES.annotations.class_names) if label not in labels]
    assert absent
    summary(tmp_path, images=images)
    (record,) = told.records
    assert record.getMessage().endswith(", ".join(f"'{name}'" for name in absent))
