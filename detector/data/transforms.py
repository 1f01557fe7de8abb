"""From a data set's sample to the network's input: augmentation, the resize rule, mirroring.

The reference recipe (resize and mirror) is written here and draws its own random numbers; albumentations adds what a
configuration names. All randomness of a sample comes from (seed, position), whoever computes it.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from detector.config.data_schema import DataConfig, ResizeConfig
from detector.config.schema import EvaluationConfig
from detector.data.augmentation import Augmenter
from detector.data.randomness import Purpose, random_stream
from detector.structures import Sample, Size, Target


def resized_size(size: Size, short_side: int, max_long_side: int) -> Size:
    """The size that an image is resized to, rounded as in detectron2.

    Args:
        size: of the image.
        short_side: what its shorter side becomes ...
        max_long_side: ... unless the longer one would pass this; then that one becomes this.
    """
    scale = short_side / min(size)
    height, width = (short_side, scale * size.width) if size.height < size.width else (scale * size.height, short_side)
    if max(height, width) > max_long_side:
        scale = max_long_side / max(height, width)
        height, width = height * scale, width * scale
    return Size(max(1, int(height + 0.5)), max(1, int(width + 0.5)))


def resize_image(image: np.ndarray, size: Size) -> Tensor:
    """Resizes with Pillow's bilinear filter, which the published models were trained with.

    Args:
        image: ``(H, W, 3)`` uint8.
        size: of the result.

    Returns:
        ``(3, h, w)`` uint8.
    """
    if image.shape[:2] == size:
        return to_pixels(image)
    resized = Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BILINEAR)
    # Pillow hands out single channels faster than an array of all three can be made and transposed.
    channels = [np.frombuffer(resized.tobytes("raw", channel), np.uint8) for channel in "RGB"]
    return torch.from_numpy(np.stack(channels).reshape(3, *size))


def resize_fast(image: np.ndarray, size: Size) -> Tensor:
    """As ``resize_image``, by torch: a quarter of the time, and up to two pixels in a hundred differ, by one level."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[:2] != size:
        pixels = functional.interpolate(pixels[None], size=list(size), mode="bilinear", antialias=True)[0]
    return pixels.contiguous()


def to_pixels(image: np.ndarray) -> Tensor:
    """``(H, W, 3)`` to a ``(3, H, W)`` tensor, uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def test_views(image: np.ndarray, resize: ResizeConfig, evaluation: EvaluationConfig) -> list[tuple[Tensor, bool]]:
    """All the forms in which an image is shown to the network outside training.

    Args:
        image: ``(H, W, 3)`` uint8.
        resize: the resize rule; its limit on the long side grows with the short side.
        evaluation: names several sizes, and the mirror image.

    Returns:
        ``(3, h, w)`` pixels, and whether they are mirrored.
    """
    views = []
    for short_side in evaluation.short_sides or (resize.test_short_side,):
        limit = round(resize.max_long_side * max(1.0, short_side / resize.test_short_side))
        resized = resize_image(image, resized_size(Size(*image.shape[:2]), short_side, limit))
        views.append((resized, False))
        if evaluation.flip:
            views.append((resized.flip(2), True))
    return views


class TrainTransform:
    """Augments, resizes and mirrors training samples.

    Args:
        config: the data section.
        seed: of all random draws.

    Raises:
        ConfigError: an augmentation or one of its arguments does not exist.
    """

    def __init__(self, config: DataConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._augmenter = Augmenter(config.augmentations, seed, with_boxes=True)

    def __call__(self, sample: Sample, position: int) -> tuple[Tensor, Target]:
        """Makes a sample ready for training.

        Args:
            sample: from a data set; its crowd boxes are left out.
            position: of the sample in the whole run, counted from 0.

        Returns:
            ``(3, h, w)`` uint8 pixels and the target in those pixels.
        """
        augmented = self.augment(sample.keep(~sample.crowd), position)
        draws = random_stream(Purpose.TRANSFORM, self.seed, position)
        resize = self.config.resize
        short_side = int(draws.choice(resize.train_short_side))
        size = resized_size(augmented.size, short_side, resize.max_long_side)
        pixels = resize_fast(augmented.image, size)
        scale = [size.width / augmented.size.width, size.height / augmented.size.height] * 2
        boxes = augmented.boxes * np.array(scale, dtype=np.float32)
        if draws.random() < self.config.horizontal_flip:
            pixels = pixels.flip(2)
            boxes = np.stack([size.width - boxes[:, 2], boxes[:, 1], size.width - boxes[:, 0], boxes[:, 3]], axis=1)
        seed = int(draws.integers(2**62))
        return pixels, Target(torch.from_numpy(boxes), torch.from_numpy(augmented.labels), seed)

    def augment(self, sample: Sample, position: int) -> Sample:
        """Applies the configured augmentations alone; the image keeps its resolution unless they change it."""
        if not self._augmenter.transforms:
            return sample
        numbered = {"bboxes": sample.boxes, "rows": np.arange(len(sample.boxes))}
        result = self._augmenter(sample.image, position, sample.info.path, **numbered)
        kept = sample.keep(np.asarray(result["rows"], dtype=np.int64))
        boxes = np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4)
        return Sample(result["image"], boxes, kept.labels, kept.crowd, kept.difficult, sample.info)
