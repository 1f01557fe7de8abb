"""From an image to the square that a classifier sees (He et al. 2015, sections 3.4 and 4.2).

S is the side of the square.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from detector.config.schema import Config, ModelConfig
from detector.data.augmentation import Augmenter
from detector.data.randomness import Purpose, random_stream
from detector.data.transforms import resize_fast, resize_image, resized_size
from detector.structures import Sample, Size, Target


class ClassificationTransform:
    """Augments and resizes training samples, cuts a square out of each and mirrors it.

    Args:
        config: all settings.

    Attributes:
        config: the data section.

    Raises:
        ConfigError: an augmentation or one of its arguments does not exist.
    """

    def __init__(self, config: Config) -> None:
        self.config = config.data
        self.seed = config.seed
        self._mean = _mean_pixel(config.model)
        self._augmenter = Augmenter(config.data.augmentations, config.seed, with_boxes=False)

    def __call__(self, sample: Sample, position: int) -> tuple[Tensor, Target]:
        """Makes a sample ready for training.

        Args:
            sample: of one object, whose label is that of the image.
            position: of the sample in the whole run, counted from 0.

        Returns:
            ``(3, S, S)`` uint8 pixels, and the label as that of a box around all of them.
        """
        image = self._augmenter(sample.image, position, sample.info.path)["image"]
        draws = random_stream(Purpose.TRANSFORM, self.seed, position)
        resize, crop = self.config.resize, self.config.crop
        short_side = resize.train_short_side[int(draws.integers(len(resize.train_short_side)))]
        pixels = resize_fast(image, resized_size(Size(*image.shape[:2]), short_side, resize.max_long_side))
        if crop.random:
            top, left = (_random_start(draws, side, crop.size, crop.padding) for side in pixels.shape[1:])
        else:
            top, left = (_central_start(side, crop.size) for side in pixels.shape[1:])
        pixels = _square(pixels, top, left, crop.size, self._mean)
        if draws.random() < self.config.horizontal_flip:
            pixels = pixels.flip(2)
        seed = int(draws.integers(2**62))
        box = torch.tensor([[0.0, 0.0, crop.size, crop.size]])
        return pixels, Target(box, torch.from_numpy(sample.labels), seed)


def classification_views(image: np.ndarray, config: Config) -> list[tuple[Tensor, bool]]:
    """All the forms in which an image is shown to a classifier outside training.

    Args:
        image: ``(H, W, 3)`` uint8.
        config: its resize rule, of which the limit on the long side grows with the short side; the side of the
            square; and ``evaluation``, which names several sizes, and the mirror image.

    Returns:
        ``(3, S, S)`` pixels from the centre of the resized image, and whether they are mirrored.
    """
    resize, side = config.data.resize, config.data.crop.size
    views = []
    for short_side in config.evaluation.short_sides or (resize.test_short_side,):
        limit = round(resize.max_long_side * max(1.0, short_side / resize.test_short_side))
        pixels = resize_image(image, resized_size(Size(*image.shape[:2]), short_side, limit))
        top, left = (_central_start(length, side) for length in pixels.shape[1:])
        pixels = _square(pixels, top, left, side, _mean_pixel(config.model))
        views.append((pixels, False))
        if config.evaluation.flip:
            views.append((pixels.flip(2), True))
    return views


def _mean_pixel(model: ModelConfig) -> Tensor:
    """``(3, 1, 1)`` uint8, RGB: what lies around an image, close to zero for the network."""
    mean = model.pixel_mean if model.pixel_order == "rgb" else model.pixel_mean[::-1]
    return torch.tensor(mean).round().clamp(0, 255).to(torch.uint8)[:, None, None]


def _random_start(draws: np.random.Generator, length: int, side: int, padding: int) -> int:
    """Where the square starts in an image of that length; negative within the padding."""
    free = length + 2 * padding - side
    return int(draws.integers(free + 1)) - padding if free > 0 else _central_start(length, side)


def _central_start(length: int, side: int) -> int:
    return (length - side) // 2


def _square(pixels: Tensor, top: int, left: int, side: int, outside: Tensor) -> Tensor:
    """``(3, side, side)``: the part of an image from (top, left), and the colour ``outside`` beyond its borders."""
    height, width = pixels.shape[1:]
    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    inner = pixels[:, rows, columns]
    if inner.shape[1:] == (side, side):
        return inner.contiguous()
    square = outside.expand(3, side, side).contiguous()
    y, x = rows.start - top, columns.start - left
    square[:, y : y + inner.shape[1], x : x + inner.shape[2]] = inner
    return square
