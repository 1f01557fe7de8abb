"""Evaluate a detector, or a file of detections."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli.entry import Parser, run
from detector.errors import UsageError, one_line

if TYPE_CHECKING:
    from detector.config.schema import Config

_log = logging.getLogger(__name__)

_DESCRIPTION = """\
Evaluate weights on a data set, or score a file of detections without a model.
Writes metrics.json and detections.json, and prints a table."""

_EXAMPLE = """\
examples:
  evaluate.py runs/quickstart/model_best.safetensors
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
    parser.add_argument("--split", choices=("train", "val"), default="val", help="data.train or data.val (val)")
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
    return parser.parse_intermixed_args(argv)


def _evaluate(argv: Sequence[str]) -> int:
    options = _parse(argv)
    files = (options.ground_truth, options.detections)
    if any(files) and not all(files):
        raise UsageError("--ground-truth and --detections belong together")
    if bool(options.weights) == any(files):
        raise UsageError("give either WEIGHTS, or --ground-truth and --detections")
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
    if options.output:
        scores = write_evaluation(truth, found, config, Path(options.output), options.verify)
    else:
        scores = score_and_explain(truth, found, config, options.verify)
    print(format_metrics(scores))
    return 0


def _evaluate_weights(options: argparse.Namespace) -> int:
    from detector.data.build import open_split
    from detector.engine.device import select_device
    from detector.engine.distributed import join_processes
    from detector.engine.evaluation import evaluate_model
    from detector.engine.setup import model_of
    from detector.evaluation.score import format_metrics
    from detector.weights.load import read_weights

    weights = read_weights(options.weights)
    config = _config(weights.info.config if weights.info else None, options)
    with join_processes(config.training.process_timeout) as processes:
        with processes.together():
            device = select_device(config.device, processes.local_rank)
            loaded = model_of(weights, config)
            dataset = open_split(loaded.config, options.split, loaded.info.class_names)
        if loaded.info.run:
            _log.info("weights of iteration %d of %s", loaded.info.iteration, one_line(loaded.info.run))
        output = Path(options.output) if options.output else Path(options.weights).parent / "evaluation"
        model = loaded.model.to(device)
        metrics = evaluate_model(model, dataset, loaded.config, device, processes, output, verify=options.verify)
        if processes.is_main and metrics is not None:
            print(format_metrics(metrics))
            _log.info("written: %s", output)
    return 0


def _config(own: str | None, options: argparse.Namespace) -> Config:
    """The settings in the weights, with all but the model's from --config, with overrides on top."""
    from detector.config.load import load_config, parse_config

    if own is None and not options.config:
        raise UsageError(f"{options.weights}: is of another toolkit and holds no settings; give --config")
    config = load_config(options.config, options.overrides) if options.config else None
    if own is not None:
        saved = parse_config(own, f"{options.weights}: its configuration", options.overrides)
        config = config.model_copy(update={"model": saved.model}) if config else saved
    assert config is not None
    if options.metric:
        metrics = tuple(dict.fromkeys(options.metric))
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"metrics": metrics})})
    return config
