"""What albumentations adds to the reference recipe, as the configuration names it."""

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

from detector.config.data_schema import Augmentation
from detector.data.randomness import Purpose, random_stream
from detector.errors import ConfigError, one_line, quote

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the network for news when imported

# An object of which a crop leaves less than this share is no longer that object.
_MIN_VISIBLE = 0.1


class Augmenter:
    """Applies transforms of albumentations; the random numbers of a sample come from (seed, position).

    Args:
        transforms: the configured ones, in their order.
        seed: of all random draws.
        with_boxes: whether boxes come with the images; they are cut to the image, and dropped when little is left.

    Raises:
        ConfigError: a transform or one of its arguments does not exist.
    """

    def __init__(self, transforms: Sequence[Augmentation], seed: int, with_boxes: bool) -> None:
        self.transforms = transforms
        self.seed = seed
        self._compose = _compose(transforms, with_boxes) if transforms else None

    def __call__(self, image: np.ndarray, position: int, path: str, **boxes: np.ndarray) -> dict[str, Any]:
        """Augments an image; its size may change.

        Args:
            image: ``(H, W, 3)`` uint8, RGB.
            position: of the sample in the whole run.
            path: of the image, for messages.
            **boxes: with boxes, ``bboxes`` as ``(N, 4)`` and their numbers as ``rows``.

        Returns:
            The image as "image", and what is left of ``boxes``.

        Raises:
            ConfigError: a transform fails, or makes something else than an RGB image of 8 bits.
        """
        if self._compose is None:
            return {"image": image, **boxes}
        stream = random_stream(Purpose.AUGMENTATION, self.seed, position)
        self._compose.set_random_state(stream, random.Random(int(stream.integers(2**62))))
        from albumentations.augmentations.crops.transforms import CropSizeError

        try:
            result: dict[str, Any] = self._compose(image=image, **boxes)
        except KeyError as error:
            raise ConfigError(
                f"data.augmentations: a transform needs {quote(error.args[0])}, which images of this kind do not have"
            ) from None
        except (ValueError, NotImplementedError, cv2.error, CropSizeError) as error:
            reason = quote(" ".join(str(error).split()), 200)[1:-1]
            raise ConfigError(f"data.augmentations: at image {one_line(path)}: {reason}") from None
        made = result["image"]
        if not isinstance(made, np.ndarray) or made.dtype != np.uint8 or made.ndim != 3 or made.shape[2] != 3:
            raise ConfigError(
                "data.augmentations: their result is no RGB image of 8 bits; the network normalises itself"
            )
        return result


def _compose(augmentations: Sequence[Augmentation], with_boxes: bool) -> Any:
    import albumentations

    transforms = [_transform(item, f"data.augmentations.{number}") for number, item in enumerate(augmentations)]
    if not with_boxes:  # else a crop that leaves little of the one box, the whole image, would drop the label
        return albumentations.Compose(transforms)
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
