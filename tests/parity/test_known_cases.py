"""Numbers published by other projects: every case there is, by its kind; a case of an unknown kind fails."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.cli.evaluate import main
from detector.data.coco import read_coco_annotations
from detector.evaluation.error_kinds import find_error_kinds
from detector.evaluation.matching import COCO_RULES, Rules, match_all, pair_iou
from detector.evaluation.operating_points import best_common_point, score_curves
from detector.evaluation.precision import Curves, accumulate
from detector.evaluation.results_file import read_results
from detector.evaluation.score import score
from detector.evaluation.voc import VocCurve, VocMatches, voc_curve
from detector.structures import Annotations, DetectionTable
from tests.evaluation_sets import Guess, Thing, chosen, found_of, truth_of

_FOLDER = Path(os.environ.get("DETECTOR_SHARED", "nowhere")) / "evaluation" / "known_cases"
_CASES = sorted(path.parent for path in _FOLDER.glob("*/case.json"))
_ALL = _CASES or [pytest.param(None, marks=pytest.mark.skip(reason="DETECTOR_SHARED is not set"))]
_PARAMETERS = {"min_score", "use_cats", "max_dets", "iou_thresholds", "area_ranges"}
_TIDE_KINDS = {
    "Cls": "class", "Loc": "location", "Both": "both", "Dupe": "duplicate", "Bkg": "background", "Miss": "missed",
}  # fmt: skip


def _named(path: object) -> str | None:
    return path.name if isinstance(path, Path) else None


@pytest.mark.parametrize("folder", _ALL, ids=_named)
def test_every_published_number_holds(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    computed = _RUNNERS[case["kind"]](folder, case)
    # Upstream states no number for some, only equality with pycocotools.
    expected = case["expected"] or case["pycocotools_2_0_11"]["numbers"]
    assert expected
    for name, value in expected.items():
        assert computed(name) == pytest.approx(value, rel=0, abs=case["tolerance"]), name


@pytest.mark.parametrize(
    "folder", [case for case in _CASES if case.name.startswith("coco")] or _ALL, ids=_named
)  # fmt: skip
def test_the_arrays_of_the_engine_are_those_of_pycocotools(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    stored = case["pycocotools_2_0_11"]
    curves, _ = _coco_curves(folder, case)
    digests = [hashlib.sha256(array.astype("<f8").tobytes()).hexdigest() for array in (curves.precision, curves.recall)]
    assert list(curves.precision.shape) == stored["precision_shape"]
    # Where pycocotools itself is wrong, the case says so in a note; equality would then be the fault.
    equal = digests == [stored["precision_sha256"], stored["recall_sha256"]]
    assert equal is ("note" not in stored)


@pytest.mark.skipif(not _CASES, reason="DETECTOR_SHARED is not set")
def test_no_case_is_left_out() -> None:
    assert len(_CASES) >= 33
    assert sorted(path for path in _FOLDER.iterdir() if path.is_dir()) == _CASES
    assert {json.loads((case / "case.json").read_text())["kind"] for case in _CASES} <= set(_RUNNERS)


@pytest.mark.parametrize(
    ("name", "metric"), [("coco_official_fakebbox100", "coco"), ("voc_padilla_test_case_1", "voc07")]
)
def test_the_command_gives_the_same_numbers(shared: Path, tmp_path: Path, name: str, metric: str) -> None:
    folder = shared / "evaluation" / "known_cases" / name
    files = ["--ground-truth", str(folder / "gt.json"), "--detections", str(folder / "dt.json")]
    assert main([*files, "--metric", metric, "--output", str(tmp_path)]) == 0
    truth, found = _read(folder, {})
    assert json.loads((tmp_path / "metrics.json").read_text()) == score(truth, found, [metric])


def _read(folder: Path, case: dict[str, Any]) -> tuple[Annotations, DetectionTable]:
    truth = read_coco_annotations(folder / "gt.json")
    found = read_results(folder / "dt.json", truth)
    return truth, chosen(found, found.scores >= (case.get("params") or {}).get("min_score", -np.inf))


# COCO

Numbers = Callable[[str], Any]


def _coco(folder: Path, case: dict[str, Any]) -> Numbers:
    curves, rules = _coco_curves(folder, case)
    truth, found = _read(folder, case)
    metrics = score(truth, found, ["coco"], verify=True)
    ranges = _areas(case)

    def number(name: str) -> Any:
        quantity, _, class_name = name.partition("/")
        if name == "iou":
            return pair_iou(found.boxes_xywh[:1], truth.boxes_xywh[:1], np.zeros(1, dtype=bool))[0]
        if class_name:
            return _or_minus_1(metrics["per_class"][class_name][quantity])
        value = _coco_number(curves, rules, list(ranges), name)
        if not case.get("params") and name in metrics["coco"]:
            assert value == _or_minus_1(metrics["coco"][name]), name
        return value

    return number


def _coco_curves(folder: Path, case: dict[str, Any]) -> tuple[Curves, Rules]:
    parameters = case.get("params") or {}
    assert set(parameters) <= _PARAMETERS
    truth, found = _read(folder, case)
    if not parameters.get("use_cats", True):
        truth, found = _without_classes(truth, found)
    rules = Rules(
        np.array(parameters.get("iou_thresholds", COCO_RULES.iou_thresholds)),
        np.array(list(_areas(case).values()), dtype=np.float64),
        tuple(parameters.get("max_dets", COCO_RULES.max_detections)),
    )
    return accumulate(truth, match_all(truth, found, rules), rules), rules


def _areas(case: dict[str, Any]) -> dict[str, list[float]]:
    usual = dict(zip(("all", "small", "medium", "large"), COCO_RULES.areas.tolist(), strict=True))
    own = (case.get("params") or {}).get("area_ranges")
    return usual if own is None else {"all": usual["all"], **own}


def _without_classes(truth: Annotations, found: DetectionTable) -> tuple[Annotations, DetectionTable]:
    """All of one class; objects and detections of an image stand in the order of their old classes."""
    order = np.lexsort((truth.labels, truth.image_index()))
    arrays = {name: getattr(truth, name)[order] for name in ("boxes_xywh", "areas", "crowd", "difficult")}
    blind = replace(truth, class_names=("any",), category_ids=(0,), labels=np.zeros_like(truth.labels), **arrays)
    table = chosen(found, np.argsort(found.labels, kind="stable"))
    return blind, replace(table, labels=np.zeros_like(table.labels))


def _coco_number(curves: Curves, rules: Rules, ranges: list[str], name: str) -> float:
    """AP, AP50, APs, AP_small, AR_small, AR100.. of curves by any rules; -1 where no object defines it."""
    kind, rest = name[:2], name[2:].lstrip("_@")
    thresholds, area, limit = slice(None), 0, -1
    values = curves.precision if kind == "AP" else curves.recall
    named = {label[0]: label for label in ranges} | {label: label for label in ranges}
    if kind == "AP" and rest.isdigit():
        thresholds = np.isclose(rules.iou_thresholds, int(rest) / 100)
        assert thresholds.any()
    elif rest.isdigit():
        limit = rules.max_detections.index(int(rest))
    elif rest:
        area = ranges.index(named[rest])
    picked = values[thresholds][..., area, limit]
    defined = picked[picked > -1]
    return float(defined.mean()) if len(defined) else -1.0


def _or_minus_1(value: float | None) -> float:
    return -1.0 if value is None else value


# VOC


def _voc(folder: Path, case: dict[str, Any]) -> Numbers:
    assert not case.get("params")
    truth, found = _read(folder, case)
    metrics = score(truth, found, ["voc07", "voc"])

    def number(name: str) -> Any:
        quantity, _, rest = name.partition("@")
        iou, _, class_name = rest.partition("/")
        if not class_name:
            assert iou == "0.5"
            return metrics[{"mAP11": "voc07", "mAParea": "voc"}[quantity]]["mAP50"]
        label = truth.class_names.index(class_name)
        value = _voc_number(truth, found, label, float(iou), quantity)
        if iou == "0.5" and quantity in ("AP11", "AParea"):
            assert value == metrics["per_class"][class_name][f"{'voc07' if quantity == 'AP11' else 'voc'}_AP50"]
        return value

    return number


def _voc_number(truth: Annotations, found: DetectionTable, label: int, iou: float, quantity: str) -> Any:
    curve = voc_curve(truth, found, label, iou)
    if quantity == "tp":
        return np.diff(curve.precision * np.arange(1, len(curve.precision) + 1), prepend=0)
    if quantity == "score":
        return _scores_that_count(truth, found, label, iou)
    computed = {"AP11": curve.ap_11_point, "AParea": curve.ap_area}
    return (
        computed[quantity]()
        if quantity in computed
        else {"precision": curve.precision, "recall": curve.recall}[quantity]
    )


def _scores_that_count(truth: Annotations, found: DetectionTable, label: int, iou: float) -> list[float]:
    """The score of each point of a curve: where a lower threshold on scores makes the curve longer."""
    scores: list[float] = []
    for level in np.unique(found.scores)[::-1]:
        points = len(VocMatches(truth, chosen(found, found.scores >= level)).curve(label, iou).precision)
        scores += [float(level)] * (points - len(scores))
    return scores


def _voc_curve(folder: Path, case: dict[str, Any]) -> Numbers:
    curve = VocCurve(np.array(case["data"]["precision"]), np.array(case["data"]["recall"]), positives=20)
    return lambda name: {"AP11": curve.ap_11_point, "AParea": curve.ap_area}[name]()


def _voc_pr(folder: Path, case: dict[str, Any]) -> Numbers:
    """The labels as detections: a true one lies on an object of its own."""
    data = case["data"]
    box = (0.0, 0.0, 10.0, 10.0)
    truth = truth_of(*(Thing(0, box, image) for image in range(data["num_gt"])), images=data["num_gt"])
    away = (50.0, 0.0, 10.0, 10.0)
    pairs = enumerate(zip(data["labels"], data["scores"], strict=True))
    guesses = [Guess(0, box if true else away, value, image) for image, (true, value) in pairs]
    curve = voc_curve(truth, found_of(*guesses), 0)
    return lambda name: {"precision": curve.precision, "recall": curve.recall}[name]


# Error kinds and operating points


def _tide(folder: Path, case: dict[str, Any]) -> Numbers:
    assert case["params"] == {"pos_thr": 0.5, "bg_thr": 0.1}
    truth, found = _read(folder, case)
    kinds = find_error_kinds(truth, found, match_all(truth, found))
    return lambda name: kinds.counts[_TIDE_KINDS[name]]


def _operating_point(folder: Path, case: dict[str, Any]) -> Numbers:
    assert not case.get("params")
    truth, found = _read(folder, case)
    point = best_common_point(score_curves(truth, match_all(truth, found)))
    assert point is not None
    return lambda name: {"macro_precision": point.precision, "macro_recall": point.recall}[name]


_RUNNERS: dict[str, Callable[[Path, dict[str, Any]], Numbers]] = {
    "coco_bbox": _coco,
    "coco_bbox_relational": _coco,
    "coco_bbox_per_class": _coco,
    "voc": _voc,
    "voc_curve": _voc_curve,
    "voc_pr": _voc_pr,
    "tide": _tide,
    "operating_point": _operating_point,
}
