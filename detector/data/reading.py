"""What the readers of annotation formats share: checked objects, collected into flat arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from detector.data.packed import pack_ids
from detector.errors import DatasetError, quote
from detector.structures import Annotations, ImageId, Size

_MAX_COORDINATE = 1e9


@dataclass(frozen=True)
class Objects:
    """Some objects of a data set, each field a flat array.

    Attributes:
        images: ``(M,)`` int64: the position of each one's image.
        labels: ``(M,)`` int64.
        boxes_xywh: ``(M, 4)`` float64.
        areas: ``(M,)`` float64; NaN takes the box's.
        crowd: ``(M,)`` bool.
        difficult: ``(M,)`` bool.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray

    def keep(self, chosen: np.ndarray) -> Objects:
        """Leaves only the chosen ones, given as a mask or as indices."""
        return Objects(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass
class ObjectCollector:
    """Takes objects as they are read, one by one or many at once, and gives out ``Annotations``.

    Args:
        source: the file or folder, for messages.
        drop_bad_boxes: leave out boxes without area or outside their image instead of raising.
        keep_empty: boxes without area are good enough.
    """

    source: str
    drop_bad_boxes: bool = False
    keep_empty: bool = False
    _rows: list[tuple[int, int, tuple[float, ...], float, bool, bool]] = field(default_factory=list)
    _parts: list[Objects] = field(default_factory=list)
    _bad: list[str] = field(default_factory=list)
    _bad_count: int = 0
    _left_out: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        where: str,
        image: int,
        label: int,
        box_xywh: tuple[float, float, float, float],
        size: Size | None,
        area: float | None = None,
        crowd: bool = False,
        difficult: bool = False,
    ) -> None:
        """Takes one object.

        Raises:
            DatasetError: its box has no area, is reversed or lies outside the image.
        """
        problem = _problem_of(box_xywh, size, self.keep_empty)
        if problem:
            self._refuse(f"{where}: {problem}", 1)
            return
        self._rows.append((image, label, box_xywh, np.nan if area is None else area, crowd, difficult))

    def add_many(self, objects: Objects, sizes: np.ndarray | None, where: Callable[[int], str]) -> None:
        """Takes many objects.

        Args:
            objects: unchecked.
            sizes: ``(M, 2)``: height and width that each box must lie in, 0 where unknown; None for all unknown.
            where: the place of one of them, for a message.

        Raises:
            DatasetError: as ``add``, about the first bad one.
        """
        self._pack_rows()
        bad = _are_bad(objects.boxes_xywh, sizes, self.keep_empty)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            x, y, width, height = objects.boxes_xywh[first].tolist()
            size = None if sizes is None or not sizes[first].all() else Size(*sizes[first].tolist())
            problem = _problem_of((x, y, width, height), size, self.keep_empty)
            self._refuse(f"{where(first)}: {problem}", int(bad.sum()))
            objects = objects.keep(~bad)
        self._parts.append(objects)

    def leave_out(self, class_name: str, count: int = 1) -> None:
        """Counts objects of a class that is not wanted."""
        self._left_out[class_name] += count

    def finish(
        self, image_ids: Sequence[ImageId], class_names: Sequence[str], category_ids: Sequence[ImageId]
    ) -> Annotations:
        """Groups what was taken by image, in the order it came; ``notes`` tells what is missing."""
        self._pack_rows()
        objects = _joined(self._parts)
        if (np.diff(objects.images) < 0).any():
            objects = objects.keep(np.argsort(objects.images, kind="stable"))
        counts = np.bincount(objects.images, minlength=len(image_ids))
        boxes, areas = objects.boxes_xywh, objects.areas
        return Annotations(
            pack_ids(image_ids),
            tuple(class_names),
            tuple(category_ids),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            objects.labels,
            boxes,
            np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas),
            objects.crowd,
            objects.difficult,
        )

    def notes(self) -> list[str]:
        """What was dropped and left out so far, in sentences for the log."""
        notes = []
        if self._bad:
            notes.append(f"{self._bad[0]}; dropped {self._bad_count} such boxes (data.on_bad_box)")
        if self._left_out:
            names = ", ".join(f"{quote(name)} ({count})" for name, count in self._left_out.most_common(5))
            notes.append(
                f"{self.source}: left out {self._left_out.total()} objects of classes that are not wanted: {names}"
            )
        return notes

    def _refuse(self, problem: str, count: int) -> None:
        if not self.drop_bad_boxes:
            raise DatasetError(f"{problem}; correct it, or set data.on_bad_box=drop to leave such boxes out")
        self._bad.append(problem)
        self._bad_count += count

    def _pack_rows(self) -> None:
        """Keeps the order between objects that came alone and those that came together."""
        if self._rows:
            images, labels, boxes, areas, crowd, difficult = zip(*self._rows, strict=True)
            self._parts.append(
                Objects(
                    np.array(images, dtype=np.int64),
                    np.array(labels, dtype=np.int64),
                    np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4),
                    np.array(areas, dtype=np.float64),
                    np.array(crowd, dtype=bool),
                    np.array(difficult, dtype=bool),
                )
            )
            self._rows.clear()


def _joined(parts: Sequence[Objects]) -> Objects:
    nothing = Objects(
        np.zeros(0, np.int64),
        np.zeros(0, np.int64),
        np.zeros((0, 4)),
        np.zeros(0),
        np.zeros(0, bool),
        np.zeros(0, bool),
    )
    fields = Objects.__dataclass_fields__
    return Objects(*(np.concatenate([getattr(part, name) for part in (nothing, *parts)]) for name in fields))


def _problem_of(box: tuple[float, float, float, float], size: Size | None, keep_empty: bool) -> str | None:
    x, y, width, height = box
    if not all(abs(value) < _MAX_COORDINATE for value in box):
        return f"the box {_show(box)} is not finite"
    if width < 0 or height < 0:
        return f"the box is reversed: width {width:g}, height {height:g} (are these x1, y1, x2, y2?)"
    if (width == 0 or height == 0) and not keep_empty:
        return f"the box has no area: width {width:g}, height {height:g}"
    if size and (x >= size.width or y >= size.height or x + width <= 0 or y + height <= 0):
        return f"the box {_show(box)} lies outside the image of {size.width} x {size.height} pixels"
    return None


def _are_bad(boxes: np.ndarray, sizes: np.ndarray | None, keep_empty: bool) -> np.ndarray:
    """``(M,)`` bool: those of which ``_problem_of`` has something to say."""
    x, y, width, height = boxes.T
    bad = ~(np.abs(boxes) < _MAX_COORDINATE).all(axis=1) | (width < 0) | (height < 0)
    if not keep_empty:
        bad |= (width == 0) | (height == 0)
    if sizes is not None:
        known = sizes[:, 0] > 0
        outside = (x >= sizes[:, 1]) | (y >= sizes[:, 0]) | (x + width <= 0) | (y + height <= 0)
        bad |= known & outside
    return np.asarray(bad)


def _show(box: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
