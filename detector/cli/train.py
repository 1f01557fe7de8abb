"""Train a detector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detector.cli.entry import run
from detector.cli.training import TrainingCommand, run_training
from detector.config.load import of_a_detector
from detector.config.schema import Config

_DESCRIPTION = """\
Train a detector. The run's folder gets weights, metrics, checkpoints and pictures.
The same command goes on with a run that was stopped."""

_EXAMPLE = """\
examples:
  train.py configs/quickstart.yaml
  train.py configs/examples/custom_coco.yaml data.classes='[cat, dog]' training.iterations=2000
  train.py configs/examples/custom_voc.yaml --overfit 8        can it learn 8 images by heart?
  train.py configs/quickstart.yaml --print-config              which file says what?
  train.py configs/quickstart.yaml --find-learning-rate        at which rate does the loss fall fastest?
  torchrun --nproc-per-node 8 tools/train.py configs/coco/faster_rcnn_r101_c4_3x.yaml"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(partial(run_training, _COMMAND), argv)


def _next_steps(weights: Path, config: Config) -> list[str]:
    lines = [f"  python tools/visualize.py {weights} YOUR_IMAGES"]
    if any(item.format == "shapes" for item in config.data.train):
        lines.append(
            "  python tools/train.py configs/examples/custom_coco.yaml   (or custom_voc.yaml) on your own images"
        )
    return lines


_COMMAND = TrainingCommand("train", "configs/quickstart.yaml", _DESCRIPTION, _EXAMPLE, of_a_detector, _next_steps)
