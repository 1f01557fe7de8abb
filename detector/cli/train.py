"""Train a detector."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, log_to_file, run
from detector.config.load import load_config
from detector.config.schema import Config
from detector.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from detector.data.dataset import DetectionDataset
    from detector.engine.checkpoint import TrainingState
    from detector.engine.distributed import Processes
    from detector.engine.run_log import RunFolder
    from detector.evaluation.score import Metrics

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Train a detector. The run's folder gets weights, metrics, checkpoints and pictures.
The same command goes on with a run that was stopped."""

_EXAMPLE = """\
examples:
  train.py configs/quickstart.yaml
  train.py configs/examples/custom_coco.yaml data.classes='[cat, dog]' training.iterations=2000
  train.py configs/examples/custom_voc.yaml --overfit 8        can it learn 8 images by heart?
  torchrun --nproc-per-node 8 tools/train.py configs/coco/faster_rcnn_r101_c4_3x.yaml"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_train, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("train", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("config", metavar="CONFIG", help="YAML file, such as configs/quickstart.yaml")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, such as training.batch_size=4")
    parser.add_argument("--output", metavar="DIR", help="the run's folder (default: runs/<name of CONFIG>)")
    parser.add_argument("--weights", metavar="FILE", help="start from these weights (the same as model.weights=FILE)")
    parser.add_argument(
        "--resume", metavar="auto|never|CHECKPOINT", default="auto", help="go on with a run that was stopped (auto)"
    )
    parser.add_argument(
        "--overfit", metavar="N", type=int, help="train and evaluate on the first N images with objects, unaugmented"
    )
    return parser.parse_intermixed_args(argv)


def _train(argv: Sequence[str]) -> int:
    options = _parse(argv)
    overrides = list(options.overrides)
    if options.weights:
        overrides.append(f"model.weights={json.dumps(options.weights)}")
    config = load_config(options.config, overrides)
    if options.overfit is not None:
        config = _without_augmentation(config, options.overfit)
    suffix = f"-overfit{options.overfit}" if options.overfit is not None else ""
    output = Path(options.output or config.output_dir or f"runs/{Path(options.config).stem}{suffix}")

    from detector.engine.distributed import join_processes
    from detector.engine.run_log import RunFolder

    with join_processes() as processes:
        if processes.is_main:
            folder = RunFolder(output)
            folder.claim(config, resume=options.resume != "never")
            log_to_file(output / "train.log")
            folder.write_environment()
        processes.gather(None)  # the others wait until the folder is there
        folder = RunFolder(output)
        return _train_in(folder, config, options, processes)


def _train_in(folder: RunFolder, config: Config, options: argparse.Namespace, processes: Processes) -> int:
    state = _find_state(folder, options.resume)
    if state is not None and state.iteration == config.training.iterations and _is_whole(folder):
        _log.info("%s: already finished at iteration %d; nothing to do", folder.path, state.iteration)
        print(_what_next(folder, config, None))
        return 0
    from detector.data.dataset import check_dataset

    train_set, val_set = _open(config, options.overfit)
    check_dataset(train_set, images=2)
    started = time.monotonic()
    from detector.engine.device import select_device
    from detector.engine.setup import build_initial_model
    from detector.engine.trainer import Trainer

    device = select_device(config.device, processes.local_rank)
    model = build_initial_model(config, len(train_set.annotations.class_names), fresh=state is None)
    trainer = Trainer(config, model, train_set, val_set, folder, device, processes)
    if state is not None:
        trainer.restore(state)
        _log.info("going on after iteration %d", state.iteration)
    for line in trainer.summary():
        _log.info("%s", line)
    metrics = trainer.train()
    _log.info("done after %.1f minutes", (time.monotonic() - started) / 60)
    if processes.is_main:
        print(_what_next(folder, config, metrics))
    return 0


def _find_state(folder: RunFolder, resume: str) -> TrainingState | None:
    from detector.engine.checkpoint import load_checkpoint, load_newest

    if resume == "auto":
        return load_newest(folder.checkpoints)
    return None if resume == "never" else load_checkpoint(Path(resume))


def _is_whole(folder: RunFolder) -> bool:
    return (folder.path / "model_final.safetensors").exists()


def _without_augmentation(config: Config, images: int) -> Config:
    if images < 1:
        raise UsageError("--overfit needs a number of images of at least 1")
    resize = config.data.resize.model_copy(update={"train_short_side": (config.data.resize.test_short_side,)})
    data = config.data.model_copy(update={"resize": resize, "horizontal_flip": 0.0, "augmentations": ()})
    return config.model_copy(update={"data": data})


def _open(config: Config, overfit: int | None) -> tuple[DetectionDataset, DetectionDataset | None]:
    from detector.data.build import open_split
    from detector.data.dataset import Subset

    train_set = open_split(config, "train")
    if overfit is not None:
        chosen = Subset.with_objects(train_set, overfit)
        return chosen, chosen
    if not config.training.evaluate_every:
        return train_set, None
    if not config.data.val:
        raise ConfigError("data.val: lists no data set; give one, or set training.evaluate_every=0")
    return train_set, open_split(config, "val", train_set.annotations.class_names)


def _what_next(folder: RunFolder, config: Config, metrics: Metrics | None) -> str:
    path = folder.path
    best = path / "model_best.safetensors"
    weights = best if best.exists() else path / "model_final.safetensors"
    lines = [f"The run is in {path}/:"]
    if metrics is not None or (folder.evaluation / "metrics.json").exists():
        lines += [
            f"  {folder.evaluation}/metrics.json   all metrics, the last evaluation's",
            f"  {folder.evaluation}/pictures/      ground truth beside detections",
        ]
    lines += [
        f"  {weights}   the weights, with configuration and class names",
        f"  {folder.samples}/first_batch.jpg   what the network was shown",
        "Try next:",
        f"  python tools/visualize.py {weights} YOUR_IMAGES",
        f"  tensorboard --logdir {path}/tensorboard",
    ]
    if any(item.format == "shapes" for item in config.data.train):
        lines.append(
            "  python tools/train.py configs/examples/custom_coco.yaml   (or custom_voc.yaml) on your own images"
        )
    return "\n".join(lines)
