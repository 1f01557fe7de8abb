"""Scores published by other projects, through the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from detector.cli.evaluate import main
from detector.data.coco import read_coco_annotations
from detector.evaluation.results_file import read_results
from detector.evaluation.voc import voc_curve

_CASES = Path(os.environ.get("DETECTOR_SHARED", "")) / "evaluation" / "known_cases"
_KINDS = ("coco_bbox", "coco_bbox_relational", "coco_bbox_per_class", "voc")


def _cases() -> list[Any]:
    """The cases of the asked kinds that need no other parameters than the defaults."""
    if "DETECTOR_SHARED" not in os.environ or not _CASES.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason="DETECTOR_SHARED is not set"))]
    found = []
    for path in sorted(_CASES.glob("*/case.json")):
        case = json.loads(path.read_text())
        if case["kind"] in _KINDS and not case.get("params"):
            found.append(pytest.param(path.parent, id=path.parent.name))
    return found


@pytest.mark.parametrize("folder", _cases())
def test_published_scores_hold(folder: Path, tmp_path: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    metrics = _score(folder, tmp_path, ("coco",) if case["kind"].startswith("coco") else ("voc07", "voc"))
    # Upstream states no numbers for these, only equality with pycocotools.
    relational = case["kind"] == "coco_bbox_relational"
    expected = case["pycocotools_2_0_11"]["numbers"] if relational else case["expected"]
    for name, value in expected.items():
        found = _number(metrics, name)
        if found is not _NOT_REPORTED:
            assert found == pytest.approx(value, abs=case["tolerance"]), name


@pytest.mark.parametrize("folder", [case for case in _cases() if "voc" in str(case.id)] or _cases())
def test_published_curves_hold(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    truth = read_coco_annotations(folder / "gt.json")
    found = read_results(folder / "dt.json", truth)
    for name, value in case["expected"].items():
        quantity, _, rest = name.partition("@")
        iou, _, class_name = rest.partition("/")
        if quantity not in ("AP11", "AParea", "precision", "recall"):
            continue
        label = truth.class_names.index(class_name)
        curve = voc_curve(truth, found, label, float(iou))
        computed = {"AP11": curve.ap_11_point, "AParea": curve.ap_area}
        number = computed[quantity]() if quantity in computed else getattr(curve, quantity)
        assert number == pytest.approx(value, abs=case["tolerance"]), name


_NOT_REPORTED = object()


def _number(metrics: dict[str, Any], name: str) -> Any:
    """A number by the name it has in the cases; -1 stands there for undefined."""
    quantity, _, class_name = name.partition("/")
    if quantity in metrics.get("coco", {}) and not class_name:
        value = metrics["coco"][quantity]
    elif quantity == "AP" and class_name:
        value = metrics["per_class"][class_name]["AP"]
    elif quantity in ("AP11@0.5", "AParea@0.5") and class_name:
        value = metrics["per_class"][class_name]["voc07_AP50" if quantity == "AP11@0.5" else "voc_AP50"]
    elif quantity in ("mAP11@0.5", "mAParea@0.5"):
        value = metrics["voc07" if quantity == "mAP11@0.5" else "voc"]["mAP50"]
    else:
        return _NOT_REPORTED
    return -1 if value is None else value


def _score(folder: Path, output: Path, metrics: tuple[str, ...]) -> dict[str, Any]:
    arguments = ["--ground-truth", str(folder / "gt.json"), "--detections", str(folder / "dt.json")]
    for metric in metrics:
        arguments += ["--metric", metric]
    assert main([*arguments, "--output", str(output)]) == 0
    return json.loads((output / "metrics.json").read_text())  # type: ignore[no-any-return]
