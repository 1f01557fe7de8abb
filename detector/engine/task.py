"""What a run does differently for a detector and for a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.config.schema import Config
from detector.data.build import open_for_training, open_split
from detector.data.classification.build import open_labelled, open_labelled_for_training
from detector.data.classification.transform import ClassificationTransform
from detector.data.dataset import DetectionDataset
from detector.data.loader import Transform
from detector.data.transforms import TrainTransform
from detector.engine.classification.evaluation import evaluate_classifier
from detector.engine.classification.setup import build_initial_classifier, classifier_of
from detector.engine.evaluation import evaluate_model
from detector.engine.quick_check import quick_check
from detector.engine.setup import Loaded, build_initial_model, model_of
from detector.evaluation.classification import format_classification, top1
from detector.evaluation.score import Metrics, format_metrics, headline
from detector.models.trainable import Trainable
from detector.structures import Annotations
from detector.weights.load import Weights


@dataclass(frozen=True)
class Task:
    """The parts that differ.

    Attributes:
        open_split: from configuration, "train" or "val", class names and a folder for indices to a data set.
        open_for_training: from configuration and that folder to what to train on and what to evaluate on, if anything.
        build: from configuration, class names and whether ``model.weights`` are taken to the network as it starts.
        load: from the contents of a weights file, and settings used instead of its own, to the network.
        transform: how training images are prepared.
        evaluate: as ``evaluate_model``.
        headline: the one number that ranks evaluations; None where it is undefined.
        format_metrics: the metrics as a table.
        network: what the log calls the network.
        content: what the log says of the training set.
        look_at: lines about what is odd in the training set.
    """

    open_split: Callable[..., DetectionDataset]
    open_for_training: Callable[[Config, Path], tuple[DetectionDataset, DetectionDataset | None]]
    build: Callable[[Config, Sequence[str], bool], Trainable]
    load: Callable[[Weights, Config | None], Loaded[Any]]
    transform: Callable[[Config], Transform]
    evaluate: Callable[..., Metrics | None]
    headline: Callable[[Metrics, str | None], float | None]
    format_metrics: Callable[[Metrics], str]
    network: Callable[[Config], str]
    content: Callable[[Annotations], str]
    look_at: Callable[[DetectionDataset, Config], list[str]]


def _detector(config: Config) -> str:
    return f"ResNet-{config.model.backbone.depth} C4"


def _classifier(config: Config) -> str:
    classifier = config.model.as_classifier
    if not classifier.has_stages:
        return "LeNet-5" if classifier.network == "lenet" else classifier.network
    kinds = {
        "residual": "ResNet-{}",
        "plain": "plain network of {} layers",
        "preactivation": "pre-activation ResNet-{}",
    }
    return kinds[classifier.block].format(config.model.classifier_depth) + (
        " for small images" if classifier.network == "cifar" else ""
    )


def _empty_margins(_: DetectionDataset, config: Config) -> list[str]:
    """Tells where the network is shown more of the mean colour than of the images."""
    short_side, crop = min(config.data.resize.train_short_side), config.data.crop
    if 2 * short_side > crop.size:
        return []
    return [
        f"images are resized to a short side of {short_side} and less than half fills the square of {crop.size}: raise "
        "data.resize.train_short_side and test_short_side, or lower data.crop.size"
    ]


def _objects(annotations: Annotations) -> str:
    empty = int((np.diff(annotations.rows) == 0).sum())
    return f"{len(annotations.image_ids)} images ({empty} without objects), {len(annotations.labels)} objects"


DETECTION = Task(
    open_split=open_split,
    open_for_training=open_for_training,
    build=build_initial_model,
    load=model_of,
    transform=lambda config: TrainTransform(config.data, config.seed),
    evaluate=evaluate_model,
    headline=headline,
    format_metrics=format_metrics,
    network=_detector,
    content=_objects,
    look_at=lambda train_set, config: quick_check(train_set, config, "train"),
)

CLASSIFICATION = Task(
    open_split=open_labelled,
    open_for_training=open_labelled_for_training,
    build=build_initial_classifier,
    load=classifier_of,
    transform=ClassificationTransform,
    evaluate=evaluate_classifier,
    headline=lambda metrics, _: top1(metrics),
    format_metrics=format_classification,
    network=_classifier,
    content=lambda annotations: f"{len(annotations.image_ids)} images",
    look_at=_empty_margins,
)


def task_of(config: Config) -> Task:
    """A classifier's configuration has ``model.classifier``, a detector's has none."""
    return DETECTION if config.model.classifier is None else CLASSIFICATION
