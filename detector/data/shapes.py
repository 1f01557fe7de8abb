"""The built-in data set: shapes drawn from a seed, for a first run without any download and for tests.

In the plain variant every class has a hue of its own. In the hard one colours say nothing and backgrounds are
full of edges, so that only the outline tells the class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from detector.data.randomness import Purpose, random_stream
from detector.structures import Annotations, ImageInfo, Sample, Size

CLASS_NAMES = ("circle", "square", "triangle", "star", "cross", "ring")
_EMPTY_IMAGES = 0.05
_MAX_OBJECTS = 6
_MAX_HIDDEN = 0.3
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Shape:
    """One object before it is drawn: centre, radius and rotation, in pixels and radians."""

    label: int
    x: float
    y: float
    radius: float
    angle: float

    def outline(self) -> np.ndarray:
        """``(P, 2)`` corners, or points along the curve."""
        if self.label in (0, 5):
            angles, radii = np.arange(48) * (2 * math.pi / 48), np.ones(48)
        elif self.label in (1, 2):
            corners = 4 if self.label == 1 else 3
            angles, radii = np.arange(corners) * (2 * math.pi / corners), np.ones(corners)
        elif self.label == 3:
            angles, radii = np.arange(10) * (math.pi / 5), np.where(np.arange(10) % 2, 0.42, 1.0)
        else:
            return self._place(_cross())
        return self._place(np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None])

    def mask(self, size: Size) -> np.ndarray:
        """``(H, W)`` uint8: how much of each pixel it covers, up to 255."""
        mask = np.zeros(size, dtype=np.uint8)
        _fill(mask, self.outline(), 255)
        if CLASS_NAMES[self.label] == "ring":
            hole = Shape(self.label, self.x, self.y, self.radius * 0.55, self.angle)
            _fill(mask, hole.outline(), 0)
        return mask

    def _place(self, points: np.ndarray) -> np.ndarray:
        turn = np.array([[math.cos(self.angle), math.sin(self.angle)], [-math.sin(self.angle), math.cos(self.angle)]])
        placed: np.ndarray = points @ turn * self.radius + (self.x, self.y)
        return placed

    def box(self, size: Size) -> np.ndarray:
        """(x1, y1, x2, y2) inside the image."""
        points = self.outline()
        limits = np.array([size.width, size.height])
        return np.concatenate([points.min(axis=0).clip(0, limits), points.max(axis=0).clip(0, limits)])


def _cross() -> np.ndarray:
    arm, end = 0.3, math.sqrt(1 - 0.3**2)
    corner = [(end, -arm), (end, arm), (arm, arm)]
    points = []
    for _ in range(4):
        points += corner
        corner = [(-y, x) for x, y in corner]
    return np.array(points)


class ShapesDataset:
    """Drawn images with 0 to 6 objects of 6 classes.

    Image ``i`` depends on the seed and ``i`` alone. About one in twenty holds no object.

    Args:
        images: how many.
        seed: other seeds give other images.
        size: of every image.
        hard: colours say nothing about the class, backgrounds are busy.
    """

    def __init__(self, images: int, seed: int, size: Size, hard: bool) -> None:
        self.seed = seed
        self.size = size
        self.hard = hard
        self._count = images
        self.annotations = self._annotate()

    def __len__(self) -> int:
        return self._count

    def info(self, index: int) -> ImageInfo:
        """What is known of an image without decoding it."""
        kind = "hard_" if self.hard else ""
        return ImageInfo(index, f"shapes_{self.seed}_{kind}{index:06d}.png", self.size)

    def __getitem__(self, index: int) -> Sample:
        random = self._random(index)
        shapes = self._arrange(random)
        image = self._background(random)
        for shape in shapes:
            self._draw(image, shape, random)
        noise = random.normal(0, 6, image.shape)
        boxes = np.array([shape.box(self.size) for shape in shapes], dtype=np.float32).reshape(-1, 4)
        none = np.zeros(len(shapes), dtype=bool)
        return Sample(
            (image + noise).clip(0, 255).astype(np.uint8),
            boxes,
            np.array([shape.label for shape in shapes], dtype=np.int64),
            none,
            none,
            self.info(index),
        )

    def _random(self, index: int) -> np.random.Generator:
        return random_stream(Purpose.SHAPES, self.seed, index)

    def _annotate(self) -> Annotations:
        arranged = [self._arrange(self._random(index)) for index in range(self._count)]
        shapes = [shape for image in arranged for shape in image]
        boxes = np.array([shape.box(self.size) for shape in shapes]).reshape(-1, 4)
        sizes = boxes[:, 2:] - boxes[:, :2]
        none = np.zeros(len(shapes), dtype=bool)
        return Annotations(
            tuple(range(self._count)),
            CLASS_NAMES,
            tuple(range(1, len(CLASS_NAMES) + 1)),
            np.concatenate([[0], np.cumsum([len(image) for image in arranged])]).astype(np.int64),
            np.array([shape.label for shape in shapes], dtype=np.int64),
            np.concatenate([boxes[:, :2], sizes], axis=1),
            sizes.prod(axis=1),
            none,
            none,
        )

    def _arrange(self, random: np.random.Generator) -> list[Shape]:
        """Small to large objects; a later one hides at most a part of an earlier one."""
        shapes: list[Shape] = []
        boxes: list[np.ndarray] = []
        wanted = 0 if random.random() < _EMPTY_IMAGES else int(random.integers(1, _MAX_OBJECTS + 1))
        for _ in range(wanted * 4):
            if len(shapes) == wanted:
                break
            radius = min(self.size) * 0.085 * 4.2 ** random.random()
            x, y = random.uniform(0, self.size.width), random.uniform(0, self.size.height)
            shape = Shape(int(random.integers(len(CLASS_NAMES))), x, y, radius, random.uniform(0, 2 * math.pi))
            box = shape.box(self.size)
            whole = np.prod(np.ptp(shape.outline(), axis=0))
            if np.prod(box[2:] - box[:2]) > 0.7 * whole and all(_hidden(box, other) < _MAX_HIDDEN for other in boxes):
                shapes.append(shape)
                boxes.append(box)
        return shapes

    def _background(self, random: np.random.Generator) -> np.ndarray:
        """Smooth texture; the hard variant adds stripes and fragments."""
        image = texture(self.size, random)
        if self.hard:
            for _ in range(60):
                ends = random.uniform(0, 1, 4) * ([self.size.width, self.size.height] * 2)
                colour, width = random.uniform(0, 255, 3).tolist(), int(random.integers(1, 5))
                x1, y1, x2, y2 = ends.astype(int).tolist()
                cv2.line(image, (x1, y1), (x2, y2), colour, width, cv2.LINE_AA)
        return image

    def _draw(self, image: np.ndarray, shape: Shape, random: np.random.Generator) -> None:
        hue = random.uniform(0, 180) if self.hard else class_hue(shape.label, random)
        colour = vivid_colour(hue, random)
        # Light from one side, so that the surface is no flat colour.
        ramp = np.linspace(-1, 1, self.size.width)[None, :, None] * random.uniform(-60, 60)
        blend(image, shape, (colour + ramp).clip(0, 255))


def texture(size: Size, random: np.random.Generator) -> np.ndarray:
    """``(H, W, 3)`` float64: a colour that changes smoothly, at several scales."""
    image = np.full((*size, 3), random.uniform(60, 190, 3))
    for cells in (3, 8, 24):
        coarse = random.normal(0, 14, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (size.width, size.height), interpolation=cv2.INTER_CUBIC)
    return image


def class_hue(label: int, random: np.random.Generator) -> float:
    """Close to that of the class, in 0..180 as OpenCV has it."""
    return float((label * 180 / len(CLASS_NAMES) + random.normal(0, 4)) % 180)


def vivid_colour(hue: float, random: np.random.Generator) -> np.ndarray:
    """``(3,)`` float64: some RGB colour of a hue."""
    hsv = np.array([[[hue, random.uniform(130, 255), random.uniform(110, 255)]]], dtype=np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(float))


def blend(image: np.ndarray, shape: Shape, surface: np.ndarray) -> None:
    """Puts a shape into an image of floats.

    Args:
        image: ``(H, W, 3)``; is changed.
        shape: covers its edge's pixels in part.
        surface: its colours, ``(H, W, 3)`` or what spreads to that.
    """
    share = shape.mask(Size(*image.shape[:2]))[..., None] / 255
    image[:] = image * (1 - share) + surface * share


def _hidden(over: np.ndarray, under: np.ndarray) -> float:
    """The share of box ``under`` that box ``over`` covers, or of ``over`` in ``under`` if that is larger."""
    sides = np.minimum(over[2:], under[2:]) - np.maximum(over[:2], under[:2])
    smaller = min(np.prod(over[2:] - over[:2]), np.prod(under[2:] - under[:2]))
    return float(np.prod(sides.clip(0)) / smaller)


def _fill(mask: np.ndarray, points: np.ndarray, value: int) -> None:
    # OpenCV puts pixel centres at whole numbers; here pixel i covers [i, i + 1].
    fixed = np.round((points - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(mask, [fixed], value, cv2.LINE_AA, _SUBPIXEL_BITS)
