"""What is measured: a network, an image, and the objects in it, all from a seed.

Random weights serve as well as trained ones, with one exception: their scores lie so close together that none reaches
the threshold, and NMS would have nothing to do. So the class layer is stretched until scores spread.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.config.data_schema import ShapesSet, VocSet
from detector.config.load import dump_config, parse_config
from detector.config.schema import Config
from detector.data.loader import Batch
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.data.transforms import resize_image
from detector.engine.setup import load_model
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import ImageBatch, Size, Target

# Of the class logits. Among 81 such numbers some three or four reach a probability of 0.05, as in a trained network.
_SPREAD = 3.0
# Of the file that is decoded, as part of the side that the network sees: COCO's 480 pixels become 800.
_FILE_SCALE = 0.6


@dataclass(frozen=True)
class Work:
    """One piece of work, which another process can repeat.

    Attributes:
        config: all settings, with the wanted number of proposals in it.
        weights: a file, or None for random weights.
        num_classes: K; of a file it is the file's.
        size: of the images as the network sees them.
        batch: images at once.
        objects: in an image, to train on.
    """

    config: Config
    weights: str | None
    num_classes: int
    size: Size
    batch: int
    objects: int

    def json(self) -> dict[str, Any]:
        """For another process."""
        return {**self.__dict__, "config": dump_config(self.config)}

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Work:
        """The inverse of ``json``."""
        config = parse_config(values["config"], "the benchmark's configuration")
        return cls(**{**values, "config": config, "size": Size(*values["size"])})

    def with_proposals(self, count: int) -> Work:
        """So many proposals in detection, and regions in training."""
        model, evaluation = self.config.model, self.config.evaluation
        head = model.roi_head.model_copy(update={"regions_per_image": count})
        rpn = model.rpn.model_copy(
            update={
                "test_candidates": max(model.rpn.test_candidates, 2 * count),
                "train_proposals": max(model.rpn.train_proposals, count),
            }
        )
        update = {
            "model": model.model_copy(update={"roi_head": head, "rpn": rpn}),
            "evaluation": evaluation.model_copy(update={"proposals": count}),
        }
        return replace(self, config=self.config.model_copy(update=update))

    @property
    def network(self) -> str:
        """Two pieces of work of which this agrees have the same weights."""
        return json.dumps([self.weights, self.num_classes, dump_config(self.config)])


def class_count(config: Config) -> int:
    """K, without opening the data: those that the configuration names, else as many as the format's public set has."""
    if config.data.classes:
        return len(config.data.classes)
    first = config.data.train[0] if config.data.train else None
    if isinstance(first, ShapesSet):
        return len(CLASS_NAMES)
    return 20 if isinstance(first, VocSet) else 80


def make_model(work: Work, device: torch.device) -> FasterRCNN:
    """The network in evaluation mode."""
    if work.weights is not None:
        return load_model(work.weights, work.config).model.to(device).eval()
    torch.manual_seed(work.config.seed)
    model = build_model(work.config.model, work.num_classes, work.config.evaluation).to(device).eval()
    _spread_scores(model, make_images(work).to(device))
    return model


@torch.no_grad()
def _spread_scores(model: FasterRCNN, images: ImageBatch) -> None:
    """Logits of this image get mean 0 and the same deviation, before the classes' own random directions."""
    first = ImageBatch(images.pixels[:1], images.sizes[:1])
    features, outputs = model.features(first)
    logits, _ = model.roi_head(features, [model.rpn.propose(output)[:100] for output in outputs])
    layer, mean = model.roi_head.class_layer, logits.mean(dim=0)
    scale = _SPREAD / logits.std().clamp(min=1e-6) if len(logits) > 1 else torch.ones(())
    layer.bias.copy_((layer.bias - mean) * scale)
    layer.weight.mul_(scale)


@torch.no_grad()
def proposals_made(model: FasterRCNN, images: ImageBatch) -> float:
    """How many proposals are left after NMS, a mean over the images."""
    _, outputs = model.features(images)
    return sum(len(model.rpn.propose(output)) for output in outputs) / len(outputs)


def make_picture(work: Work, size: Size) -> np.ndarray:
    """``(H, W, 3)`` uint8: shapes on a busy background."""
    return ShapesDataset(1, work.config.seed, size, hard=True)[0].image


def file_size(work: Work) -> Size:
    """Of an image file that is resized to the network's input."""
    return Size(*(max(16, round(side * _FILE_SCALE)) for side in work.size))


def make_images(work: Work) -> ImageBatch:
    """The same picture for each image of the batch."""
    pixels = resize_image(make_picture(work, file_size(work)), work.size)
    return ImageBatch.of([pixels] * work.batch)


def make_targets(work: Work) -> tuple[Target, ...]:
    """Objects of random places, sizes and classes."""
    random = np.random.default_rng(work.config.seed)
    return tuple(_target(random, work, number) for number in range(work.batch))


def _target(random: np.random.Generator, work: Work, number: int) -> Target:
    limits = np.array([work.size.width, work.size.height])
    sides = limits * random.uniform(0.05, 0.5, (work.objects, 2))
    corners = random.uniform(0, 1, (work.objects, 2)) * (limits - sides)
    boxes = torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()
    labels: Tensor = torch.from_numpy(random.integers(0, work.num_classes, work.objects))
    return Target(boxes, labels, seed=number)


def make_batch(work: Work) -> Batch:
    """Images and objects of a training step."""
    images = make_images(work)
    return Batch(images, make_targets(work), tuple(range(work.batch)), (), images.sizes)
