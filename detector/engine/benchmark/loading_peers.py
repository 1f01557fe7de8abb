"""The loading of other toolkits on the same images at the same sizes, as their training scripts do it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as transforms

from detector.data.loader import TrainingBatches
from detector.data.randomness import Purpose, random_stream
from detector.data.transforms import resized_size
from detector.structures import Size

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _detectron2(path: str, size: Callable[[Size], Size], mirror: bool) -> Tensor:
    """``detection_utils.read_image``, ``ResizeTransform`` and ``DatasetMapper``: Pillow and NumPy, BGR, uint8."""
    with Image.open(path) as file:
        image = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))[:, :, ::-1]
    height, width = size(Size(*image.shape[:2]))
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized)
    pixels = np.flip(pixels, axis=1) if mirror else pixels
    return torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _torchvision(path: str, size: Callable[[Size], Size], mirror: bool) -> Tensor:
    """``references/detection`` and ``GeneralizedRCNNTransform``: Pillow, then float tensors all the way."""
    with Image.open(path) as file:
        image = transforms.to_dtype(transforms.pil_to_tensor(file.convert("RGB")), torch.float32, scale=True)
    image = image.flip(2) if mirror else image
    image = transforms.normalize(image, list(_MEAN), list(_STD))
    wanted = size(Size(*image.shape[1:]))
    return functional.interpolate(image[None], size=tuple(wanted), mode="bilinear", align_corners=False)[0]


WAYS: dict[str, Callable[[str, Callable[[Size], Size], bool], Tensor]] = {
    "detectron2": _detectron2,
    "torchvision": _torchvision,
}


class PeerBatches(Dataset[list[Tensor]]):
    """Micro-batch ``n`` of the same images as ours; without augmentations, boxes or checks.

    Args:
        batches: ours.
        way: a key of ``WAYS``.
    """

    def __init__(self, batches: TrainingBatches, way: str) -> None:
        self.batches = batches
        self.read = WAYS[way]

    def __getitem__(self, number: int) -> list[Tensor]:
        return [self._image(position) for position in self.batches.positions(number)]

    def _image(self, position: int) -> Tensor:
        resize = self.batches.transform.config.resize
        draws = random_stream(Purpose.TRANSFORM, self.batches.transform.seed, position)
        short_side = int(draws.choice(resize.train_short_side))
        mirror = bool(draws.random() < self.batches.transform.config.horizontal_flip)
        path = self.batches.dataset.info(self.batches.order.index(position)).path
        return self.read(path, lambda size: resized_size(size, short_side, resize.max_long_side), mirror)
