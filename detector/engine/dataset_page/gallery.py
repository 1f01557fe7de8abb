"""Pictures of findings: the faulty box in a strong colour, the others thin, twins side by side."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from detector.data.findings import Finding, most_severe_first
from detector.data.raw.structure import RawSet
from detector.engine.dataset_page.content import plain, shown_path, shown_text
from detector.errors import ImageError
from detector.evaluation.report.numbers import DASH
from detector.evaluation.report.pictures import Picture

Read = Callable[[str], np.ndarray]
Box = tuple[float, float, float, float]

_PICTURES = 8
_ATTEMPTS = 16  # Files that cannot be read have no picture; many of them would take long to find that out.
_LONGEST_SIDE, _SHORTEST_VIEW = 840, 160
_LARGEST_SCALE = 4
_GAP = 8
_FAULTY, _OTHER, _EDGE = (255, 20, 100), (255, 214, 60), (0, 0, 0)
_OUTSIDE = (128, 128, 128)
_SMALL = 0.06  # Of the image's longer side: boxes under it are shown in a cut-out ...
_AROUND = 6  # ... of so many times their size.
_FARTHEST = 0.25  # Of the image's size: that far beyond its edge a picture goes to show a box.


@dataclass(frozen=True)
class Exhibit:
    """A finding with its picture.

    Attributes:
        kind: a key of ``KINDS``.
        note: what the picture shows.
        picture: its title is the name of the file.
    """

    kind: str
    note: str
    picture: Picture


@dataclass
class Gallery:
    """Makes pictures of findings.

    Args:
        sets: the splits.
        pairs: the two files of findings that are about two.
        read: a file to ``(H, W, 3)`` uint8 RGB.
        root: files are named as seen from there.
    """

    sets: Sequence[RawSet]
    pairs: Mapping[Finding, tuple[str, str]]
    read: Read
    root: str
    _places: dict[str, tuple[RawSet, int]] = field(init=False)
    _rows: dict[int, list[np.ndarray]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {raw.path(image): (raw, image) for raw in self.sets for image in range(len(raw))}

    def exhibits(self, findings: Sequence[Finding]) -> list[Exhibit]:
        """A few pictures of each kind that has any: first one of each kind, the most severe first, and so on."""
        kinds = [list(self._of_kind(members)) for members in most_severe_first(findings).values()]
        return [kind[rank] for rank in range(_PICTURES) for kind in kinds if rank < len(kind)]

    def _of_kind(self, findings: Sequence[Finding]) -> Iterator[Exhibit]:
        shown: set[tuple[str, str]] = set()  # Splits may share images, and so their findings.
        splits = {raw.split for raw in self.sets}
        pictured = (one for one in findings if one in self.pairs or (one.image >= 0 and one.split in splits))
        for _, finding in zip(range(_ATTEMPTS), pictured, strict=False):
            try:
                exhibit = self._pair(finding) if finding in self.pairs else self._single(finding)
            except ImageError:
                continue
            if (exhibit.picture.title, exhibit.note) not in shown:
                shown.add((exhibit.picture.title, exhibit.note))
                yield exhibit
            if len(shown) == _PICTURES:
                return

    def _single(self, finding: Finding) -> Exhibit:
        raw = next(each for each in self.sets if each.split == finding.split)
        path = raw.path(finding.image)
        canvas = draw_boxes(self.read(path), *self._boxes(raw, finding.image, finding.row))
        name = ""
        if finding.row >= 0 and raw.labels[finding.row] >= 0:
            name = plain(raw.class_names[raw.labels[finding.row]], 60) + ": "
        note = f"{name}{shown_text(finding.what, self.root)}"
        return Exhibit(finding.kind, note, _picture(shown_path(path, self.root), canvas))

    def _pair(self, finding: Finding) -> Exhibit:
        canvases, titles = [], []
        for path in self.pairs[finding]:
            raw, image = self._places.get(path, (None, -1))
            boxes = self._boxes(raw, image, -1) if raw is not None else ([], None)
            canvases.append(draw_boxes(self.read(path), *boxes))
            titles.append(shown_path(path, self.root))
        return Exhibit(
            finding.kind, shown_text(finding.what, self.root), _picture(" | ".join(titles), _side_by_side(canvases))
        )

    def _boxes(self, raw: RawSet, image: int, faulty: int) -> tuple[list[Box], Box | None]:
        """The boxes of an image that can be drawn, and the faulty one if it is one of them."""
        if id(raw) not in self._rows:
            order = np.argsort(raw.images, kind="stable")
            self._rows[id(raw)] = np.split(order, np.searchsorted(raw.images[order], np.arange(len(raw) + 1)))[1:]
        others, marked = [], None
        for row in self._rows[id(raw)][image].tolist():
            x, y, width, height = raw.boxes[row].tolist()
            if not np.isfinite(raw.boxes[row]).all():
                continue
            box = (min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height))
            if row == faulty:
                marked = box
            else:
                others.append(box)
        return others, marked


def draw_boxes(image: np.ndarray, others: Sequence[Box], faulty: Box | None) -> Image.Image:
    """An image with its boxes, of bounded size; a cut-out where the faulty box would be lost in the whole.

    Args:
        image: ``(H, W, 3)`` uint8, RGB.
        others: boxes in its pixels.
        faulty: the box in question; what lies beyond the image is shown as far as a quarter of its size.
    """
    left, top, right, bottom = _view(image.shape[1], image.shape[0], faulty)
    canvas = Image.new("RGB", (right - left, bottom - top), _OUTSIDE)
    canvas.paste(Image.fromarray(image), (-left, -top))
    scale = min(_LONGEST_SIDE / max(canvas.size), _LARGEST_SCALE)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    canvas = canvas.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(canvas)
    for box in others:
        _outline(pen, _moved(box, left, top, scale, canvas.size, 6), _OTHER, 2)
    if faulty is not None:
        _outline(pen, _moved(faulty, left, top, scale, canvas.size, 20), _FAULTY, 5)
    return canvas


def _view(width: int, height: int, faulty: Box | None) -> tuple[int, int, int, int]:
    """The part of the plane to show, in whole pixels."""
    if faulty is None:
        return 0, 0, width, height
    limits = np.array([-width, -height, 2 * width, 2 * height])
    x1, y1, x2, y2 = np.array(faulty).clip(limits[[0, 1, 0, 1]], limits[[2, 3, 2, 3]]).tolist()
    longest = max(x2 - x1, y2 - y1)
    if longest < _SMALL * max(width, height):
        half = max(_AROUND * longest, _SHORTEST_VIEW) / 2
        x = min(max((x1 + x2) / 2, min(half, width / 2)), max(width - half, width / 2))
        y = min(max((y1 + y2) / 2, min(half, height / 2)), max(height - half, height / 2))
        whole = (x - half, y - half, x + half, y + half)
        view = (max(whole[0], 0), max(whole[1], 0), min(whole[2], width), min(whole[3], height))
    else:
        view = (0.0, 0.0, float(width), float(height))
    left = max(min(view[0], x1 - 2), -_FARTHEST * width)
    top = max(min(view[1], y1 - 2), -_FARTHEST * height)
    right = min(max(view[2], x2 + 2), (1 + _FARTHEST) * width)
    bottom = min(max(view[3], y2 + 2), (1 + _FARTHEST) * height)
    return int(np.floor(left)), int(np.floor(top)), int(np.ceil(right)), int(np.ceil(bottom))


def _moved(box: Box, left: int, top: int, scale: float, size: tuple[int, int], thinnest: int) -> Box:
    """The box on the canvas; what would be too thin to see gets so many pixels."""
    x1, x2 = ((x - left) * scale for x in (box[0], box[2]))
    y1, y2 = ((y - top) * scale for y in (box[1], box[3]))
    far = 2 * max(size)
    x1, y1, x2, y2 = (min(max(value, -far), far) for value in (x1, y1, x2, y2))
    if x2 - x1 < thinnest:
        x1, x2 = (x1 + x2 - thinnest) / 2, (x1 + x2 + thinnest) / 2
    if y2 - y1 < thinnest:
        y1, y2 = (y1 + y2 - thinnest) / 2, (y1 + y2 + thinnest) / 2
    return x1, y1, x2, y2


def _outline(pen: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], width: int) -> None:
    """A line on a dark one, so that it is seen on any ground."""
    x1, y1, x2, y2 = box
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=_EDGE, width=width + 2)
    pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)


def _side_by_side(canvases: Sequence[Image.Image]) -> Image.Image:
    height = min(max(canvas.height for canvas in canvases), 600)
    scaled = [canvas.resize((max(1, round(canvas.width * height / canvas.height)), height)) for canvas in canvases]
    whole = Image.new("RGB", (sum(canvas.width + _GAP for canvas in scaled) - _GAP, height), (255, 255, 255))
    x = 0
    for canvas in scaled:
        whole.paste(canvas, (x, 0))
        x += canvas.width + _GAP
    return whole


def _picture(title: str, canvas: Image.Image) -> Picture:
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=82)
    return Picture(title or DASH, {}, (), buffer.getvalue())
