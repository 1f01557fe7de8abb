"""Ground truth and detections for tests of the evaluation: by hand, at random, and as pycocotools scores them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.matching import COCO_RULES, Rules
from detector.evaluation.precision import Curves
from detector.structures import Annotations, DetectionTable, ImageId

Box = tuple[float, float, float, float]


class Thing(NamedTuple):
    """An object of the ground truth; its box is (x, y, width, height)."""

    label: int
    box: Box
    image: int = 0
    crowd: bool = False
    difficult: bool = False


class Guess(NamedTuple):
    """A detection."""

    label: int
    box: Box
    score: float
    image: int = 0


def truth_of(
    *things: Thing, images: int = 1, classes: int = 1, image_ids: Sequence[ImageId] | None = None
) -> Annotations:
    """The objects as ground truth; classes are called a, b, c.. and have the ids 1, 2, 3.."""
    things = tuple(sorted(things, key=lambda thing: thing.image))
    boxes = np.array([thing.box for thing in things], dtype=np.float64).reshape(-1, 4)
    counts = np.bincount([thing.image for thing in things], minlength=images)
    return Annotations(
        tuple(range(images)) if image_ids is None else tuple(image_ids),
        tuple(chr(ord("a") + label) for label in range(classes)),
        tuple(range(1, classes + 1)),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([thing.label for thing in things], dtype=np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.array([thing.crowd for thing in things], dtype=bool),
        np.array([thing.difficult for thing in things], dtype=bool),
    )


def found_of(*guesses: Guess) -> DetectionTable:
    """The guesses as a table, in their order."""
    return DetectionTable(
        np.array([guess.image for guess in guesses], dtype=np.int64),
        np.array([guess.label for guess in guesses], dtype=np.int64),
        np.array([guess.box for guess in guesses], dtype=np.float64).reshape(-1, 4),
        np.array([guess.score for guess in guesses], dtype=np.float64),
    )


def chosen(found: DetectionTable, rows: np.ndarray) -> DetectionTable:
    """Some detections, by mask or by indices."""
    return DetectionTable(found.image_index[rows], found.labels[rows], found.boxes_xywh[rows], found.scores[rows])


def drawn_set(truth: Annotations, found: DetectionTable, images: Sequence[int]) -> tuple[Annotations, DetectionTable]:
    """The set of the named images, in that order; one may be named more than once."""
    rows = [np.arange(truth.rows[image], truth.rows[image + 1]) for image in images]
    objects = np.concatenate([*rows, np.zeros(0, dtype=np.int64)])
    guesses = [np.flatnonzero(found.image_index == image) for image in images]
    table = chosen(found, np.concatenate([*guesses, np.zeros(0, dtype=np.int64)]))
    drawn = Annotations(
        tuple(range(len(images))),
        truth.class_names,
        truth.category_ids,
        np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64),
        *(getattr(truth, name)[objects] for name in ("labels", "boxes_xywh", "areas", "crowd", "difficult")),
    )
    return drawn, replace(table, image_index=np.repeat(np.arange(len(images)), [len(part) for part in guesses]))


# At random


def random_set(seed: int) -> tuple[Annotations, DetectionTable]:
    """A small set as odd as data can be.

    Crowds, equal scores, equal IoUs, classes without objects or detections, more than 100 detections of a class in an
    image, boxes without area, ids that are texts, negative or unsorted; sometimes no object or no detection at all.
    """
    random = np.random.default_rng(seed)
    crammed = random.random() < 0.1
    images = int(random.integers(1, 3 if crammed else 12))
    classes = int(random.integers(1, 3 if crammed else 5))
    boxes_of = _boxes_on_a_grid if random.random() < 0.5 else _boxes_anywhere
    truth = _random_truth(random, images, classes, boxes_of)
    count = 0 if random.random() < 0.05 else 700 if crammed else int(random.integers(1, 90))
    return truth, _random_found(random, truth, count, boxes_of)


def random_sets(count: int) -> Iterator[tuple[int, Annotations, DetectionTable]]:
    """Seeds and their sets."""
    for seed in range(count):
        yield (seed, *random_set(seed))


Boxes = Callable[[np.random.Generator, int], np.ndarray]


def _boxes_on_a_grid(random: np.random.Generator, count: int) -> np.ndarray:
    sides = random.integers(1, 6, (count, 2)) * random.choice([5, 10, 40])
    return np.concatenate([random.integers(0, 8, (count, 2)) * 10, sides], axis=1).astype(np.float64)


def _boxes_anywhere(random: np.random.Generator, count: int) -> np.ndarray:
    return np.concatenate([random.random((count, 2)) * 100, random.random((count, 2)) * 120 + 0.1], axis=1)


def _random_truth(random: np.random.Generator, images: int, classes: int, boxes_of: Boxes) -> Annotations:
    counts = random.integers(0, 7, images) * (random.random() < 0.95)
    total = int(counts.sum())
    boxes = boxes_of(random, total)
    return Annotations(
        _random_ids(random, images),
        tuple(f"class {label}" for label in range(classes)),
        tuple(range(classes)),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        random.integers(0, random.integers(1, classes + 1), total),
        boxes,
        boxes[:, 2] * boxes[:, 3] * random.choice([1, 0.5]),
        random.random(total) < 0.15,
        random.random(total) < 0.15,
    )


def _random_ids(random: np.random.Generator, images: int) -> tuple[ImageId, ...]:
    ids = [int(number) for number in random.permutation(200)[:images] - 20]
    return tuple(ids) if random.random() < 0.7 else tuple(f"{number}.png" for number in ids)


def _random_found(random: np.random.Generator, truth: Annotations, count: int, boxes_of: Boxes) -> DetectionTable:
    """Six in ten lie near an object, of these three in ten exactly on it; half of the time scores are equal."""
    image, boxes = random.integers(0, len(truth.image_ids), count), boxes_of(random, count)
    labels = random.integers(0, len(truth.class_names), count)
    objects = len(truth.labels)
    if objects:
        source, near = random.integers(0, objects, count), random.random(count) < 0.6
        shift = random.normal(0, 2, (count, 4)) * (random.random((count, 1)) < 0.7)
        moved = truth.boxes_xywh[source] + shift
        moved[:, 2:] = np.abs(moved[:, 2:])
        boxes = np.where(near[:, None], moved, boxes)
        image = np.where(near, truth.image_index()[source], image)
        labels = np.where(near & (random.random(count) < 0.6), truth.labels[source], labels)
    boxes[random.random(count) < 0.02, 2] = 0
    scores = random.random(count)
    return DetectionTable(image, labels, boxes, np.round(scores, 1) if random.random() < 0.5 else scores)


def fair_set(images: int = 40, classes: int = 5, seed: int = 0) -> tuple[Annotations, DetectionTable]:
    """Images of 640 x 480 with a few objects, and what a fair detector finds in them: no two scores are equal."""
    random = np.random.default_rng(seed)
    counts = random.integers(1, 6, images)
    total = int(counts.sum())
    sides = random.uniform(30, 200, (total, 2))
    boxes = np.concatenate([random.random((total, 2)) * ([640, 480] - sides), sides], axis=1)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, total - classes)])
    none = np.zeros(total, dtype=bool)
    truth = Annotations(
        tuple(range(images)),
        tuple(f"class {label}" for label in range(classes)),
        tuple(range(1, classes + 1)),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        labels,
        boxes,
        sides.prod(axis=1),
        none,
        none,
    )
    right = random.random(total) < 0.8
    near = boxes + random.normal(0, 0.04, (total, 4)) * np.tile(sides, 2)
    wrong = np.concatenate([random.random((total, 2)) * 400, random.uniform(30, 200, (total, 2))], axis=1)
    image = truth.image_index()
    scores = np.concatenate([random.beta(6, 2, right.sum()), random.beta(2, 4, total)])
    return truth, DetectionTable(
        np.concatenate([image[right], random.permutation(image)]),
        np.concatenate([labels[right], random.permutation(labels)]),
        np.concatenate([near[right], wrong]),
        scores,
    )


# As pycocotools scores them


def official_curves(truth: Annotations, found: DetectionTable, rules: Rules = COCO_RULES) -> Curves:
    """What pycocotools makes of a set that is written as its files are: annotation ids from 1."""
    coco = COCO()
    annotations = _records(truth, truth.image_index(), truth.labels, truth.boxes_xywh)
    for number, record in enumerate(annotations, start=1):
        record.update(id=number, area=float(truth.areas[number - 1]), iscrowd=int(truth.crowd[number - 1]))
    results = _records(truth, found.image_index, found.labels, found.boxes_xywh)
    for record, score in zip(results, found.scores.tolist(), strict=True):
        record["score"] = score
    coco.dataset = {
        "images": [{"id": image_id} for image_id in truth.image_ids],
        "categories": [{"id": category_id} for category_id in truth.category_ids],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results) if results else COCO(), "bbox")
        evaluation.params.iouThrs = rules.iou_thresholds
        evaluation.params.areaRng = rules.areas.tolist()
        evaluation.params.areaRngLbl = [str(number) for number in range(len(rules.areas))]
        evaluation.params.maxDets = list(rules.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
    return Curves(evaluation.eval["precision"], evaluation.eval["recall"])


def _records(truth: Annotations, images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
    rows = zip(images.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    return [
        {"image_id": truth.image_ids[image], "category_id": truth.category_ids[label], "bbox": box}
        for image, label, box in rows
    ]
