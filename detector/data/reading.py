"""What the readers of annotation formats share: checked objects, collected into flat arrays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from detector.errors import DatasetError, quote
from detector.structures import Annotations, ImageId, Size

_log = logging.getLogger(__name__)


@dataclass
class ObjectCollector:
    """Takes objects one by one as they are read, and gives out ``Annotations``.

    Args:
        source: the file or folder, for messages.
        drop_bad_boxes: leave out boxes without area or outside their image instead of raising.
        keep_empty: boxes without area are good enough.
    """

    source: str
    drop_bad_boxes: bool = False
    keep_empty: bool = False
    _rows: list[tuple[int, int, tuple[float, ...], float, bool, bool]] = field(default_factory=list)
    _bad: list[str] = field(default_factory=list)
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
        if problem and not self.drop_bad_boxes:
            raise DatasetError(f"{where}: {problem}; correct it, or set data.on_bad_box=drop to leave such boxes out")
        if problem:
            self._bad.append(f"{where}: {problem}")
            return
        area = box_xywh[2] * box_xywh[3] if area is None else area
        self._rows.append((image, label, box_xywh, area, crowd, difficult))

    def leave_out(self, class_name: str) -> None:
        """Counts an object of a class that is not wanted."""
        self._left_out[class_name] += 1

    def finish(
        self, image_ids: Sequence[ImageId], class_names: Sequence[str], category_ids: Sequence[ImageId]
    ) -> Annotations:
        """Groups what was taken by image, in the order it came."""
        if self._bad:
            _log.warning("%s; dropped %d such boxes (data.on_bad_box)", self._bad[0], len(self._bad))
        if self._left_out:
            names = ", ".join(f"{quote(name)} ({count})" for name, count in self._left_out.most_common(5))
            _log.warning(
                "%s: left out %d objects of classes that are not wanted: %s",
                self.source,
                self._left_out.total(),
                names,
            )
        rows = sorted(self._rows, key=lambda row: row[0])
        counts = np.bincount([row[0] for row in rows], minlength=len(image_ids)) if rows else np.zeros(len(image_ids))
        return Annotations(
            tuple(image_ids),
            tuple(class_names),
            tuple(category_ids),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([row[1] for row in rows], dtype=np.int64),
            np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
            np.array([row[3] for row in rows], dtype=np.float64),
            np.array([row[4] for row in rows], dtype=bool),
            np.array([row[5] for row in rows], dtype=bool),
        )


_MAX_COORDINATE = 1e9


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


def _show(box: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
