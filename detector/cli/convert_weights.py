"""Carry weights from one toolkit to another, with proof."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.cli.entry import Parser, run
from detector.durable import replace_file
from detector.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detector.config.schema import Config
    from detector.engine.classification.setup import LoadedClassifier
    from detector.engine.setup import LoadedModel
    from detector.weights.load import Weights
    from detector.weights.report import LoadReport

_DESCRIPTION = """\
Convert weights between this toolkit, detectron2 and torchvision (a detector's ResNet alone, a classifier whole);
mmdetection's and caffe's are read.
The layout of IN is recognised by its contents. OUT.certificate.json says how far the networks before and after
differ, stage by stage, on a fixed image."""

_EXAMPLE = """\
examples:
  convert_weights.py model_final_xyz.pkl r101_c4.safetensors --to detector
  convert_weights.py runs/mine/model_best.safetensors mine.pkl --to detectron2
  convert_weights.py R-101.pkl resnet101_caffe.pth --to torchvision"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(_convert, argv)


def _convert(argv: Sequence[str]) -> int:
    parser = Parser("convert_weights", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("source", metavar="IN", help="weights of any known layout")
    parser.add_argument("target", metavar="OUT", help=".safetensors; also .pkl or .pth for detectron2 and torchvision")
    parser.add_argument("--to", choices=("detector", "detectron2", "torchvision"), required=True)
    parser.add_argument("--config", metavar="CONFIG", help="settings that IN does not hold (anchors, class names)")
    options = parser.parse_args(argv)
    source, target = Path(options.source), Path(options.target)
    suffixes = (".safetensors",) if options.to == "detector" else (".pkl", ".pth", ".safetensors")
    if target.suffix not in suffixes:
        raise UsageError(f"{target}: must end in {' or '.join(suffixes)}")
    if target.exists():
        raise UsageError(f"{target}: is there already; choose another name")

    from detector.config.load import load_config
    from detector.weights.layouts import OWN_CLASSIFIER
    from detector.weights.load import read_weights

    config = load_config(options.config) if options.config else None
    weights = read_weights(source)
    convert = _convert_classifier if weights.layout is OWN_CLASSIFIER else _convert_detector
    certificate = convert(weights, config, target, options.to)
    path = target.with_name(target.name + ".certificate.json")
    replace_file(path, json.dumps(certificate, indent=1))
    for stage, facts in certificate["stages"].items():
        print(f"{stage:<14} largest difference {facts['largest_difference']} (values to {facts['largest_value']:.4g})")
    equal, compared = certificate["tensors"]["bit_equal"], certificate["tensors"]["compared"]
    print(f"{equal} of {compared} tensors bit-equal; written: {target} and {path}")
    return 0


def _convert_detector(weights: Weights, config: Config | None, target: Path, to: str) -> dict[str, Any]:
    """Writes a detector, or a ResNet alone; gives the certificate."""
    from detector.engine.setup import load_for_conversion
    from detector.weights.export import target_layout, write_foreign
    from detector.weights.own_file import save_weights

    loaded, whole = load_for_conversion(weights, config)
    if to == "detector" and not whole:
        raise WeightsError(
            f"{weights.source}: holds a ResNet alone, and a detector's file needs the RPN and the class layers, too; "
            "to train from it, set model.weights to it"
        )
    if to == "detector":
        save_weights(target, loaded.model.state_dict(), loaded.info)
    else:
        filled = {key: value for key, value in loaded.model.state_dict().items() if key in loaded.report.matched}
        write_foreign(target, filled, target_layout(to, whole), loaded.config.model)
    return _certify_detector(loaded, target, to)


def _convert_classifier(weights: Weights, config: Config | None, target: Path, to: str) -> dict[str, Any]:
    """Writes a classifier for torchvision; gives the certificate."""
    from detector.engine.classification.setup import classifier_of
    from detector.weights.classifier import torchvision_layout
    from detector.weights.export import write_foreign
    from detector.weights.layouts import detector_key

    if to != "torchvision":
        raise WeightsError(f"{weights.source}: holds a classifier, which is converted with --to torchvision alone")
    loaded = classifier_of(weights, config)
    layout = torchvision_layout(weights.source, loaded.config.model)
    tensors = {detector_key(key): value for key, value in loaded.model.state_dict().items()}
    write_foreign(target, tensors, layout, loaded.config.model)
    return _certify_classifier(loaded, target)


def _certify_detector(loaded: LoadedModel, target: Path, to: str) -> dict[str, Any]:
    """Reads the written file back into a new network and compares."""
    from detector.engine.certificate import stage_outputs
    from detector.models.build import build_model
    from detector.weights.load import fill, read_weights

    config = loaded.config
    after = build_model(config.model, len(loaded.info.class_names), config.evaluation)
    # What a ResNet's layout has no place for must not differ by chance.
    resnet = ("backbone.", "roi_head.conv5_x.")
    before = loaded.model.state_dict()
    after.load_state_dict({key: value for key, value in before.items() if not key.startswith(resnet)}, strict=False)
    report = fill(after, config.model, read_weights(target))
    outputs = stage_outputs(loaded.model, config), stage_outputs(after, config)
    return _certificate(loaded, after, report, to, outputs)


def _certify_classifier(loaded: LoadedClassifier, target: Path) -> dict[str, Any]:
    """Reads the written file back into a new network and compares."""
    from detector.engine.certificate import class_outputs
    from detector.models.classifier import build_classifier
    from detector.weights.classifier import read_for_classifier
    from detector.weights.load import fill

    config = loaded.config
    after = build_classifier(config.model, len(loaded.info.class_names))
    report = fill(after, config.model, read_for_classifier(target, config.model))
    outputs = class_outputs(loaded.model, config), class_outputs(after, config)
    return _certificate(loaded, after, report, "torchvision", outputs)


def _certificate(
    loaded: LoadedModel | LoadedClassifier,
    after: nn.Module,
    report: LoadReport,
    to: str,
    outputs: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> dict[str, Any]:
    """What the file with the proof says.

    Args:
        loaded: the network before.
        after: the same out of the written file.
        report: of reading that file.
        to: what it was written for.
        outputs: of both networks, stage by stage.
    """
    import torch

    from detector.engine.certificate import compare

    before, again = loaded.model.state_dict(), after.state_dict()
    equal = sum(torch.equal(before[key], again[key]) for key in report.matched)
    return {
        "in": loaded.report.source,
        "in_layout": loaded.report.layout,
        "out": report.source,
        "out_layout": report.layout,
        "to": to,
        "model": loaded.config.model.model_dump(mode="json"),
        "in_missing": list(loaded.report.missing),
        "in_unexpected": list(loaded.report.unexpected),
        "tensors": {"compared": len(report.matched), "bit_equal": equal},
        "stages": compare(*outputs),
    }
