"""The COCO metrics, by pycocotools itself.

Its traps are closed on the way in: annotations are numbered from 1 (with an id of 0 a match counts as none), crowd
flags and areas are always there, and an empty list of detections is an ordinary one.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.structures import Annotations, DetectionTable, ImageId

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def score_coco(truth: Annotations, found: DetectionTable) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """Scores detections with the twelve numbers of COCO.

    Args:
        truth: ground truth.
        found: detections.

    Returns:
        The twelve numbers as fractions, None where there is no ground truth to define them; and AP, AP50 and AP75
        of each class.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_ground_truth(truth), _detections(truth, found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = {name: _defined(value) for name, value in zip(NAMES, evaluation.stats, strict=True)}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    per_class = [
        {
            "AP": _mean(precision[:, :, label]),
            "AP50": _mean(precision[0, :, label]),
            "AP75": _mean(precision[5, :, label]),
        }
        for label in range(len(truth.class_names))
    ]
    return numbers, per_class


def _ground_truth(truth: Annotations) -> COCO:
    records = _records(truth, truth.image_index(), truth.labels, truth.boxes_xywh, truth.areas)
    for record, crowd in zip(records, truth.crowd.tolist(), strict=True):
        record["iscrowd"] = int(crowd)
    return _indexed(truth, records)


def _detections(truth: Annotations, found: DetectionTable) -> COCO:
    areas = found.boxes_xywh[:, 2] * found.boxes_xywh[:, 3]
    records = _records(truth, found.image_index, found.labels, found.boxes_xywh, areas)
    for record, score in zip(records, found.scores.tolist(), strict=True):
        record["score"] = score
    return _indexed(truth, records)


def _records(
    truth: Annotations, images: np.ndarray, labels: np.ndarray, boxes: np.ndarray, areas: np.ndarray
) -> list[dict[str, Any]]:
    image_ids = _ranks(truth.image_ids)
    rows = zip(images.tolist(), labels.tolist(), boxes.tolist(), areas.tolist(), strict=True)
    return [
        {
            "id": number,
            "image_id": image_ids[image],
            "category_id": label,
            "bbox": box,
            "area": area,
            "iscrowd": 0,
        }
        for number, (image, label, box, area) in enumerate(rows, start=1)
    ]


def _ranks(image_ids: tuple[ImageId, ...]) -> list[int]:
    """Numbers for image ids of any type, in their order: between equal scores the lower id goes first."""
    order = sorted(range(len(image_ids)), key=lambda index: (isinstance(image_ids[index], str), image_ids[index]))
    ranks = [0] * len(image_ids)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return ranks


def _indexed(truth: Annotations, records: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in _ranks(truth.image_ids)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(truth.class_names)],
        "annotations": records,
    }
    coco.createIndex()
    return coco


def _mean(precision: np.ndarray) -> float | None:
    return float(precision.mean()) if precision.size and precision.max() > -1 else None


def _defined(value: float) -> float | None:
    return None if value == -1 else float(value)
