"""What can be amiss with boxes. Shape letters: N images, M objects."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detector.config.data_schema import ResizeConfig
from detector.data.doctor.resizing import resized_sizes
from detector.data.findings import Finding
from detector.data.raw.structure import RawSet
from detector.errors import quote

MIN_SIDE = 1e-3  # pixels
MIN_RESIZED_SIDE = 4.0
WHOLE = 0.98
SAME_IOU = 0.98
MANY = 100  # detections an image in COCO's metrics

# VOC's pixels are whole and COCO's rounded: what reaches over the edge by one is no mistake.
TOLERANCE = 1.0 + 1e-6
_EDGES = ("left", "top", "right", "bottom")


def check_boxes(raw: RawSet, sizes: np.ndarray, resize: ResizeConfig) -> list[Finding]:
    """What is amiss with the boxes of one split.

    Args:
        raw: the split.
        sizes: ``(N, 2)`` int64: the true heights and widths of the images, upright; 0 where unknown, and then nothing
            that needs them is looked for.
        resize: decides which boxes are tiny.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # numbers of 300 digits are refused where they are read
        return _check(raw, sizes, resize)


def _check(raw: RawSet, sizes: np.ndarray, resize: ResizeConfig) -> list[Finding]:
    known = (raw.images >= 0) & np.isfinite(raw.boxes).all(axis=1)
    size_of = np.zeros((len(raw.boxes), 2))
    size_of[known] = sizes[raw.images[known]]
    corners = _corners_findings(raw, known, size_of)
    boxes = from_corners(raw.boxes) if corners else raw.boxes
    sides = boxes[:, 2:] - (raw.format == "voc")  # a VOC box from a pixel to itself is a click, no object
    reversed_ = known & (boxes[:, 2:] < 0).any(axis=1)
    empty = known & ~reversed_ & (sides < MIN_SIDE).any(axis=1)
    fit = known & ~reversed_ & ~empty
    return [
        *corners,
        *_shape_findings(raw, boxes, reversed_, empty),
        *_place_findings(raw, boxes, np.where(fit[:, None], size_of, 0.0), resize),
        *_twin_findings(raw, boxes, fit),
        *_crowding_findings(raw),
    ]


def show_box(raw: RawSet, row: int) -> str:
    """A box as its file has it; YOLO's in pixels."""
    x, y, width, height = raw.boxes[row].tolist()
    if raw.format == "voc":
        right, bottom = x + width + (width < 0), y + height + (height < 0)
        return f"xmin {x + 1:g}, ymin {y + 1:g}, xmax {right:g}, ymax {bottom:g}"
    return f"[{x:g}, {y:g}, {width:g}, {height:g}]"


def look_like_corners(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether (x, y, width, height) rather are (x1, y1, x2, y2).

    As corners nearly all lie inside their images, and as they stand many reach far out. True widths of small objects
    near the origin pass for corners, too, but none of those reaches out; boxes that are drawn a little over the edge
    reach out, but few of them begin left of their width and above their height.

    Args:
        boxes: ``(M, 4)``, finite.
        sizes: ``(M, 2)`` heights and widths of their images, positive.
    """
    limits = sizes[:, ::-1]
    as_corners = ((boxes[:, 2:] > boxes[:, :2]) & (boxes[:, :2] > -1) & (boxes[:, 2:] <= limits + 1)).all(axis=1)
    far_out = (boxes[:, :2] + boxes[:, 2:] > 1.05 * limits + 1).any(axis=1)
    count = int(far_out.sum())
    return count >= 5 and count >= 0.3 * len(boxes) and bool(as_corners.mean() >= 0.95)


def twins(boxes: np.ndarray, groups: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of boxes of one group with an IoU of 0.98 or more; each box is the later one once at most.

    Boxes so much alike begin within 2 % of their width of each other, so that of all pairs few are compared.

    Args:
        boxes: ``(M, 4)``: x, y, width, height, both positive.
        groups: ``(M,)``: pairs are looked for among boxes of the same number.
    """
    order = np.lexsort((boxes[:, 0], groups))
    sorted_boxes, sorted_groups = boxes[order], groups[order]
    reach = sorted_boxes[:, 0] + (1 - SAME_IOU) * sorted_boxes[:, 2] * (1 + 1e-9)
    taken = np.zeros(len(boxes), dtype=bool)
    pairs: dict[int, int] = {}
    places, step = np.arange(len(boxes)), 0
    while len(places):
        step += 1
        places = places[(places + step < len(boxes)) & ~taken[places]]
        others = places + step
        near = (sorted_groups[others] == sorted_groups[places]) & (sorted_boxes[others, 0] <= reach[places])
        places, others = places[near], others[near]
        same = (_iou(sorted_boxes[places], sorted_boxes[others]) >= SAME_IOU) & ~taken[others]
        for one, other in zip(order[places[same]].tolist(), order[others[same]].tolist(), strict=True):
            pairs.setdefault(max(one, other), min(one, other))
        taken[np.where(order[places[same]] > order[others[same]], places[same], others[same])] = True
    return sorted(pairs.items())


def from_corners(boxes: np.ndarray) -> np.ndarray:
    """``(M, 4)`` boxes that were meant as (x1, y1, x2, y2)."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _corners_findings(raw: RawSet, known: np.ndarray, size_of: np.ndarray) -> list[Finding]:
    rows = np.flatnonzero(known & (size_of > 0).all(axis=1))
    if raw.format != "coco" or not look_like_corners(raw.boxes[rows], size_of[rows]):
        return []
    outside = int((raw.boxes[rows, :2] + raw.boxes[rows, 2:] > size_of[rows, ::-1] + 1).any(axis=1).sum())
    what = (
        f"the boxes look like [x1, y1, x2, y2]: as [x, y, width, height] {outside} of {len(rows)} reach out of their "
        f"images, as corners nearly all lie inside; the first is {show_box(raw, int(rows[0]))}"
    )
    return [raw.about_all("boxes-are-corners", what)]


def _shape_findings(raw: RawSet, boxes: np.ndarray, reversed_: np.ndarray, empty: np.ndarray) -> Iterator[Finding]:
    for row in np.flatnonzero(reversed_).tolist():
        width, height = boxes[row, 2:].tolist()
        what = f"the box is reversed ({show_box(raw, row)}): width {width:g}, height {height:g}"
        yield raw.about_object("box-reversed", row, what)
    for row in np.flatnonzero(empty).tolist():
        yield raw.about_object("box-without-area", row, f"the box has no area: {show_box(raw, row)}")


def _place_findings(raw: RawSet, boxes: np.ndarray, size_of: np.ndarray, resize: ResizeConfig) -> Iterator[Finding]:
    """Of the boxes whose image has a known size; the others have 0 in ``size_of``."""
    rows = np.flatnonzero((size_of > 0).all(axis=1))
    starts, ends, limits = boxes[rows, :2], boxes[rows, :2] + boxes[rows, 2:], size_of[rows, ::-1]
    outside = ((starts >= limits) | (ends <= 0)).any(axis=1)
    overhang = np.concatenate([-starts, ends - limits], axis=1)
    clipped = ends.clip(0, limits) - starts.clip(0, limits)
    objects = ~outside & ~raw.crowd[rows]
    for place in np.flatnonzero(outside).tolist():
        row = int(rows[place])
        what = f"the box lies outside the image of {_show_size(limits[place])} pixels: {show_box(raw, row)}"
        yield raw.about_object("box-outside", row, what)
    for place in np.flatnonzero(~outside & (overhang > TOLERANCE).any(axis=1)).tolist():
        row = int(rows[place])
        over = [f"{edge} by {by:.4g}" for edge, by in zip(_EDGES, overhang[place], strict=True) if by > TOLERANCE]
        what = f"the box reaches out of the image of {_show_size(limits[place])} pixels: {', '.join(over)}"
        yield raw.about_object("box-partly-outside", row, what)
    yield from _extent_findings(raw, rows[objects], clipped[objects], limits[objects], resize)


def _extent_findings(
    raw: RawSet, rows: np.ndarray, sides: np.ndarray, limits: np.ndarray, resize: ResizeConfig
) -> Iterator[Finding]:
    """Of boxes cut to their images; ``sides`` and ``limits`` are widths and heights."""
    resized = sides * (resized_sizes(limits[:, ::-1], resize)[:, ::-1] / limits)
    for place in np.flatnonzero((resized < MIN_RESIZED_SIDE).any(axis=1)).tolist():
        (width, height), (new_width, new_height) = sides[place], resized[place]
        what = f"the box of {width:.4g} x {height:.4g} pixels is {new_width:.3g} x {new_height:.3g} after the resize"
        yield raw.about_object("box-tiny", int(rows[place]), what)
    for place in np.flatnonzero((sides >= WHOLE * limits).all(axis=1)).tolist():
        what = f"the box covers the whole image of {_show_size(limits[place])} pixels"
        yield raw.about_object("box-whole-image", int(rows[place]), what)


def _twin_findings(raw: RawSet, boxes: np.ndarray, fit: np.ndarray) -> Iterator[Finding]:
    rows = np.flatnonzero(fit & ~raw.crowd & (raw.labels >= 0))
    images, labels = raw.images[rows], raw.labels[rows]
    groups = images * (len(raw.class_names) + 1) + labels
    same = twins(boxes[rows], groups)
    for later, earlier in same:
        name = quote(raw.class_names[labels[later]])
        what = f"the same box of {name} as {raw.object_records[rows[earlier]]}"
        yield raw.about_object("box-twice", int(rows[later]), what)
    left = np.setdiff1d(np.arange(len(rows)), [later for later, _ in same])
    for later, earlier in twins(boxes[rows[left]], images[left]):
        first, second = (quote(raw.class_names[labels[left[place]]]) for place in (earlier, later))
        what = f"{second}, but {raw.object_records[rows[left[earlier]]]} says {first} of the same box"
        yield raw.about_object("box-of-two-classes", int(rows[left[later]]), what)


def _crowding_findings(raw: RawSet) -> Iterator[Finding]:
    counts = np.bincount(raw.images[(raw.images >= 0) & ~raw.crowd], minlength=len(raw))
    for image in np.flatnonzero(counts > MANY).tolist():
        yield raw.about_image("many-objects", image, f"{counts[image]} objects")


def _show_size(limits: np.ndarray) -> str:
    return f"{limits[0]:g} x {limits[1]:g}"


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    starts = np.maximum(first[:, :2], second[:, :2])
    ends = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    shared = (ends - starts).clip(0).prod(axis=1)
    iou: np.ndarray = shared / (first[:, 2:].prod(axis=1) + second[:, 2:].prod(axis=1) - shared)
    return iou
