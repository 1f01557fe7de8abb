"""What train and pretrain share: options, the run's folder, going on, and the words at the end."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, log_to_file
from detector.config.explain import explain_config
from detector.config.load import load_config
from detector.config.schema import Config
from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.data.dataset import DetectionDataset
    from detector.engine.distributed import Processes
    from detector.engine.exit_note import ExitNote
    from detector.engine.run_folder import RunFolder
    from detector.engine.trainer import Trainer
    from detector.evaluation.score import Metrics

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingCommand:
    """How a command differs.

    Attributes:
        name: of the command.
        config: an example of one.
        description: for its help.
        example: for its help.
        prepare: makes the configuration one of its task, or refuses it.
        next_steps: from the weights file and the configuration to lines on what to do with the result.
    """

    name: str
    config: str
    description: str
    example: str
    prepare: Callable[[Config], Config]
    next_steps: Callable[[Path, Config], list[str]]


def _parse(command: TrainingCommand, argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(command.name, command.description, command.example)
    parser.add_argument("config", metavar="CONFIG", nargs="?", help=f"YAML file, such as {command.config}")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, such as training.batch_size=4")
    parser.add_argument("--output", metavar="DIR", help="the run's folder (default: runs/<name of CONFIG>)")
    parser.add_argument("--weights", metavar="FILE", help="start from these weights (the same as model.weights=FILE)")
    parser.add_argument(
        "--resume", metavar="auto|never|CHECKPOINT", default="auto", help="go on with a run that was stopped (auto)"
    )
    parser.add_argument(
        "--resume-anyway", action="store_true", help="go on although settings or data differ; differences are logged"
    )
    parser.add_argument("--overfit", metavar="N", type=int, help="train and evaluate on N images alone, unaugmented")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print each setting with the file and line it comes from; no training",
    )
    parser.add_argument(
        "--find-learning-rate",
        action="store_true",
        help="try rising learning rates for 100 iterations and plot the loss",
    )
    parser.add_argument("--replay", metavar="FILE", help="look into a batch that a diverged training has kept")
    options = parser.parse_intermixed_args(argv)
    if (options.config is None) == (options.replay is None):
        parser.error(f"give a CONFIG, such as {command.config}, or --replay FILE")
    return options


def run_training(command: TrainingCommand, argv: Sequence[str]) -> int:
    """Does what the arguments say.

    Args:
        command: whose arguments they are.
        argv: the arguments.

    Returns:
        The exit code 0.

    Raises:
        DetectorError: as the parts of a training.
    """
    options = _parse(command, argv)
    if options.replay:
        return _replay(Path(options.replay))
    overrides = list(options.overrides)
    if options.weights:
        overrides.append(f"model.weights={json.dumps(options.weights)}")
    config = command.prepare(load_config(options.config, overrides))
    if options.print_config:
        print(explain_config(options.config, overrides))
        return 0
    if options.overfit is not None:
        config = _without_augmentation(config, options.overfit)
    suffix = f"-overfit{options.overfit}" if options.overfit is not None else ""
    suffix += "-rates" if options.find_learning_rate else ""
    output = Path(options.output or config.output_dir or f"runs/{Path(options.config).stem}{suffix}")

    from detector.engine.distributed import join_processes
    from detector.engine.exit_note import exit_note
    from detector.engine.lock import RunLock
    from detector.engine.machine import raise_file_limit
    from detector.engine.run_folder import RunFolder

    raise_file_limit()
    with join_processes(config.training.process_timeout) as processes, ExitStack() as stack:
        with processes.together():
            folder = RunFolder(output)
            if processes.is_main:
                stack.enter_context(RunLock(output))
                folder.claim(config, options.resume != "never", options.resume_anyway)
                folder.write_environment()
            log_to_file(output / ("train.log" if processes.is_main else f"train-{processes.rank}.log"))
        note = stack.enter_context(exit_note(folder, processes.rank))
        if options.find_learning_rate:
            return _find_learning_rate(folder, config, options.overfit, processes)
        metrics = _train_in(folder, config, options, processes, note)
        if processes.is_main:
            print(_what_next(folder, config, metrics, command))
        return 0


def _train_in(
    folder: RunFolder, config: Config, options: argparse.Namespace, processes: Processes, note: ExitNote
) -> Metrics | None:
    finished = options.resume == "auto" and not options.resume_anyway and folder.final.exists()
    if processes.from_main(finished):
        _log.info("%s: already finished; nothing to do", folder.path)
        return None
    from detector.engine.origin import check_origin
    from detector.engine.quick_check import leak_sentence
    from detector.engine.resume import agreed_state, set_aside_later
    from detector.engine.summary import summarise

    state = agreed_state(folder, options.resume, processes)
    trainer = _trainer(folder, config, options.overfit, processes, fresh=state is None)
    note.trainer = trainer
    with processes.together():
        if state is not None:
            check_origin(state, trainer.config, trainer.origin, options.resume_anyway)
            trainer.restore(state)
            _log.info("going on after iteration %d", state.iteration)
            if processes.is_main:
                set_aside_later(folder.checkpoints, state.iteration)
                folder.final.unlink(missing_ok=True)  # until it is written again, the run is not finished
    for line in summarise(trainer):
        _log.info("%s", line)
    if processes.is_main and state is None:
        for line in trainer.task.look_at(trainer.train_set, trainer.config):
            _log.info("%s", line)
        if options.overfit is None and trainer.val_set is not None:
            leak = leak_sentence(trainer.train_set, trainer.val_set)
            if leak is not None:
                _log.warning("%s", leak)
    started = time.monotonic()
    metrics = trainer.train()
    _log.info("done after %.1f minutes", (time.monotonic() - started) / 60)
    return metrics


def _trainer(folder: RunFolder, config: Config, overfit: int | None, processes: Processes, fresh: bool) -> Trainer:
    from detector.data.build import training_order
    from detector.data.dataset import check_dataset
    from detector.engine.device import select_device
    from detector.engine.optim import with_iterations
    from detector.engine.task import task_of
    from detector.engine.trainer import Trainer

    with processes.together():
        train_set, val_set = _open(config, overfit, folder.index)
        check_dataset(train_set, images=0 if config.data.on_bad_sample == "skip" else 2)
        config = with_iterations(config, training_order(config, train_set).epoch_length)
        if processes.is_main:
            folder.write_config(config)
        device = select_device(config.device, processes.local_rank)
        model = task_of(config).build(config, train_set.annotations.class_names, fresh)
    return Trainer(config, model, train_set, val_set, folder, device, processes)


def _find_learning_rate(folder: RunFolder, config: Config, overfit: int | None, processes: Processes) -> int:
    from detector.engine.rate_test import find_learning_rate

    trainer = _trainer(folder, config, overfit, processes, fresh=True)
    found = find_learning_rate(trainer)
    if processes.is_main:
        print(
            f"{folder.path}/learning_rate.png   the loss at each rate\n"
            f"{folder.path}/learning_rate.jsonl\n"
            f"a good start: training.learning_rate={found:.2g}"
        )
    return 0


def _replay(path: Path) -> int:
    from detector.engine.device import select_device
    from detector.engine.divergence import replay

    print("\n".join(replay(path, select_device("auto"))))
    return 0


def _without_augmentation(config: Config, images: int) -> Config:
    if images < 1:
        raise UsageError("--overfit needs a number of images of at least 1")
    resize = config.data.resize.model_copy(update={"train_short_side": (config.data.resize.test_short_side,)})
    crop = config.data.crop.model_copy(update={"random": False})
    plain = {"resize": resize, "crop": crop, "horizontal_flip": 0.0, "augmentations": ()}
    data = config.data.model_copy(update=plain)
    return config.model_copy(update={"data": data})


def _open(config: Config, overfit: int | None, index: Path) -> tuple[DetectionDataset, DetectionDataset | None]:
    from detector.data.dataset import Subset
    from detector.engine.task import task_of

    task = task_of(config)
    if overfit is None:
        return task.open_for_training(config, index)
    spread = config.model.classifier is not None  # whose images may stand class by class
    chosen = Subset.with_objects(task.open_split(config, "train", None, index), overfit, spread)
    return chosen, chosen


def _what_next(folder: RunFolder, config: Config, metrics: Metrics | None, command: TrainingCommand) -> str:
    path = folder.path
    best = path / "model_best.safetensors"
    weights = best if best.exists() else folder.final
    lines = [f"The run is in {path}/:"]
    if metrics is not None or (folder.evaluation / "metrics.json").exists():
        lines += [
            f"  {folder.evaluation}/report.html   the last evaluation: how sure, why, which images",
            f"  {folder.evaluation}/metrics.json   all its metrics",
            f"  {folder.evaluation}/pictures/      what is there beside what was found",
        ]
    return "\n".join(
        [
            *lines,
            f"  {weights}   the weights, with configuration and class names",
            f"  {path}/curves.png   losses, learning rate and evaluations",
            f"  {folder.samples}/first_batch.jpg   what the network was shown",
            "Try next:",
            *command.next_steps(weights, config),
            f"  tensorboard --logdir {path}/tensorboard",
        ]
    )
