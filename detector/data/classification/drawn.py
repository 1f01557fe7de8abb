"""The built-in shapes for a classifier: each image shows one.

In the plain variant every class has a hue of its own. In the hard one colours say nothing, and lines that stand out as
much as the shape run behind and across it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from detector.config.data_schema import ShapesSet
from detector.data.classification.labelled import choose_classes, label_annotations, labelled_sample
from detector.data.randomness import Purpose, random_stream
from detector.data.shapes import CLASS_NAMES, Shape, blend, class_hue, texture, vivid_colour
from detector.structures import Annotations, ImageInfo, Sample, Size

_DIAMETER = (0.4, 0.9)  # of the shorter side
_NOISE = 6.0
# Of the hard variant, for a network of 20 layers to learn slowly and not at once.
_CONTRAST = (70.0, 170.0)  # between shape and background, as a length in RGB
_HARD_NOISE = 9.0
_LINES_BEHIND = 4
_LINES_ACROSS = 1


class DrawnDataset:
    """Drawn images of one shape each.

    Image ``i`` depends on the seed and ``i`` alone, and shows the shape ``i`` modulo 6.

    Args:
        item: the seed, the size of every image, and whether they are hard.
        numbers: ``(N,)`` int64: the images.
        annotations: their labels.
    """

    def __init__(self, item: ShapesSet, numbers: np.ndarray, annotations: Annotations) -> None:
        self.seed = item.seed
        self.size = Size(*item.size)
        self.hard = item.hard
        self.numbers = numbers
        self.annotations = annotations

    def __len__(self) -> int:
        return len(self.numbers)

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        kind = "hard_" if self.hard else ""
        name = f"shape_{self.seed}_{kind}{self.numbers[index]:06d}.png"
        return ImageInfo(self.annotations.image_ids[index], name, self.size)

    def __getitem__(self, index: int) -> Sample:
        number = int(self.numbers[index])
        random = random_stream(Purpose.DRAWN, self.seed, number)
        shape = self._place(number % len(CLASS_NAMES), random)
        image = texture(self.size, random)
        if self.hard:
            self._draw_hard(image, shape, random)
        else:
            blend(image, shape, vivid_colour(class_hue(shape.label, random), random))
        image += random.normal(0, _HARD_NOISE if self.hard else _NOISE, image.shape)
        pixels = image.clip(0, 255).astype(np.uint8)
        return labelled_sample(pixels, int(self.annotations.labels[index]), self.info(index))

    def _place(self, label: int, random: np.random.Generator) -> Shape:
        """Anywhere, as a whole."""
        radius = min(self.size) * random.uniform(*_DIAMETER) / 2
        x, y = (random.uniform(radius, side - radius) for side in (self.size.width, self.size.height))
        return Shape(label, x, y, radius, random.uniform(0, 2 * math.pi))

    def _draw_hard(self, image: np.ndarray, shape: Shape, random: np.random.Generator) -> None:
        colour = image.mean(axis=(0, 1))
        self._draw_lines(image, colour, _LINES_BEHIND, random)
        direction = random.normal(0, 1, 3)
        contrast = direction * (random.uniform(*_CONTRAST) / np.linalg.norm(direction))
        blend(image, shape, colour + contrast)
        self._draw_lines(image, colour, _LINES_ACROSS, random)

    def _draw_lines(self, image: np.ndarray, colour: np.ndarray, count: int, random: np.random.Generator) -> None:
        """Lines that stand out from a colour about as the shape does."""
        ends = (random.random((count, 4)) * ([self.size.width, self.size.height] * 2)).astype(int).tolist()
        colours = (colour + random.normal(0, 30, (count, 3))).tolist()
        widths = (1 + random.random(count) * min(self.size) / 16).astype(int).tolist()
        for (x1, y1, x2, y2), line, width in zip(ends, colours, widths, strict=True):
            cv2.line(image, (x1, y1), (x2, y2), line, width)


def open_drawn(item: ShapesSet, classes: Sequence[str] | None, aliases: Mapping[str, str]) -> DrawnDataset:
    """The shapes set with one shape an image, of each class as many.

    Args:
        item: the set.
        classes: class names in the order of labels, others are left out; None takes all.
        aliases: names of shapes that mean another class.

    Raises:
        DatasetError: no image is of a wanted class.
    """
    class_names, label_of = choose_classes(CLASS_NAMES, classes, aliases, "the shapes set")
    shapes = np.arange(item.images) % len(CLASS_NAMES)
    labels = np.array([label_of.get(name, -1) for name in CLASS_NAMES], dtype=np.int64)[shapes]
    numbers = np.flatnonzero(labels >= 0)
    ids = [f"shape_{item.seed}_{number:06d}" for number in numbers.tolist()]
    return DrawnDataset(item, numbers, label_annotations(ids, class_names, labels[numbers], Size(*item.size)))
