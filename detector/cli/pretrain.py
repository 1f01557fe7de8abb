"""Train the ResNet, or another network, as a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detector.cli.entry import run
from detector.cli.training import TrainingCommand, run_training
from detector.config.schema import Config
from detector.errors import ConfigError

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Train a classifier: a ResNet for a detector to start from, or for its own sake.
The run's folder gets weights, metrics, checkpoints and pictures.
The same command goes on with a run that was stopped."""

_EXAMPLE = """\
examples:
  pretrain.py configs/examples/pretrain_folder.yaml data.train='[{format: folder, root: /my/images}]'
                              a folder a class; a fifth of the images is held out if data.val lists nothing
  pretrain.py configs/examples/finetune_folder.yaml data.train='[{format: folder, root: /my/images}]'
                              starts from ImageNet weights
  pretrain.py configs/examples/pretrain_crops.yaml data.train='[{format: crops, of: {format: voc, root: /my/data,
                              split: trainval}}]'   on the objects of a detection set
  train.py MY.yaml --weights runs/pretrain_crops/model_best.safetensors     a detector that starts from it
  torchrun --nproc-per-node 8 tools/pretrain.py configs/cifar/resnet56.yaml"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(partial(run_training, _COMMAND), argv)


def _prepare(config: Config) -> Config:
    if config.training.best_metric is not None:
        raise ConfigError("training.best_metric: classifiers are ranked by their top-1 accuracy; leave it out")
    if config.model.classifier is None:
        _log.info("model.classifier is not given: taken for a ResNet-%d, its default", config.model.backbone.depth)
    model = config.model.model_copy(update={"classifier": config.model.as_classifier})
    return config.model_copy(update={"model": model})


def _next_steps(weights: Path, config: Config) -> list[str]:
    from detector.weights.bridge import what_a_detector_lacks

    lines = [
        f"  python tools/visualize.py {weights} YOUR_IMAGES",
        f'  python -c \'from detector import Classifier; print(Classifier.load("{weights}").predict("IMAGE"))\'',
    ]
    if what_a_detector_lacks(config.model.as_classifier) is None:
        lines.append(f"  python tools/train.py YOUR_CONFIG --weights {weights}   a detector that starts from it")
    return lines


_COMMAND = TrainingCommand(
    "pretrain", "configs/examples/pretrain_folder.yaml", _DESCRIPTION, _EXAMPLE, _prepare, _next_steps
)
