"""Train the ResNet, or another network, as a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detector.cli.entry import run
from detector.cli.training import TrainingCommand, run_training
from detector.config.schema import ClassifierConfig, Config

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
    classifier = config.model.classifier or ClassifierConfig()
    return config.model_copy(update={"model": config.model.model_copy(update={"classifier": classifier})})


def _next_steps(weights: Path, config: Config) -> list[str]:
    lines = [
        f"  python tools/evaluate.py {weights}",
        f'  python -c \'from detector import Classifier; print(Classifier.load("{weights}").predict("IMAGE"))\'',
    ]
    if config.model.classifier is None or config.model.classifier.network == "resnet":
        lines.append(f"  python tools/train.py YOUR_CONFIG --weights {weights}   a detector that starts from it")
    return lines


_COMMAND = TrainingCommand("pretrain", _DESCRIPTION, _EXAMPLE, _prepare, _next_steps)
