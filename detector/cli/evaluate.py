"""Evaluate a detector, or a file of detections."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import UsageError

if TYPE_CHECKING:
    from detector.config.schema import Config, EvaluationConfig
    from detector.structures import Annotations

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Evaluate a detector or a classifier on a data set, or score a file of detections without a model.
Writes metrics.json, detections.json (of a classifier predictions.json) and report.html, a page that says why; prints a
table."""

_EXAMPLE = """\
examples:
  evaluate.py runs/quickstart/model_best.safetensors
  evaluate.py runs/mine/model_best.safetensors --store-thresholds f1
  evaluate.py runs/mine/model_best.safetensors --split train evaluation.metrics='[coco, voc07]'
  evaluate.py --ground-truth instances_val2017.json --detections detections.json --metric coco"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_evaluate, argv)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("evaluate", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="such as runs/NAME/model_best.safetensors")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="settings, such as evaluation.proposals=300")
    parser.add_argument("--config", metavar="CONFIG", help="take data and evaluation from here, not from the weights")
    parser.add_argument("--split", choices=("train", "val"), help="data.train or data.val (val)")
    parser.add_argument("--output", metavar="DIR", help="default: evaluation/ beside the weights")
    parser.add_argument("--ground-truth", metavar="JSON", help="COCO annotations to score --detections against")
    parser.add_argument("--detections", metavar="JSON", help="COCO results")
    parser.add_argument(
        "--metric", choices=("coco", "voc07", "voc"), action="append",
        help="may be repeated; voc07 is the 11-point AP, voc the area under the curve",
    )  # fmt: skip
    parser.add_argument(
        "--verify", action="store_true", help="compute COCO's metrics by pycocotools, too, and fail if a bit differs"
    )
    parser.add_argument(
        "--store-thresholds", metavar="f1|PRECISION", type=_goal,
        help="choose a score for each class (best F1, or the lowest of a wanted precision) and store them in "
        "WEIGHTS; visualize.py and Detector.predict then use them",
    )  # fmt: skip
    return parser.parse_intermixed_args(argv)


def _goal(text: str) -> str:
    try:
        if text == "f1" or 0 < float(text) <= 1:
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be f1 or a precision in 0..1, got {text!a}")


def _evaluate(argv: Sequence[str]) -> int:
    options = _parse(argv)
    files = (options.ground_truth, options.detections)
    if any(files) and not all(files):
        raise UsageError("--ground-truth and --detections belong together")
    if bool(options.weights) == any(files):
        raise UsageError("give either WEIGHTS, or --ground-truth and --detections")
    if options.store_thresholds and all(files):
        raise UsageError("--store-thresholds needs WEIGHTS to store them in")
    if all(files) and (options.config or options.split):
        raise UsageError(
            "--config and --split belong to WEIGHTS; --ground-truth and --detections say all by themselves"
        )
    return _score_files(options) if all(files) else _evaluate_weights(options)


def _score_files(options: argparse.Namespace) -> int:
    from detector.config.schema import EvaluationConfig
    from detector.data.coco import read_coco_annotations
    from detector.engine.evaluation import score_and_explain, write_evaluation
    from detector.evaluation.results_file import read_results
    from detector.evaluation.score import format_metrics

    truth = read_coco_annotations(options.ground_truth)
    found = read_results(options.detections, truth)
    config = EvaluationConfig(metrics=tuple(dict.fromkeys(options.metric or ["coco"])))
    _check_verify(options, config)
    if options.output:
        from detector.engine.reporting import write_report_of_files

        output = Path(options.output)
        scores, warnings = write_evaluation(truth, found, config, output, options.verify)
        provenance = {"Ground truth": options.ground_truth, "Detections": options.detections}
        write_report_of_files(output, truth, found, scores, warnings, provenance)
        _log.info("written: %s/report.html", output)
    else:
        scores, _ = score_and_explain(truth, found, config, options.verify)
    print(format_metrics(scores))
    return 0


def _evaluate_weights(options: argparse.Namespace) -> int:
    from detector.engine.device import select_device
    from detector.engine.distributed import join_processes
    from detector.engine.evaluation import Asked
    from detector.engine.task import task_of
    from detector.weights.load import read_weights

    weights, split = read_weights(options.weights), options.split or "val"
    if options.store_thresholds and weights.info is None:
        raise UsageError(
            f"{options.weights}: is of another toolkit, so --store-thresholds has no place in it; "
            "convert it first (convert_weights.py --to detector)"
        )
    config = _config(weights.info.config if weights.info else None, options)
    task = task_of(config)
    _check_verify(options, config.evaluation)
    if config.model.classifier and (options.store_thresholds or options.metric or options.verify):
        raise UsageError(
            f"{options.weights}: holds a classifier; --metric, --verify and --store-thresholds are for detectors"
        )
    with join_processes(config.training.process_timeout) as processes:
        with processes.together():
            device = select_device(config.device, processes.local_rank)
            loaded = task.load(weights, config)
            run = Path(options.weights).parent
            index = run / "index" if (run / "config.yaml").exists() else None  # not beside a file that lies anywhere
            dataset = task.open_split(loaded.config, split, loaded.info.class_names, index)
        info = loaded.info
        provenance = {
            "Weights": str(options.weights),
            "Run": f"{info.run or 'unknown'}, iteration {info.iteration}",
            "Training set": f"fingerprint {info.fingerprint or 'unknown'}",
            "Evaluated on": f"data.{split}, fingerprint {dataset.annotations.fingerprint()}",
        }
        output = Path(options.output) if options.output else Path(options.weights).parent / "evaluation"
        asked = Asked(options.verify, stages=True, provenance=provenance)
        metrics = task.evaluate(loaded.model.to(device), dataset, loaded.config, device, processes, output, asked)
        if processes.is_main and metrics is not None:
            print(task.format_metrics(metrics))
            _log.info("written: %s/report.html", output)
            if options.store_thresholds:
                _store_thresholds(options, dataset.annotations, output)
    return 0


def _for_model(config: Config, saved: Config) -> Config:
    """Another configuration for a trained network, which knows how its classes were made of a data set's."""
    data = config.data if config.data.classes else config.data.model_copy(update={"classes": saved.data.classes})
    if saved.model.classifier is not None:  # squares of the size that it knows
        data = data.model_copy(update={"resize": saved.data.resize, "crop": saved.data.crop})
    return config.model_copy(update={"model": saved.model, "data": data})


def _with_own_holdout(config: Config, trained: Config) -> Config:
    """The settings with those that tell which images were held out: it may not be scored on what it was trained on.

    Args:
        config: to evaluate with.
        trained: with which it was trained.
    """
    if config.data.val or config.data.train != trained.data.train:
        return config
    every = config.training.model_copy(update={"evaluate_every": trained.training.evaluate_every})
    data = config.data.model_copy(update={"holdout": trained.data.holdout})
    own = config.model_copy(update={"seed": trained.seed, "training": every, "data": data})
    if own != config:
        _log.warning("seed, data.holdout and training.evaluate_every are those of the training: they chose its images")
    return own


def _check_verify(options: argparse.Namespace, config: EvaluationConfig) -> None:
    if options.verify and "coco" not in config.metrics:
        raise UsageError("--verify compares two engines for COCO's metrics; add --metric coco")


def _store_thresholds(options: argparse.Namespace, truth: Annotations, output: Path) -> None:
    """Puts a threshold for each class into the weights file."""
    from dataclasses import replace

    from detector.evaluation.operating_points import choose_thresholds
    from detector.evaluation.results_file import read_results
    from detector.weights.load import read_weights
    from detector.weights.own_file import save_weights

    weights = read_weights(options.weights)
    assert weights.info is not None
    wanted = None if options.store_thresholds == "f1" else float(options.store_thresholds)
    points = choose_thresholds(truth, read_results(output / "detections.json", truth), wanted)
    info = replace(weights.info, class_thresholds=tuple(point.score for point in points))
    save_weights(Path(options.weights), weights.tensors, info)
    print(f"\nthresholds stored in {options.weights}:")
    for name, point in zip(truth.class_names, points, strict=True):
        precision = "-" if point.precision is None else f"{100 * point.precision:.1f}"
        print(f"  {name}: score {point.score:.3f}, precision {precision}, recall {100 * point.recall:.1f}")


def _config(own: str | None, options: argparse.Namespace) -> Config:
    """The settings in the weights, with all but the model's from --config, with overrides on top."""
    from detector.config.load import load_config, parse_config

    if own is None and not options.config:
        raise UsageError(f"{options.weights}: is of another toolkit and holds no settings; give --config")
    config = load_config(options.config, options.overrides) if options.config else None
    if own is not None:
        saved = parse_config(own, f"{options.weights}: its configuration", options.overrides)
        config = _for_model(config, saved) if config else saved
        if saved.model.classifier is not None:
            config = _with_own_holdout(config, parse_config(own, f"{options.weights}: its configuration"))
    assert config is not None
    if options.metric:
        metrics = tuple(dict.fromkeys(options.metric))
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"metrics": metrics})})
    return config
