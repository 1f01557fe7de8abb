from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detector.data.loader import Batch
from detector.engine.distributed import Processes
from detector.engine.divergence import replay, save_diverged
from detector.engine.learner import Learner, Update
from detector.errors import ConfigError
from detector.models.classifier import ClassificationNetwork, build_classifier
from detector.structures import ImageBatch, ImageInfo, Target
from tests.tiny import tiny_classifier_config

CPU = torch.device("cpu")


def kept_batch(*overrides: str) -> Path:
    """Three images, as a training that diverged on them keeps them."""
    config = tiny_classifier_config(*overrides)
    learner = Learner(build_classifier(config.model, 6), config.training, CPU, Processes())
    torch.manual_seed(0)
    images = ImageBatch.of([torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(3)])
    targets = tuple(Target(torch.zeros(1, 4), torch.tensor([label]), 0) for label in range(3))
    infos = tuple(ImageInfo(f"image {number}", "", None) for number in range(3))
    batch = Batch(images, targets, (0, 1, 2), infos, images.sizes)
    update = Update({"loss_class": float("nan")}, float("nan"), made=False, diverged=True)
    path = save_diverged(Path(), 0, learner, config, [batch], 7, update)
    assert path is not None
    return path


@pytest.mark.parametrize("norm", ["batch", "sync_batch"])
def test_images_that_a_batch_norm_sees_together_are_replayed_together(norm: str) -> None:
    # Of a ResNet's last map a single image of 32 pixels leaves one value a channel, which has no variance.
    network = ("model.classifier.network=resnet", "model.backbone.depth=18", f"model.backbone.norm={norm}")
    lines = replay(kept_batch(*network), CPU)
    assert [line.split(", fp32")[0] for line in lines if "image" in line] == ["'image 0, image 1, image 2' together"]


def test_images_of_other_networks_are_replayed_one_by_one() -> None:
    lines = replay(kept_batch("model.backbone.norm=group"), CPU)
    assert [line.split(", fp32")[0] for line in lines if "image" in line] == [f"image 'image {n}'" for n in range(3)]


def test_statistics_of_several_processes_need_gpus() -> None:
    config = tiny_classifier_config("model.backbone.norm=sync_batch")
    model: ClassificationNetwork = build_classifier(config.model, 6)
    with pytest.raises(ConfigError, match=r"^model\.backbone\.norm: sync_batch works on GPUs alone"):
        Learner(model, config.training, CPU, Processes(world_size=2))
