"""The ways to the same numbers that are compared, as runs without arguments."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.profiler import record_function

from detector.config.schema import TrainingConfig
from detector.data.images import read_image
from detector.data.loader import Batch
from detector.data.transforms import resize_image
from detector.engine.benchmark.peer import Peer
from detector.engine.benchmark.timing import Run
from detector.engine.benchmark.workload import Work, file_size, make_batch, make_images, make_picture
from detector.engine.device import autocast
from detector.engine.distributed import Processes
from detector.engine.learner import Learner
from detector.engine.optim import build_optimizer
from detector.models.faster_rcnn import FasterRCNN

MODES = ("inference", "training")
OTHERS = ("plain", "torchvision")


@dataclass(frozen=True)
class Variant:
    """A way to compute the work.

    Attributes:
        mode: inference or training.
        way: fast (the network as it is), plain (its definition), or torchvision.
        precision: fp32, bf16 or fp16.
    """

    mode: str
    way: str
    precision: str

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.mode}, {self.precision}, {self.way}"


def make_run(model: FasterRCNN, work: Work, variant: Variant, device: torch.device) -> Run:
    """The variant on a network of its own, so that nothing it keeps helps or harms another.

    Args:
        model: whose weights are taken; it is not changed.
        work: for images, targets and settings.
        variant: mode, way and precision.
        device: where to compute.
    """
    own = copy.deepcopy(model)
    own.accelerate(variant.way == "fast")
    network: FasterRCNN | Peer = Peer(own, work.config.model, work.size) if variant.way == "torchvision" else own
    if variant.mode == "training":
        return _training(network, work, variant.precision, device)
    images = make_images(work).to(device)
    network.eval()

    def detect() -> list[Any]:
        with torch.no_grad(), autocast(device, variant.precision):
            return network.detect(images)

    return detect


def _training(network: FasterRCNN | Peer, work: Work, precision: str, device: torch.device) -> Run:
    """A whole step at a learning rate of zero: all the work, and the same weights for the next one."""
    config = work.config.training.model_copy(update={"precision": precision, "ema_decay": None})
    batch = make_batch(work)
    if isinstance(network, FasterRCNN):
        learner = Learner(network, config, device, Processes())
        return lambda: learner.update([batch], iteration=0, rate=0.0)
    return _peer_training(network.to(device).train(), batch, config, device)


def _peer_training(network: nn.Module, batch: Batch, config: TrainingConfig, device: torch.device) -> Run:
    optimizer = build_optimizer(network, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    images, targets = batch.images.to(device), [target.to(device) for target in batch.targets]

    def step() -> None:
        with autocast(device, config.precision):
            losses = network(images, targets)
        sum(losses[name] for name in FasterRCNN.losses).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@contextmanager
def reading_run(work: Work) -> Iterator[Run]:
    """Decodes and resizes a JPEG file, as happens before every image of an evaluation; the file is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.jpg"
        Image.fromarray(make_picture(work, file_size(work))).save(path, quality=90)

        def read() -> None:
            with record_function("decode"):
                image = read_image(path)
            with record_function("resize"):
                resize_image(image, work.size)

        yield read


def variants(modes: Sequence[str], precisions: Sequence[str], against: Sequence[str]) -> list[Variant]:
    """All that is asked for; in each mode and precision the fast way first."""
    return [
        Variant(mode, way, precision)
        for mode in modes
        for precision in precisions
        for way in ("fast", *dict.fromkeys(against))
    ]
