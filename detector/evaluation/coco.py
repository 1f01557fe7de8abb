"""The COCO metrics: by this toolkit's own engine, or by pycocotools, equal to the last bit.

pycocotools' traps are closed on the way in: annotations are numbered from 1 (with an id of 0 a match counts as none),
crowd flags and areas are always there, and an empty list of detections is an ordinary one.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from detector.errors import VerificationError
from detector.evaluation.matching import image_ranks, match_all
from detector.evaluation.precision import Curves, accumulate
from detector.structures import Annotations, DetectionTable

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def coco_curves(truth: Annotations, found: DetectionTable, backend: str = "fast", verify: bool = False) -> Curves:
    """Precision and recall of all classes, thresholds and areas.

    Args:
        truth: ground truth.
        found: detections.
        backend: "fast" or "pycocotools".
        verify: compute both.

    Raises:
        VerificationError: they differ in some bit.
    """
    ours = accumulate(truth, match_all(truth, found)) if verify or backend == "fast" else None
    theirs = _pycocotools_curves(truth, found) if verify or backend == "pycocotools" else None
    if ours is not None and theirs is not None:
        for name in ("precision", "recall"):
            one, other = getattr(ours, name), getattr(theirs, name)
            if one.shape != other.shape or one.tobytes() != other.tobytes():
                largest = np.abs(one - other).max() if one.shape == other.shape else "of shape"
                raise VerificationError(
                    f"{name}: the fast engine and pycocotools differ (largest difference {largest}); "
                    "please report this with the two files; evaluation.backend=pycocotools gives the official numbers"
                )
    curves = theirs if backend == "pycocotools" else ours
    assert curves is not None
    return curves


def summarise(curves: Curves) -> dict[str, float | None]:
    """The twelve numbers of COCO as fractions, None where there is no ground truth to define them."""
    precision, recall = curves.precision, curves.recall
    values = (
        precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1],
        precision[..., 1, -1], precision[..., 2, -1], precision[..., 3, -1],
        recall[..., 0, 0], recall[..., 0, 1], recall[..., 0, 2],
        recall[..., 1, -1], recall[..., 2, -1], recall[..., 3, -1],
    )  # fmt: skip
    return dict(zip(NAMES, map(_mean, values), strict=True))


def summarise_classes(curves: Curves) -> list[dict[str, Any]]:
    """AP, AP50 and AP75 of each class."""
    precision = curves.precision[..., 0, -1]
    return [
        {
            "AP": _mean(precision[:, :, label]),
            "AP50": _mean(precision[0, :, label]),
            "AP75": _mean(precision[5, :, label]),
        }
        for label in range(precision.shape[2])
    ]


def _pycocotools_curves(truth: Annotations, found: DetectionTable) -> Curves:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_ground_truth(truth), _detections(truth, found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(evaluation.eval["precision"], evaluation.eval["recall"])


def _ground_truth(truth: Annotations) -> Any:
    records = _records(truth, truth.image_index(), truth.labels, truth.boxes_xywh, truth.areas)
    for record, crowd in zip(records, truth.crowd.tolist(), strict=True):
        record["iscrowd"] = int(crowd)
    return _indexed(truth, records)


def _detections(truth: Annotations, found: DetectionTable) -> Any:
    areas = found.boxes_xywh[:, 2] * found.boxes_xywh[:, 3]
    records = _records(truth, found.image_index, found.labels, found.boxes_xywh, areas)
    for record, score in zip(records, found.scores.tolist(), strict=True):
        record["score"] = score
    return _indexed(truth, records)


def _records(
    truth: Annotations, images: np.ndarray, labels: np.ndarray, boxes: np.ndarray, areas: np.ndarray
) -> list[dict[str, Any]]:
    image_ids = image_ranks(truth.image_ids).tolist()
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


def _indexed(truth: Annotations, records: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in image_ranks(truth.image_ids).tolist()],
        "categories": [{"id": label, "name": name} for label, name in enumerate(truth.class_names)],
        "annotations": records,
    }
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float | None:
    """Of what is defined, in pycocotools' order of additions."""
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else None
