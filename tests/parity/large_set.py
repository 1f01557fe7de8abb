"""A set as large as COCO's val2017, for the cost of evaluation: ``python -m tests.parity.large_set --help``.

5000 images, 80 classes, 37,000 boxes and 500,000 detections by default; prints CPU seconds and memory beyond them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from detector.evaluation.analysis import analyse
from detector.evaluation.coco import coco_curves, summarise
from detector.evaluation.error_kinds import find_error_kinds
from detector.evaluation.intervals import draw_images, resampled_ap
from detector.evaluation.matching import image_ranks, match_all
from detector.structures import Annotations, DetectionTable


def large_set(times: int = 1, classes: int = 80, seed: int = 0) -> tuple[Annotations, DetectionTable]:
    """Ground truth, and detections of which two in five lie near an object."""
    random = np.random.default_rng(seed)
    images, objects, detections = 5000 * times, 37_000 * times, 500_000 * times
    image = np.sort(random.integers(0, images, objects))
    boxes = _boxes(random, objects)
    truth = Annotations(
        tuple(range(images)),
        tuple(f"class {number}" for number in range(classes)),
        tuple(range(classes)),
        np.searchsorted(image, np.arange(images + 1)).astype(np.int64),
        _labels(random, objects, classes),
        boxes,
        boxes[:, 2] * boxes[:, 3] * 0.6,
        random.random(objects) < 0.01,
        np.zeros(objects, dtype=bool),
    )
    near, source = random.random(detections) < 0.4, random.integers(0, objects, detections)
    right = near & (random.random(detections) < 0.8)
    moved = boxes[source] + random.normal(0, 0.15, (detections, 4)) * np.tile(boxes[source, 2:], 2)
    found = np.where(near[:, None], moved, _boxes(random, detections))
    found[:, 2:] = np.abs(found[:, 2:]) + 1
    where = np.where(near, image[source], random.integers(0, images, detections))
    order = np.argsort(where, kind="stable")
    labels = np.where(right, truth.labels[source], _labels(random, detections, classes))
    return truth, DetectionTable(where[order], labels[order], found[order], random.random(detections)[order] ** 2)


def _boxes(random: np.random.Generator, count: int) -> np.ndarray:
    return np.concatenate([random.random((count, 2)) * 500, np.exp(random.normal(4, 1, (count, 2)))], axis=1)


def _labels(random: np.random.Generator, count: int, classes: int) -> np.ndarray:
    return np.minimum(random.geometric(0.06, count) - 1, classes - 1)


def _measured(title: str, work: Callable[[], Any]) -> Any:
    memory, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result = work()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    print(f"{title:<36}{time.process_time() - cpu:>8.2f} CPU s {grown:>8.0f} MiB more at the peak", flush=True)
    return result


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1, help="so many times as large")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--verify", action="store_true", help="by pycocotools, too; 40 s and 2 GiB")
    options = parser.parse_args()
    truth, found = large_set(options.times, options.classes)
    curves = _measured("metrics of COCO", lambda: coco_curves(truth, found))
    print(f"  AP {summarise(curves)['AP']:.4f}")
    matches = match_all(truth, found)
    _measured("error kinds", lambda: find_error_kinds(truth, found, matches))
    ranks, draws = image_ranks(truth.image_ids), draw_images(len(truth.image_ids))
    _measured("1000 draws of images", lambda: resampled_ap(truth, matches, ranks, draws))
    _measured("the whole analysis", lambda: analyse(truth, found))
    if options.verify:
        _measured("both engines, every bit compared", lambda: coco_curves(truth, found, verify=True))


if __name__ == "__main__":
    main()
