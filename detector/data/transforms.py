"""From a data set's sample to the network's input: augmentation, the resize rule, mirroring.

The reference recipe (resize and mirror) is written here and draws its own random numbers; albumentations adds what a
configuration names. All randomness of a sample comes from (seed, position), whoever computes it.
"""

from __future__ import annotations

import difflib
import inspect
import os
import random
import warnings
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from detector.config.schema import Augmentation, DataConfig, EvaluationConfig, ResizeConfig
from detector.data.randomness import Purpose, random_stream
from detector.errors import ConfigError, one_line, quote
from detector.structures import Sample, Size, Target

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for news when imported

# An object of which a crop leaves less than this share is no longer that object.
_MIN_VISIBLE = 0.1


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
        self._augment = _compose(config.augmentations) if config.augmentations else None

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
        if self._augment is None:
            return sample
        stream = random_stream(Purpose.AUGMENTATION, self.seed, position)
        self._augment.set_random_state(stream, random.Random(int(stream.integers(2**62))))
        from albumentations.augmentations.crops.transforms import CropSizeError

        try:
            result = self._augment(image=sample.image, bboxes=sample.boxes, rows=np.arange(len(sample.boxes)))
        except (ValueError, NotImplementedError, cv2.error, CropSizeError) as error:
            reason = quote(" ".join(str(error).split()), 200)[1:-1]
            raise ConfigError(f"data.augmentations: at image {one_line(sample.info.path)}: {reason}") from None
        image = result["image"]
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ConfigError(
                "data.augmentations: their result is no RGB image of 8 bits; the network normalises itself"
            )
        kept = sample.keep(np.asarray(result["rows"], dtype=np.int64))
        boxes = np.asarray(result["bboxes"], dtype=np.float32).reshape(-1, 4)
        return Sample(image, boxes, kept.labels, kept.crowd, kept.difficult, sample.info)


def _compose(augmentations: Sequence[Augmentation]) -> Any:
    import albumentations

    transforms = [_transform(item, f"data.augmentations.{number}") for number, item in enumerate(augmentations)]
    # Boxes that leave the image are cut, and dropped when little is left of them.
    boxes = albumentations.BboxParams(
        format="pascal_voc", label_fields=["rows"], clip=True, filter_invalid_bboxes=True,
        min_visibility=_MIN_VISIBLE, min_width=1, min_height=1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Got processor for bboxes")  # all transforms are of colours alone
        return albumentations.Compose(transforms, bbox_params=boxes)


def _transform(item: Augmentation, key: str) -> Any:
    """One transform of albumentations; unlike there, an unknown argument is an error."""
    import albumentations

    kinds = {
        name: kind
        for name, kind in vars(albumentations).items()
        if inspect.isclass(kind)
        and issubclass(kind, albumentations.BasicTransform)
        and kind.__module__ != "albumentations.core.transforms_interface"
    }
    kind = kinds.get(item.name)
    if kind is None:
        near = difflib.get_close_matches(item.name, kinds, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{key}.name: albumentations has no transform {quote(item.name)}{hint}")
    known = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    unknown = sorted(set(item.arguments) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}"
        raise ConfigError(f"{key}.arguments: {item.name} has no argument {quote(unknown[0])}; {hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return kind(**{name: _plain(value) for name, value in item.arguments.items()})
    except (ValueError, TypeError, NotImplementedError, Warning) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{key}.arguments: {item.name}: {quote(reason, 200)[1:-1]}") from None


def _plain(value: Any) -> Any:
    """YAML knows no tuples; albumentations wants them for ranges."""
    return tuple(value) if isinstance(value, list) else value
