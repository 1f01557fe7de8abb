"""Laws of the evaluation on random sets: the engine is pycocotools' to the last bit, and what follows from matches."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector.data.coco import read_coco_annotations
from detector.evaluation import matching
from detector.evaluation.analysis import analyse
from detector.evaluation.coco import coco_curves, summarise
from detector.evaluation.confusion import calibration, confuse, slices
from detector.evaluation.error_kinds import IGNORED, KINDS, RIGHT, find_error_kinds
from detector.evaluation.intervals import draw_images, interval, mean_over_classes, resampled_ap
from detector.evaluation.matching import COCO_RULES, Rules, image_ranks, match_all
from detector.evaluation.operating_points import score_curves
from detector.evaluation.precision import Curves, accumulate
from detector.evaluation.suspicions import suspicions
from detector.evaluation.voc import VocMatches
from detector.structures import Annotations, DetectionTable
from tests.evaluation_sets import chosen, drawn_set, fair_set, official_curves, random_set, random_sets

FEW, MANY = 150, 1000
TIGHT = 1e-12
ALL_SIZES = COCO_RULES.areas[:1]
OTHER_RULES = {
    "one threshold, one detection": Rules(np.array([0.5]), ALL_SIZES, (1,)),
    "300 detections": Rules(COCO_RULES.iou_thresholds, COCO_RULES.areas, (1, 10, 300)),
    "100 detections alone": Rules(COCO_RULES.iou_thresholds, COCO_RULES.areas, (100,)),
    "thresholds from low to perfect": Rules(np.array([0.05, 0.2, 0.5, 1.0]), ALL_SIZES, (2, 5)),
    "a threshold of nothing": Rules(np.array([0.0, 0.5]), COCO_RULES.areas, (1, 100)),
    "sizes of one's own": Rules(np.array([0.3, 0.75]), np.array([[50.0, 1000.0], [0.0, 400.0]]), (3, 100)),
}


@pytest.fixture(scope="session")
def count(full: bool) -> int:
    """How many random sets each law is tried on."""
    return MANY if full else FEW


def curves_of(truth: Annotations, found: DetectionTable, rules: Rules = COCO_RULES) -> Curves:
    return accumulate(truth, match_all(truth, found, rules), rules)


def bits(curves: Curves) -> tuple[object, ...]:
    return curves.precision.shape, curves.precision.tobytes(), curves.recall.shape, curves.recall.tobytes()


def ap50_of(curves: Curves) -> float | None:
    return summarise(curves)["AP50"]


# COCO


def test_the_engine_equals_pycocotools_to_the_last_bit(count: int) -> None:
    for seed, truth, found in random_sets(count):
        assert bits(curves_of(truth, found)) == bits(official_curves(truth, found)), seed


@pytest.mark.parametrize("name", OTHER_RULES)
def test_it_does_so_by_other_rules(count: int, name: str) -> None:
    rules = OTHER_RULES[name]
    for seed, truth, found in random_sets(count // 3):
        assert bits(curves_of(truth, found, rules)) == bits(official_curves(truth, found, rules)), seed


def test_the_backend_of_pycocotools_is_pycocotools(count: int) -> None:
    for seed, truth, found in random_sets(count // 3):
        assert bits(coco_curves(truth, found, "pycocotools")) == bits(official_curves(truth, found)), seed


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_engine_equals_pycocotools_on_photographs(shared: Path, split: str) -> None:
    truth = read_coco_annotations(shared / f"data/coco_by/annotations/instances_{split}2017.json")
    found = _jittered(truth, seed=0)
    assert bits(curves_of(truth, found)) == bits(official_curves(truth, found))


def _jittered(truth: Annotations, seed: int) -> DetectionTable:
    """Every object three times, each time a little off, sometimes of another class; scores with one digit."""
    random = np.random.default_rng(seed)
    rows = np.repeat(np.arange(len(truth.labels)), 3)
    boxes = truth.boxes_xywh[rows] + random.normal(0, 0.1, (len(rows), 4)) * np.tile(truth.boxes_xywh[rows, 2:], 2)
    boxes[:, 2:] = np.abs(boxes[:, 2:])
    other = random.random(len(rows)) < 0.2
    labels = np.where(other, random.permutation(truth.labels[rows]), truth.labels[rows])
    return DetectionTable(truth.image_index()[rows], labels, boxes, np.round(random.random(len(rows)), 1))


def test_blocks_bound_memory_and_not_results(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, truth, found in random_sets(count):
        whole = bits(curves_of(truth, found))
        with monkeypatch.context() as patch:
            patch.setattr(matching, "_BLOCK", 1)
            assert bits(curves_of(truth, found)) == whole, seed


def test_the_order_of_images_in_a_file_does_not_count(count: int) -> None:
    for seed, truth, found in random_sets(count):
        order = np.random.default_rng(seed).permutation(len(truth.image_ids))
        turned, table = drawn_set(truth, found, order.tolist())
        turned = replace(turned, image_ids=tuple(truth.image_ids[image] for image in order))
        assert bits(curves_of(turned, table)) == bits(curves_of(truth, found)), seed


def test_the_order_of_detections_does_not_count_where_no_scores_are_equal(count: int) -> None:
    for seed, truth, found in random_sets(count):
        random = np.random.default_rng(seed)
        ranked = replace(found, scores=random.permutation(len(found)).astype(np.float64))
        shuffled = chosen(ranked, random.permutation(len(ranked)))
        assert bits(curves_of(truth, shuffled)) == bits(curves_of(truth, ranked)), seed


def test_an_object_is_taken_once_unless_it_is_a_crowd(count: int) -> None:
    for seed, truth, found in random_sets(count):
        taken = match_all(truth, found).truth
        for threshold, area in np.ndindex(taken.shape[1:]):
            rows = taken[:, threshold, area]
            times = np.bincount(rows[rows >= 0], minlength=len(truth.labels))
            assert (times[~truth.crowd] <= 1).all(), seed


def test_perfect_detections_score_1(count: int) -> None:
    for seed, given, _ in random_sets(count):
        truth = replace(given, crowd=np.zeros_like(given.crowd))
        scores = np.random.default_rng(seed).random(len(truth.labels))
        curves = curves_of(truth, DetectionTable(truth.image_index(), truth.labels, truth.boxes_xywh, scores))
        defined = curves.precision[..., 0, -1][curves.precision[..., 0, -1] > -1]
        np.testing.assert_allclose(defined, 1.0, rtol=0, atol=TIGHT, err_msg=str(seed))


# VOC


def test_voc_curves_are_those_of_the_devkits_loop(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = VocMatches(truth, found)
        for label in range(len(truth.class_names)):
            for iou_threshold in (0.5, 0.75):
                curve = matches.curve(label, iou_threshold)
                labels, positives = _devkit(truth, found, label, iou_threshold)
                hits = np.cumsum(labels)
                assert curve.positives == positives, seed
                assert curve.precision.tolist() == (hits / np.arange(1, len(hits) + 1)).tolist(), seed
                if positives:
                    assert curve.recall.tolist() == (hits / positives).tolist(), seed


def _devkit(truth: Annotations, found: DetectionTable, label: int, iou_threshold: float) -> tuple[list[int], int]:
    """1 or 0 for every detection of a class that counts, and the number of objects, one after another."""
    ignored = truth.difficult | truth.crowd
    seen: set[int] = set()
    labels = []
    for row in sorted(np.flatnonzero(found.labels == label), key=lambda row: -found.scores[row]):
        there = range(*truth.rows[found.image_index[row] :][:2])
        ious = {
            item: _iou(found.boxes_xywh[row], truth.boxes_xywh[item]) for item in there if truth.labels[item] == label
        }
        best = max(ious, key=ious.__getitem__, default=None)
        if best is None or ious[best] < iou_threshold:
            labels.append(0)
        elif not ignored[best]:
            labels.append(int(best not in seen))
            seen.add(best)
    return labels, int((~ignored[truth.labels == label]).sum())


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    if width <= 0 or height <= 0:
        return 0.0
    return float(width * height / (one[2] * one[3] + other[2] * other[3] - width * height))


# Kinds of errors


def test_the_base_of_the_error_kinds_is_cocos_ap50(count: int) -> None:
    for seed, truth, found in random_sets(count):
        kinds, ap50 = find_error_kinds(truth, found, match_all(truth, found)), ap50_of(curves_of(truth, found))
        if ap50 is None:
            assert kinds.ap50 is None, seed
        else:
            assert kinds.ap50 == pytest.approx(ap50, rel=0, abs=TIGHT), seed


def test_every_detection_is_right_or_ignored_or_has_one_kind_of_error(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = match_all(truth, found)
        kinds = find_error_kinds(truth, found, matches)
        ignored = matches.ignored[:, 0, 0]
        true = (matches.truth[:, 0, 0] >= 0) & ~ignored
        assert ((kinds.kind == RIGHT) == true).all(), seed
        assert ((kinds.kind == IGNORED) == ignored).all(), seed
        assert ((kinds.kind >= 0) == ~(true | ignored)).all(), seed
        assert set(kinds.kind[kinds.kind >= 0]) <= {KINDS.index(name) for name in KINDS if name != "missed"}, seed
        errors = sum(count for name, count in kinds.counts.items() if name != "missed")
        assert errors == (kinds.kind >= 0).sum(), seed


def test_only_errors_of_class_and_location_stand_for_an_object(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = match_all(truth, found)
        kinds = find_error_kinds(truth, found, matches)
        standing = np.isin(kinds.kind, [KINDS.index("class"), KINDS.index("location")])
        assert ((kinds.target >= 0) == standing).all(), seed
        same = truth.labels[kinds.target[standing]] == matches.labels[standing]
        assert (same == (kinds.kind[standing] == KINDS.index("location"))).all(), seed


def test_an_object_that_counts_is_taken_or_stood_for_or_missed(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = match_all(truth, found)
        kinds = find_error_kinds(truth, found, matches)
        excused = matches.truth_ignored[:, 0].copy()
        for rows in (matches.truth[:, 0, 0], kinds.target):
            excused[rows[rows >= 0]] = True
        assert (kinds.missed == ~excused).all(), seed
        assert kinds.counts["missed"] == kinds.missed.sum(), seed


def test_mending_a_kind_of_error_never_costs_ap(count: int) -> None:
    for seed, truth, found in random_sets(count):
        kinds = find_error_kinds(truth, found, match_all(truth, found))
        assert min(kinds.cost.values()) >= -TIGHT, (seed, kinds.cost)
        assert (kinds.ap50 or 0.0) + max(kinds.cost.values()) <= 1 + TIGHT, (seed, kinds.cost)


def test_what_does_not_occur_costs_nothing(count: int) -> None:
    for seed, truth, found in random_sets(count):
        kinds = find_error_kinds(truth, found, match_all(truth, found))
        for name in KINDS:
            assert kinds.counts[name] or abs(kinds.cost[name]) <= TIGHT, (seed, name)


# Confusion, slices, operating points


def test_every_object_and_every_detection_has_one_place_in_the_confusion(count: int) -> None:
    for seed, truth, found in random_sets(count):
        table = confuse(truth, found, 0.3).table
        objects = np.bincount(truth.labels[~truth.crowd], minlength=len(truth.class_names))
        assert table[:-1].sum(axis=1).tolist() == objects.tolist(), seed
        detections = np.bincount(found.labels[found.scores >= 0.3], minlength=len(truth.class_names))
        assert (table[:, :-1].sum(axis=0) <= detections).all(), seed
        assert truth.crowd.any() or table[:, :-1].sum() == detections.sum(), seed


def test_every_object_that_counts_has_one_place_in_each_slicing(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = match_all(truth, found)
        needed = int((~matches.truth_ignored[:, 0]).sum())
        for title, rows in slices(truth, matches, 0.3).items():
            assert sum(row["objects"] for row in rows) == needed, (seed, title)


def test_every_detection_that_counts_has_one_place_in_the_calibration(count: int) -> None:
    for seed, truth, found in random_sets(count):
        matches = match_all(truth, found)
        rows = calibration(matches)
        assert sum(row["detections"] for row in rows) == (~matches.ignored[:, 0, 0]).sum(), seed
        assert all(row["from"] - TIGHT <= row["mean_score"] <= row["to"] + TIGHT for row in rows), seed


def test_a_point_of_a_score_curve_is_what_detections_from_there_on_amount_to(count: int) -> None:
    for seed, truth, found in random_sets(count // 3):
        curves = score_curves(truth, match_all(truth, found))
        for score in (0.2, 0.5, 0.8):
            shown = match_all(truth, chosen(found, found.scores >= score))
            for label, curve in enumerate(curves):
                rows = shown.of_class(label)
                counts = ~shown.ignored[rows, 0, 0]
                true = int((counts & (shown.truth[rows, 0, 0] >= 0)).sum())
                point = curve.at(score)
                assert point.precision == (true / counts.sum() if counts.any() else None), (seed, label)
                assert point.recall == (true / curve.positives if curve.positives else 0.0), (seed, label)


# Intervals


def test_a_draw_of_every_image_once_has_the_measured_ap(count: int) -> None:
    for seed, truth, found in random_sets(count):
        once = np.ones((1, len(truth.image_ids)), dtype=np.uint8)
        drawn = resampled_ap(truth, match_all(truth, found), image_ranks(truth.image_ids), once)[0]
        precision = curves_of(truth, found).precision[..., 0, -1]
        measured = np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))
        np.testing.assert_allclose(drawn, measured, rtol=0, atol=TIGHT, err_msg=str(seed))


def test_a_draw_has_the_ap_of_the_set_of_the_drawn_images(count: int) -> None:
    for seed, truth, found in random_sets(count):
        random = np.random.default_rng(seed)
        ranked = replace(found, scores=random.permutation(len(found)).astype(np.float64))
        ranks = image_ranks(truth.image_ids)
        draws = draw_images(len(ranks), 3, seed)
        samples = mean_over_classes(resampled_ap(truth, match_all(truth, ranked), ranks, draws))
        for sample, times in zip(samples, draws, strict=True):
            drawn = drawn_set(truth, ranked, np.repeat(np.arange(len(ranks)), times[ranks]).tolist())
            ap = summarise(curves_of(*drawn))["AP"]
            assert sample == pytest.approx(np.nan if ap is None else ap, rel=0, abs=TIGHT, nan_ok=True), seed


def test_an_interval_contains_the_measured_number(count: int) -> None:
    for seed, truth, found in random_sets(count):
        intervals = analyse(truth, found, samples=100)["intervals"]
        measured = summarise(curves_of(truth, found))
        for name in ("AP", "AP50"):
            if intervals[name] is not None:
                low, high = intervals[name]
                assert low - TIGHT <= measured[name] <= high + TIGHT, (seed, name)


def test_an_interval_of_ap_lies_within_0_and_1(count: int) -> None:
    for seed, truth, found in random_sets(count):
        intervals = analyse(truth, found, samples=100)["intervals"]
        for name in ("AP", "AP50"):
            low, high = intervals[name] or (0.0, 1.0)
            assert 0 <= low <= high <= 1, (seed, name, low, high)


def test_a_set_four_times_as_large_has_an_interval_half_as_wide() -> None:
    truth, found = fair_set(images=60)
    once = _width(truth, found)
    four = _width(*drawn_set(truth, found, [*range(60)] * 4))
    assert 0.4 < four / once < 0.6


def _width(truth: Annotations, found: DetectionTable) -> float:
    ranks = image_ranks(truth.image_ids)
    draws = draw_images(len(ranks), 1000)
    samples = mean_over_classes(resampled_ap(truth, match_all(truth, found), ranks, draws))
    found_interval = interval(samples, float(samples.mean()))
    assert found_interval is not None
    return found_interval.high - found_interval.low


# All of it


def test_an_analysis_is_json_without_nan_whatever_the_set(count: int) -> None:
    for seed, truth, found in random_sets(count // 3):
        analysis = analyse(truth, found, samples=100)
        assert json.loads(json.dumps(analysis, allow_nan=False)) == analysis, seed


def test_nothing_that_is_computed_changes_its_inputs() -> None:
    truth, found = random_set(0)
    before = truth.fingerprint(), found.boxes_xywh.tobytes(), found.scores.tobytes(), found.labels.tobytes()
    analyse(truth, found, samples=100)
    coco_curves(truth, found, verify=True)
    suspicions(truth, found, 0.0)
    after = truth.fingerprint(), found.boxes_xywh.tobytes(), found.scores.tobytes(), found.labels.tobytes()
    assert after == before
