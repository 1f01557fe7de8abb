"""Images with the classes that they have and that a classifier gave them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from detector.visualization.font import font_of

_SIDE = 320  # The longer side of pictures; names can be read, and a 32x32 image gets cells of ten pixels.
_LETTERS, _LINE = 16, 24
_MARGIN = 8
_RIGHT, _WRONG = (24, 128, 72), (190, 40, 40)
_WHITE, _BLACK, _BAR = (255, 255, 255), (0, 0, 0), (160, 200, 240)
_ELLIPSIS = "..."
_NO_NUMBERS = "no numbers (NaN)"


def enlarge(image: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """A small image, enlarged by a whole factor so that its pixels stay sharp; a large one, shrunk.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        side: the longer side is at most so long, and more than half of it unless the image is hardly a line.
    """
    height, width = image.shape[:2]
    factor = side // max(height, width)
    if factor >= 1:
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def draw_answer(image: np.ndarray, true: str, predicted: str | None, probability: float) -> np.ndarray:
    """An image over a strip, green or red, that names its class and the predicted one.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        true: its class.
        predicted: the class of the largest probability; None where the network gave no numbers.
        probability: of that class, 0..1.

    Returns:
        ``(H', W', 3)`` uint8, RGB.
    """
    right = predicted == true
    canvas, bottom = _over_lines(enlarge(image), 2)
    pen = ImageDraw.Draw(canvas)
    pen.rectangle((0, bottom, canvas.width, canvas.height), fill=_RIGHT if right else _WRONG)
    sure = "" if predicted is None else f"  {probability:.2f}"
    answer = _NO_NUMBERS if predicted is None else predicted
    top = bottom + _MARGIN // 2
    _write(pen, top, canvas.width, "class:", true, "")
    _write(pen, top + _LINE, canvas.width, "right:" if right else "wrong:", answer, sure)
    return np.asarray(canvas)


def draw_classes(image: np.ndarray, names: Sequence[str], probabilities: Sequence[float]) -> np.ndarray:
    """An image over a line for each of its most probable classes, with a bar as long as the class is probable.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        names: of classes, the most probable first.
        probabilities: in 0..1, in the same order; NaN where the network gave no numbers.

    Returns:
        ``(H', W', 3)`` uint8, RGB; the same size for all images of a size, as the frames of a video are.
    """
    canvas, bottom = _over_lines(enlarge(image, 2 * _SIDE), len(names))
    pen = ImageDraw.Draw(canvas)
    room, font = canvas.width - 2 * _MARGIN, font_of(_LETTERS)
    for number, (name, probability) in enumerate(zip(names, probabilities, strict=True)):
        top = bottom + _MARGIN // 2 + number * _LINE
        if math.isnan(probability):
            pen.text((_MARGIN, top), _NO_NUMBERS, fill=_WRONG, font=font)
            break
        pen.rectangle((_MARGIN // 2, top, _MARGIN // 2 + round(probability * room), top + _LINE - 3), fill=_BAR)
        pen.text((_MARGIN, top), _fitting(f"{probability:.2f} {name}", room), fill=_BLACK, font=font)
    return np.asarray(canvas)


def _over_lines(image: np.ndarray, lines: int) -> tuple[Image.Image, int]:
    """An image in the middle of white, with room for lines of text below; and where that begins."""
    picture = Image.fromarray(image)
    canvas = Image.new("RGB", (max(_SIDE, picture.width), picture.height + lines * _LINE + _MARGIN), _WHITE)
    canvas.paste(picture, ((canvas.width - picture.width) // 2, 0))
    return canvas, picture.height


def _write(pen: ImageDraw.ImageDraw, top: int, width: int, title: str, name: str, after: str) -> None:
    """A line of the strip; a name too long for it is cut, and never the probability."""
    font = font_of(_LETTERS)
    left = _MARGIN + math.ceil(max(font.getlength(word) for word in ("class:", "right:", "wrong:"))) + _MARGIN
    room = width - left - _MARGIN - font.getlength(after)
    pen.text((_MARGIN, top), title, fill=_WHITE, font=font)
    pen.text((left, top), _fitting(name, room) + after, fill=_WHITE, font=font)


def _fitting(name: str, room: float) -> str:
    """A name, or so much of its beginning as there is room for, on one line."""
    font, line = font_of(_LETTERS), " ".join(name[:200].split())
    if font.getlength(line) <= room:
        return line
    while line and font.getlength(line + _ELLIPSIS) > room:
        line = line[:-1]
    return line + _ELLIPSIS
