"""Detections as a file: COCO's results format, with the data set's own image and category ids."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.durable import replace_file
from detector.errors import DatasetError, quote
from detector.strict_json import is_number, read_json
from detector.structures import Annotations, DetectionTable, ImageId

_log = logging.getLogger(__name__)


def write_results(path: Path, found: DetectionTable, truth: Annotations) -> None:
    """Writes detections; ``read_results`` reads them back equal."""
    rows = zip(
        found.image_index.tolist(), found.labels.tolist(), found.boxes_xywh.tolist(), found.scores.tolist(),
        strict=True,
    )  # fmt: skip
    records = [
        {
            "image_id": truth.image_ids[image],
            "category_id": truth.category_ids[label],
            "bbox": box,
            "score": score,
        }
        for image, label, box, score in rows
    ]
    replace_file(path, json.dumps(records))


def read_results(path: str | Path, truth: Annotations) -> DetectionTable:
    """Reads a detections file against the ground truth that it belongs to.

    Detections of categories that the ground truth does not declare are left out and counted, as in pycocotools.

    Raises:
        DatasetError: says which record is wrong: an unknown image, a box that is not four finite numbers with
            width and height, or a score that is no number.
    """
    records = read_json(path)
    if not isinstance(records, list):
        hint = "; is this the ground truth?" if isinstance(records, dict) and "annotations" in records else ""
        raise DatasetError(f"{path}: must be a list of detections (COCO results format){hint}")
    images = {image_id: index for index, image_id in enumerate(truth.image_ids)}
    labels = {category_id: label for label, category_id in enumerate(truth.category_ids)}
    undeclared: Counter[str] = Counter()
    rows: list[tuple[int, int, list[float], float]] = []
    for position, record in enumerate(records):
        where = f"{path}: [{position}]"
        if not isinstance(record, dict):
            raise DatasetError(f"{where}: must be an object, got {quote(record)}")
        image = _image_of(record, images, where)
        box = _box(record.get("bbox"), where)
        if not is_number(record.get("score")):
            raise DatasetError(f"{where}: score must be a number, got {quote(record.get('score'))}")
        category_id = record.get("category_id")
        if isinstance(category_id, bool) or not isinstance(category_id, int | str):
            raise DatasetError(f"{where}: category_id must be a whole number or text, got {quote(category_id)}")
        if category_id not in labels:
            undeclared[str(category_id)] += 1
            continue
        rows.append((image, labels[category_id], box, float(record["score"])))
    if undeclared:
        names = ", ".join(quote(name) for name, _ in undeclared.most_common(5))
        _log.warning("%s: left out %d detections of undeclared categories: %s", path, undeclared.total(), names)
    return DetectionTable(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], dtype=np.float64),
    )


def _image_of(record: dict[str, Any], images: dict[ImageId, int], where: str) -> int:
    image_id = record.get("image_id")
    if isinstance(image_id, bool) or not isinstance(image_id, int | str):
        raise DatasetError(f"{where}: image_id must be a whole number or text, got {quote(image_id)}")
    if image_id not in images:
        other: ImageId | None = str(image_id) if isinstance(image_id, int) else _as_number(image_id)
        hint = "; the ground truth has the same id as another type" if other in images else ""
        raise DatasetError(f"{where}: image_id {quote(image_id)} is not in the ground truth{hint}")
    return images[image_id]


def _as_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _box(box: Any, where: str) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(value) for value in box):
        raise DatasetError(f"{where}: bbox must be four numbers [x, y, width, height], got {quote(box)}")
    if box[2] < 0 or box[3] < 0:
        raise DatasetError(f"{where}: bbox {quote(box)} has a negative width or height (are these x1, y1, x2, y2?)")
    return [float(value) for value in box]
