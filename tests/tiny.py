"""A detector and a configuration small enough to train in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from detector.config import Config, parse_config
from detector.data.dataset import DetectionDataset
from detector.data.loader import EvaluationBatches
from detector.engine.inference import detection_views
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN

NUM_CLASSES = 6

TINY = """
model:
  backbone: {depth: 18, norm: group, frozen_stages: 0, stride_in_1x1: false}
  pixel_order: rgb
  anchors: {sizes: [16, 32], aspect_ratios: [0.5, 1.0, 2.0]}
  rpn: {anchors_per_image: 32, train_candidates: 100, train_proposals: 30, test_candidates: 60}
  roi_head: {pooled_size: 4, regions_per_image: 8, detections_per_image: 20}
data:
  train: [{format: shapes, images: 12, seed: 0, size: [64, 80]}]
  val: [{format: shapes, images: 5, seed: 1, size: [64, 80]}]
  resize: {train_short_side: [48, 64], test_short_side: 64, max_long_side: 100}
  workers: 0
training:
  iterations: 4
  batch_size: 2
  optimizer: adamw
  learning_rate: 1e-3
  schedule: {kind: cosine, warmup_iterations: 0}
  log_every: 1
  checkpoint_every: 2
  evaluate_every: 4
evaluation: {proposals: 10}
"""


TINY_CLASSIFIER = """
model:
  backbone: {norm: batch, frozen_stages: 0, stride_in_1x1: false}
  classifier: {network: cifar, depth: 8}
  pixel_order: rgb
  pixel_mean: [123.675, 116.28, 103.53]
  pixel_std: [58.395, 57.12, 57.375]
data:
  train: [{format: shapes, images: 24, seed: 0, size: [32, 32]}]
  val: [{format: shapes, images: 12, seed: 1, size: [32, 32]}]
  resize: {train_short_side: [32], test_short_side: 32, max_long_side: 64}
  crop: {size: 32, padding: 2}
  group_by_aspect_ratio: false
  workers: 0
training:
  iterations: 6
  batch_size: 8
  learning_rate: 0.05
  nesterov: true
  schedule: {kind: cosine, warmup_iterations: 0}
  log_every: 1
  checkpoint_every: 2
  evaluate_every: 6
evaluation: {batch_size: 4}
"""


def tiny_classifier_config(*overrides: str) -> Config:
    """The small classifier, with overrides."""
    return parse_config(TINY_CLASSIFIER, "classifier.yaml", overrides)


def write_tiny_classifier(folder: Path) -> Path:
    """The configuration of a classifier's run of a second, as a file."""
    path = folder / "classifier.yaml"
    path.write_text(TINY_CLASSIFIER, encoding="utf-8")
    return path


def tiny_config(*overrides: str) -> Config:
    """The configuration of a run that takes a second or two."""
    return parse_config(TINY, "tiny.yaml", overrides)


def evaluation_batches(dataset: DetectionDataset, indices: Sequence[int], config: Config) -> EvaluationBatches:
    """The images as a detector sees them."""
    return EvaluationBatches(dataset, indices, config, detection_views(config))


def tiny_model(*overrides: str, seed: int = 0) -> FasterRCNN:
    """A model with random weights, in evaluation mode."""
    config = tiny_config(*overrides)
    torch.manual_seed(seed)
    return build_model(config.model, NUM_CLASSES, config.evaluation).eval()


def write_tiny(folder: Path) -> Path:
    """The configuration as a file, for the commands."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(TINY.replace("1e-3", "0.001"))), encoding="utf-8")
    return path
