"""What travels between the parts of the detector, and every convention about it.

- A **box** is ``(x1, y1, x2, y2)``, float32, in pixels, continuous: its width is ``x2 - x1``. Pixel column
  ``i`` covers ``[i, i + 1]``. Boxes are plain ``(N, 4)`` tensors or arrays.
- A **size** is ``(height, width)``, always as the named tuple ``Size``.
- A **label** is ``0 .. K-1`` and indexes ``class_names``; background is ``K``, the last class of the class
  layer. The ids of file formats live in ``data`` and come back only when results are written.
- An **image** is RGB uint8 ``(H, W, 3)`` outside the network. The network owns its normalisation.
- An image without objects is an ordinary image.

Shape letters: N boxes of one image, M boxes of a whole data set, B images, K classes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ImageId = int | str


# What a terminal takes for commands, and halves of letters that no file can hold.
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_class_name(value: object) -> bool:
    """Whether something can be the name of a class: text without control characters."""
    return isinstance(value, str) and bool(value) and not _NO_TEXT.search(value)


class Size(NamedTuple):
    """Height and width in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class ImageInfo:
    """One image of a data set before it is decoded.

    Attributes:
        image_id: the data set's own id.
        path: the file, or a name for images that are drawn and have none.
        size: height and width as the data set states them, after rotation by EXIF; None where it states none.
    """

    image_id: ImageId
    path: str
    size: Size | None


@dataclass(frozen=True)
class Sample:
    """One image with its ground truth, as a data set gives it out.

    Attributes:
        image: ``(H, W, 3)`` uint8, RGB.
        boxes: ``(N, 4)`` float32, inside the image.
        labels: ``(N,)`` int64.
        crowd: ``(N,)`` bool: the box covers a group; never trained on.
        difficult: ``(N,)`` bool: trained on, left out of VOC scoring.
        info: where it came from.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    info: ImageInfo

    def __post_init__(self) -> None:
        assert self.image.dtype == np.uint8
        assert self.image.shape == (*self.image.shape[:2], 3)
        assert self.boxes.shape == (len(self.labels), 4), (self.boxes.shape, self.labels.shape)
        assert self.crowd.shape == self.difficult.shape == self.labels.shape

    @property
    def size(self) -> Size:
        """Height and width of the decoded image."""
        return Size(*self.image.shape[:2])

    def keep(self, chosen: np.ndarray) -> Sample:
        """Leaves only the chosen objects, given as a mask or as indices."""
        return replace(
            self,
            boxes=self.boxes[chosen],
            labels=self.labels[chosen],
            crowd=self.crowd[chosen],
            difficult=self.difficult[chosen],
        )


@dataclass(frozen=True)
class Target:
    """Ground truth of one image for training, in the pixels of the network's input.

    Attributes:
        boxes: ``(N, 4)`` float32.
        labels: ``(N,)`` int64.
        seed: seeds the random choice of anchors and regions for this image, so that it depends neither on the
            other images nor on the process that computes it; None draws from torch's global generator.
    """

    boxes: Tensor
    labels: Tensor
    seed: int | None = None

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.labels), 4), (self.boxes.shape, self.labels.shape)

    def pin_memory(self) -> Target:
        """The same target in memory from which a GPU copies by itself."""
        return replace(self, boxes=self.boxes.pin_memory(), labels=self.labels.pin_memory())

    def to(self, device: torch.device | str) -> Target:
        """The same target on another device."""
        return replace(
            self, boxes=self.boxes.to(device, non_blocking=True), labels=self.labels.to(device, non_blocking=True)
        )


@dataclass(frozen=True)
class ImageBatch:
    """Images on their way into the network.

    Attributes:
        pixels: ``(B, 3, H, W)`` RGB, uint8 or float in 0..255, each image in the upper left corner and padded to
            the largest height and width. The padding never reaches the network.
        sizes: B unpadded sizes.
    """

    pixels: Tensor
    sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        assert self.pixels.shape == (len(self.sizes), 3, *self.pixels.shape[-2:]), self.pixels.shape

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, images: Sequence[Tensor]) -> ImageBatch:
        """Joins ``(3, H, W)`` tensors of any sizes."""
        if not images:
            return cls(torch.zeros((0, 3, 1, 1), dtype=torch.uint8), ())
        sizes = tuple(Size(*image.shape[-2:]) for image in images)
        height, width = max(size.height for size in sizes), max(size.width for size in sizes)
        pixels = images[0].new_zeros((len(images), 3, height, width))
        for row, image, size in zip(pixels, images, sizes, strict=True):
            row[:, : size.height, : size.width] = image
        return cls(pixels, sizes)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on another device."""
        return ImageBatch(self.pixels.to(device, non_blocking=True), self.sizes)

    def groups(self) -> list[tuple[list[int], Tensor]]:
        """Images of equal size, as (their positions in the batch, ``(n, 3, h, w)`` pixels without padding)."""
        members: dict[Size, list[int]] = {}
        for position, size in enumerate(self.sizes):
            members.setdefault(size, []).append(position)
        if len(members) == 1 and Size(*self.pixels.shape[-2:]) == self.sizes[0]:
            return [(list(range(len(self))), self.pixels)]
        return [
            (positions, self.pixels[positions, :, : size.height, : size.width]) for size, positions in members.items()
        ]


@dataclass(frozen=True)
class Detections:
    """What the detector found in one image, best first.

    Attributes:
        boxes: ``(N, 4)`` float32.
        scores: ``(N,)`` float32 in 0..1, descending.
        labels: ``(N,)`` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.boxes.shape == (len(self.scores), 4), (self.boxes.shape, self.scores.shape)
        assert self.scores.shape == self.labels.shape

    def __len__(self) -> int:
        return len(self.scores)

    def keep(self, chosen: Tensor) -> Detections:
        """Leaves only the chosen detections, given as a mask or as indices."""
        if chosen.dtype == torch.bool:
            chosen = torch.nonzero(chosen).flatten()  # once, and not in each of the three
        return Detections(self.boxes[chosen], self.scores[chosen], self.labels[chosen])

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on another device."""
        return Detections(self.boxes.to(device), self.scores.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Annotations:
    """The ground truth of a whole data set in flat arrays, one row an object, grouped by image.

    Boxes stand here as the COCO format has them, ``(x, y, width, height)`` in float64, and not as everywhere
    else: scores equal to pycocotools' to the last bit need the very numbers of the file. Flat arrays rather
    than a list of objects, since worker processes would copy the latter page by page.

    Attributes:
        image_ids: the data set's own id of each image, N of them.
        class_names: K names.
        category_ids: the data set's own id of each class.
        rows: ``(N + 1,)`` int64: the objects of image ``i`` are rows ``rows[i] .. rows[i + 1]``.
        labels: ``(M,)`` int64.
        boxes_xywh: ``(M, 4)`` float64.
        areas: ``(M,)`` float64: of the object's mask where the data set knows it, else of its box.
        crowd: ``(M,)`` bool.
        difficult: ``(M,)`` bool.
    """

    image_ids: Sequence[ImageId]
    class_names: tuple[str, ...]
    category_ids: tuple[ImageId, ...]
    rows: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.labels)
        assert len(self.rows) == len(self.image_ids) + 1
        assert self.rows[-1] == count
        assert self.boxes_xywh.shape == (count, 4)
        assert self.boxes_xywh.dtype == np.float64
        assert len(self.areas) == len(self.crowd) == len(self.difficult) == count
        assert len(self.class_names) == len(self.category_ids)

    def of_image(self, index: int) -> slice:
        """The rows of one image."""
        return slice(int(self.rows[index]), int(self.rows[index + 1]))

    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any id, class, label, box or flag; files and folders do not count."""
        digest = hashlib.sha256(json.dumps([list(self.image_ids), self.class_names, self.category_ids]).encode())
        for array in (self.rows, self.labels, self.boxes_xywh, self.areas, self.crowd, self.difficult):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def image_index(self) -> np.ndarray:
        """``(M,)`` int64: the image that each object lies in."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.rows))


@dataclass(frozen=True)
class DetectionTable:
    """The detections of a whole data set in flat arrays, to be scored against ``Annotations``.

    Attributes:
        image_index: ``(M,)`` int64, into ``Annotations.image_ids``.
        labels: ``(M,)`` int64.
        boxes_xywh: ``(M, 4)`` float64, (x, y, width, height) as in the COCO results format.
        scores: ``(M,)`` float64.
    """

    image_index: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.image_index) == len(self.labels) == len(self.boxes_xywh) == len(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, found: Sequence[Detections]) -> DetectionTable:
        """Joins the detections of all images, given in the order of the data set."""
        counts = [len(detections) for detections in found]
        if not sum(counts):
            return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))
        boxes = torch.cat([detections.boxes for detections in found]).double().numpy()
        return cls(
            np.repeat(np.arange(len(found)), counts),
            torch.cat([detections.labels for detections in found]).numpy(),
            np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1),
            torch.cat([detections.scores for detections in found]).double().numpy(),
        )
