"""Boxes of a draft put right, and those taken out that are there twice."""

from __future__ import annotations

import numpy as np

from detector.data.doctor.box_checks import MIN_SIDE, from_corners, twins
from detector.data.doctor.mending.boxes import mended_box, turned
from detector.data.doctor.mending.draft import Draft
from detector.data.findings import Finding
from detector.structures import Size

_BOX_IS_WRONG = ("box-reversed", "box-without-area", "box-outside", "box-partly-outside")


def turn_boxes(draft: Draft, image: int, orientation: int, size: Size) -> None:
    """Turns the boxes of an image that were drawn without EXIF's turn.

    Args:
        draft: gets the new boxes.
        image: the image.
        orientation: of EXIF.
        size: of the upright image.
    """
    voc = draft.raw.format == "voc"
    for row in draft.rows_of(image):
        straight, _ = mended_box(draft.boxes[row], None, voc)
        if straight is None or not draft.kept_rows[row]:
            continue  # it is taken out by what was found of it
        _redraw(draft, row, turned(straight[None], orientation, size)[0], "box turned with its image")
        draft.turned.add(row)
    draft.touched.add(image)


def redraw_boxes(draft: Draft, found: dict[str, list[Finding]]) -> None:
    """Mends the boxes that were reported, and those of images that were touched.

    Args:
        draft: gets the new boxes.
        found: the findings of its split by kind.
    """
    finite = np.isfinite(draft.boxes).all(axis=1)
    if "boxes-are-corners" in found:
        draft.boxes[finite] = from_corners(draft.boxes[finite])
        draft.redrawn.update(np.flatnonzero(finite).tolist())
        draft.note(str(draft.raw.source), "", "all boxes: [x1, y1, x2, y2] -> [x, y, width, height]")
    rows = np.isin(draft.owners, list(draft.touched))
    rows[[finding.row for kind in _BOX_IS_WRONG for finding in found.get(kind, ())]] = True
    for row in np.flatnonzero(rows & finite & draft.kept()).tolist():
        _mend(draft, row)
    draft.touched.update(draft.owners[rows].tolist())
    draft.touched.update(finding.image for finding in found.get("box-twice", ()))
    _drop_twins(draft)


def _mend(draft: Draft, row: int) -> None:
    box, wrong = mended_box(draft.boxes[row], draft.size(int(draft.owners[row])), draft.raw.format == "voc")
    if box is None:
        draft.drop_row(row, f"{wrong}, {draft.show(draft.boxes[row])}")
    elif wrong:
        _redraw(draft, row, box, wrong)


def _redraw(draft: Draft, row: int, box: np.ndarray, why: str) -> None:
    draft.note_row(row, f"{why}: {draft.show(draft.boxes[row])} -> {draft.show(box)}")
    draft.boxes[row] = box
    draft.redrawn.add(row)


def _drop_twins(draft: Draft) -> None:
    """Takes out the later of objects that are the same; those that were mended may have become so."""
    raw = draft.raw
    fit = draft.kept() & ~raw.crowd & (raw.labels >= 0) & np.isin(draft.owners, list(draft.touched))
    fit &= (draft.boxes[:, 2:] - (raw.format == "voc") >= MIN_SIDE).all(axis=1)
    rows = np.flatnonzero(fit)
    groups = draft.owners[rows] * (len(raw.class_names) + 1) + raw.labels[rows]
    for later, earlier in twins(draft.boxes[rows], groups):
        draft.drop_row(int(rows[later]), f"the same object as {raw.object_records[rows[earlier]]}")
