"""Ground truth on the way that detections take: a pipeline in which even that does not score 1 is not to be trusted.

Each object goes, as training sees it, to the network's input, comes back as a detection does, is written to a results
file, read, and scored. What no detector could score is kept out of the comparison, so that this one is exact:

- A detection never reaches over the edge of its image; so boxes are cut to it, as training cuts them.
- Of several boxes of one class in one place NMS leaves one, and so does this test.
- COCO counts the best 100 detections an image and class. What can be scored under that limit is computed apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from detector.config.data_schema import ResizeConfig
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset, Subset
from detector.data.findings import Finding
from detector.data.images import read_size
from detector.data.transforms import resized_size
from detector.engine.inference import to_original
from detector.errors import ImageError
from detector.evaluation.results_file import read_results, write_results
from detector.evaluation.score import score
from detector.structures import Annotations, Detections, DetectionTable, Size

# pycocotools adds 2.2e-16 to a denominator, and means of a few thousand numbers add as much again. An object that is
# lost costs at least a 101st of one class at one of ten thresholds: 6e-7 of the whole with 1500 classes.
_TOLERANCE = 1e-9
# In pixels of the network's input, of which float32 keeps a thousandth: thinner boxes are not the same afterwards.
_THINNEST = 0.1
_LARGEST_SHIFT = 0.05  # in pixels of the original; float32 moves boxes by a tenth of that in images of 16000
_COCO_LIMIT = 100
_METRICS = {"coco": ("AP",), "voc07": ("mAP50", "mAP"), "voc": ("mAP50", "mAP")}


@dataclass(frozen=True)
class SelfTest:
    """What ground truth scores as detections.

    Attributes:
        scores: by metric, such as "coco.AP"; fractions. A metric that nothing defines is left out.
        possible: the same where nothing goes wrong: 1, or less where COCO's limit on detections makes that impossible.
        perfect: COCO's AP of the same detections against the annotations as they are, with boxes that reach over the
            edge and copies: what a detector without fault would score. None where nothing defines it.
        objects: how many were tested.
        left_out: how many were not: copies, too thin for the resize, or in images whose size could not be read.
        finding: what is wrong, if anything.
    """

    scores: dict[str, float]
    possible: dict[str, float]
    perfect: float | None
    objects: int
    left_out: int
    finding: Finding | None

    @property
    def ap(self) -> float | None:
        """COCO's AP."""
        return self.scores.get("coco.AP")

    @property
    def ap_possible(self) -> float | None:
        """The AP that is possible."""
        return self.possible.get("coco.AP")


def self_test(dataset: DetectionDataset, config: Config, split: str, file: str) -> SelfTest:
    """Scores a data set's ground truth as if it had been detected; no image is decoded.

    Args:
        dataset: the images with their objects; where a size is not recorded, the file's header is read.
        config: for the resize rule and the metrics.
        split: its name, for the finding.
        file: where its annotations are, for the finding.
    """
    whole, sizes = _sized(dataset)
    truth = _as_trained_on(whole, sizes, config.data.resize)
    found = _through_files(_through_network(truth, sizes, config.data.resize), truth)
    metrics = tuple(dict.fromkeys(("coco", *config.evaluation.metrics)))
    numbers = score(truth, found, metrics, config.evaluation.backend)
    scores = {f"{group}.{name}": numbers[group][name] for group in metrics for name in _METRICS[group]}
    scores = {name: value for name, value in scores.items() if value is not None}
    possible = {name: _possible_ap(truth) if name == "coco.AP" else 1.0 for name in scores}
    return SelfTest(
        scores,
        possible,
        score(whole, found, ("coco",))["coco"]["AP"],
        len(found),
        int((~dataset.annotations.crowd).sum()) - len(found),
        _finding(scores, possible, _largest_shift(truth, found), split, file),
    )


def _sized(dataset: DetectionDataset) -> tuple[Annotations, list[Size]]:
    """The ground truth of the images whose size is known, and these sizes."""
    sizes = [_size_of(dataset, index) for index in range(len(dataset))]
    known = [index for index, size in enumerate(sizes) if size is not None]
    truth = dataset.annotations if len(known) == len(sizes) else Subset(dataset, known).annotations
    return truth, [size for size in sizes if size is not None]


def _size_of(dataset: DetectionDataset, index: int) -> Size | None:
    info = dataset.info(index)
    try:
        return info.size or read_size(info.path)
    except ImageError:
        return None


def _as_trained_on(truth: Annotations, sizes: Sequence[Size], resize: ResizeConfig) -> Annotations:
    """Boxes cut to their images; those that vanish and all but one of several in the same place are left out."""
    limits = np.array([(size.width, size.height) for size in sizes], dtype=np.float64).reshape(-1, 2)
    resized = np.array([_resized(size, resize)[::-1] for size in sizes], dtype=np.float64).reshape(-1, 2)
    images, boxes = truth.image_index(), truth.boxes_xywh
    first = np.clip(boxes[:, :2], 0, limits[images])
    last = np.clip(boxes[:, :2] + boxes[:, 2:], 0, limits[images])
    thick = ((last - first) * (resized / limits)[images] >= _THINNEST).all(axis=1)
    # Of the same box, the one that counts in every metric comes first.
    order = np.lexsort((truth.difficult, truth.crowd, ~thick))
    places = np.column_stack([images, truth.labels, np.round(first, 2), np.round(last, 2)])[order]
    kept = np.sort(order[np.unique(places, axis=0, return_index=True)[1]])
    kept = kept[thick[kept]]
    return replace(
        truth,
        rows=np.searchsorted(images[kept], np.arange(len(sizes) + 1)).astype(np.int64),
        labels=truth.labels[kept],
        boxes_xywh=np.concatenate([first, last - first], axis=1)[kept],
        areas=truth.areas[kept],
        crowd=truth.crowd[kept],
        difficult=truth.difficult[kept],
    )


def _resized(size: Size, resize: ResizeConfig) -> Size:
    return resized_size(size, resize.test_short_side, resize.max_long_side)


def _through_network(truth: Annotations, sizes: Sequence[Size], resize: ResizeConfig) -> DetectionTable:
    """The objects as detections of the resized images, mapped back to the original ones as inference does."""
    found = []
    for index, size in enumerate(sizes):
        rows = np.arange(truth.rows[index], truth.rows[index + 1])
        rows = rows[~truth.crowd[rows]]
        resized = _resized(size, resize)
        scale = np.array([resized.width / size.width, resized.height / size.height] * 2, dtype=np.float32)
        x1y1, sides = np.split(truth.boxes_xywh[rows], 2, axis=1)
        boxes = np.concatenate([x1y1, x1y1 + sides], axis=1).astype(np.float32) * scale
        detections = Detections(torch.from_numpy(boxes), torch.ones(len(rows)), torch.from_numpy(truth.labels[rows]))
        found.append(to_original(detections, resized, False, size))
    return DetectionTable.of(found)


def _through_files(found: DetectionTable, truth: Annotations) -> DetectionTable:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detections.json"
        write_results(path, found, truth)
        return read_results(path, truth)


def _possible_ap(truth: Annotations) -> float:
    """COCO's AP when all detections that count are true: the mean share of recalls, 0 to 1 by hundredths, reached."""
    classes = len(truth.class_names)
    groups = (truth.image_index() * classes + truth.labels)[~truth.crowd]
    counts = np.bincount(groups, minlength=len(truth.image_ids) * classes).reshape(-1, classes)
    objects, counted = counts.sum(axis=0), counts.clip(max=_COCO_LIMIT).sum(axis=0)
    # Whole numbers, since a quotient beside a hundredth may fall to either side; where it is equal, not counted.
    hundredths = np.arange(101)[:, None]
    reached = (100 * counted > hundredths * objects) | (counted == objects)
    return float(reached.mean(axis=0)[objects > 0].mean())


def _largest_shift(truth: Annotations, found: DetectionTable) -> float:
    """How far a side came back from where it was; large boxes score 1 even where all are a pixel off."""
    boxes = truth.boxes_xywh[~truth.crowd]
    return float(np.abs(found.boxes_xywh - boxes).max(initial=0.0)) if len(found) == len(boxes) else 0.0


def _finding(
    scores: dict[str, float], possible: dict[str, float], shift: float, split: str, file: str
) -> Finding | None:
    what = [
        f"score {value:.6f} in {name} where {possible[name]:.6f} is possible"
        for name, value in scores.items()
        if value < possible[name] - _TOLERANCE
    ][:1]
    what += [f"come back up to {shift:.2f} pixels from where they were"] if shift > _LARGEST_SHIFT else []
    if not what:
        return None
    return Finding("self-test", split, file, "", f"its objects, given as detections, {' and '.join(what)}")
