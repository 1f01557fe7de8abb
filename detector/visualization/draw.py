"""Boxes on images: detections, ground truth, both side by side, and whole batches.

Colours belong to labels and never change. Small images are enlarged first, so that names and scores can be read.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from detector.durable import not_a_link
from detector.errors import MachineError
from detector.structures import Detections, Sample, Target
from detector.visualization.font import font_of

_READABLE_SIDE = 360  # shorter sides than this are enlarged
_BATCH_SIDE = 480
_GAP = 6
_MAX_NAME = 24

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mark:
    """One box to draw.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the image.
        label: picks the colour.
        text: written at the box.
        dashed: drawn with gaps, for what does not count (crowd, difficult).
    """

    box: Box
    label: int
    text: str
    dashed: bool = False


def colour_of(label: int) -> tuple[int, int, int]:
    """The colour of a class: hues a golden angle apart, so that neighbours differ and none ever changes."""
    hue = label * 0.61803398875 % 1
    value = (1.0, 0.85, 0.95)[label % 3]
    saturation = (0.75, 0.95, 0.55)[label // 3 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(image: np.ndarray, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """An image with its detections.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        detections: in pixels of the image.
        class_names: in the order of labels.

    Returns:
        ``(H', W', 3)`` uint8, RGB; enlarged by a whole factor if the image is small.
    """
    marks = [
        Mark(tuple(box), label, f"{_short(class_names[label])} {score:.2f}")
        for box, label, score in zip(
            detections.boxes.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True
        )
    ]
    return draw_marks(image, marks)


def draw_ground_truth(sample: Sample, class_names: Sequence[str]) -> np.ndarray:
    """An image with its ground truth; crowds and difficult objects are dashed and say so."""
    marks = []
    for box, label, crowd, difficult in zip(
        sample.boxes.tolist(), sample.labels.tolist(), sample.crowd, sample.difficult, strict=True
    ):
        remark = " (crowd)" if crowd else " (difficult)" if difficult else ""
        marks.append(Mark(tuple(box), label, _short(class_names[label]) + remark, bool(remark)))
    return draw_marks(sample.image, marks)


def draw_comparison(sample: Sample, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """Ground truth on the left, detections on the right."""
    left = draw_ground_truth(sample, class_names)
    right = draw_detections(sample.image, detections, class_names)
    count = f"{len(detections)} detection" + ("" if len(detections) == 1 else "s")
    return _in_a_row([_titled(left, "ground truth"), _titled(right, count)])


def draw_batch(images: Sequence[tuple[Tensor, Target]], class_names: Sequence[str], limit: int = 16) -> np.ndarray:
    """Training images as the network gets them, in a grid.

    Args:
        images: ``(3, H, W)`` uint8 pixels with their targets.
        class_names: in the order of labels.
        limit: at most so many are drawn.
    """
    tiles = []
    for pixels, target in images[:limit]:
        marks = [
            Mark(tuple(box), label, _short(class_names[label]))
            for box, label in zip(target.boxes.tolist(), target.labels.tolist(), strict=True)
        ]
        tile = Image.fromarray(draw_marks(pixels.permute(1, 2, 0).numpy(), marks))
        tile.thumbnail((_BATCH_SIDE * 2, _BATCH_SIDE * 2))
        tiles.append(np.asarray(tile))
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = [_in_a_row(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    grid: np.ndarray = _in_a_row([row.transpose(1, 0, 2) for row in rows]).transpose(1, 0, 2)
    return grid


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """An image with boxes and their texts; earlier marks lie on top of later ones."""
    factor = max(1, math.ceil(_READABLE_SIDE / min(image.shape[:2])))
    if factor * max(image.shape[:2]) > 4096:
        factor = max(1, 4096 // max(image.shape[:2]))
    canvas = Image.fromarray(image)
    canvas = canvas.resize((canvas.width * factor, canvas.height * factor), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    line = max(2, round(min(canvas.size) / 250))
    scaled = [
        Mark((x1 * factor, y1 * factor, x2 * factor, y2 * factor), mark.label, mark.text, mark.dashed)
        for mark in marks
        for x1, y1, x2, y2 in [mark.box]
    ]
    for mark in reversed(scaled):
        _outline(pen, mark, line)
    _write_labels(pen, canvas.size, scaled)
    return np.asarray(canvas)


def save_image(path: Path, image: np.ndarray) -> None:
    """Writes an image in the format that its name says.

    Raises:
        MachineError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(not_a_link(path), quality=92)  # of JPEG; other formats have none
    except OSError as error:
        raise MachineError(f"{path}: cannot be written ({error.strerror or error})") from None


def _outline(pen: ImageDraw.ImageDraw, mark: Mark, line: int) -> None:
    """The box in its colour between two thin dark lines, which keep it visible on any background."""
    x1, y1, x2, y2 = mark.box
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=(0, 0, 0), width=line + 2)
    if not mark.dashed:
        pen.rectangle((x1, y1, x2, y2), outline=colour_of(mark.label), width=line)
        return
    dash = line * 4
    for x in np.arange(x1, x2, dash * 2):
        for y in (y1, max(y1, y2 - line + 1)):
            pen.rectangle((x, y, min(x + dash, x2), y + line - 1), fill=colour_of(mark.label))
    for y in np.arange(y1, y2, dash * 2):
        for x in (x1, max(x1, x2 - line + 1)):
            pen.rectangle((x, y, x + line - 1, min(y + dash, y2)), fill=colour_of(mark.label))


def _write_labels(pen: ImageDraw.ImageDraw, size: tuple[int, int], marks: Sequence[Mark]) -> None:
    """Each text on a plate of its colour, where it covers no other text if there is such a place."""
    font = font_of(min(28, max(12, round(min(size) / 32))))
    taken: list[Box] = []
    for mark in marks:
        left, top, right, bottom = font.getbbox(mark.text)
        width, height = right - left + 6, bottom - top + 6
        plate = _place(mark.box, width, height, size, taken)
        taken.append(plate)
        colour = colour_of(mark.label)
        pen.rectangle(plate, fill=colour, outline=(0, 0, 0))
        bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = (0, 0, 0) if bright > 120 else (255, 255, 255)
        pen.text((plate[0] + 3 - left, plate[1] + 3 - top), mark.text, fill=ink, font=font)


def _place(box: Box, width: float, height: float, size: tuple[int, int], taken: Sequence[Box]) -> Box:
    x1, y1, x2, y2 = box
    spots = [(x1, y1 - height), (x1, y2), (x1, y1), (x1, y2 - height), (x2 - width, y1 - height), (x2 - width, y2)]
    plates = []
    for x, y in spots:
        left, top = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        plates.append((left, top, left + width, top + height))
    return min(plates, key=lambda plate: sum(_shared(plate, other) for other in taken))


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _titled(image: np.ndarray, title: str) -> np.ndarray:
    font = font_of(18)
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + 28), (255, 255, 255))
    canvas.paste(Image.fromarray(image), (0, 28))
    ImageDraw.Draw(canvas).text((4, 4), title, fill=(0, 0, 0), font=font)
    return np.asarray(canvas)


def _in_a_row(images: Sequence[np.ndarray]) -> np.ndarray:
    height = max(image.shape[0] for image in images)
    width = sum(image.shape[1] + _GAP for image in images) - _GAP
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    x = 0
    for image in images:
        canvas[: image.shape[0], x : x + image.shape[1]] = image
        x += image.shape[1] + _GAP
    return canvas


def _short(name: str) -> str:
    line = " ".join(name.split())  # the layout of text takes no line breaks
    return line if len(line) <= _MAX_NAME else line[: _MAX_NAME - 3] + "..."
