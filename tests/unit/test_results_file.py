"""Files of detections as strangers write them: right, or refused by name; never silently wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.coco import read_coco_annotations
from detector.errors import DatasetError
from detector.evaluation.results_file import read_results, write_results
from detector.evaluation.score import score
from detector.structures import Annotations, DetectionTable, ImageId
from tests.evaluation_sets import Guess, Thing, found_of, random_sets, truth_of

BOX = (10.0, 10.0, 40.0, 40.0)
# Not 1 to the last bit: pycocotools adds 2**-52 below the fraction.
PERFECT = pytest.approx(1, rel=0, abs=1e-12)


def record(**values: Any) -> dict[str, Any]:
    """A detection of the first image; a value of ... takes the key out."""
    found = {"image_id": 0, "category_id": 1, "bbox": list(BOX), "score": 0.5, **values}
    return {key: value for key, value in found.items() if value is not ...}


def read(truth: Annotations, *records: Any) -> DetectionTable:
    Path("found.json").write_text(json.dumps(records))
    return read_results("found.json", truth)


def refusal(truth: Annotations, text: str) -> str:
    Path("found.json").write_text(text)
    with pytest.raises(DatasetError) as caught:
        read_results("found.json", truth)
    return str(caught.value)


ONE = truth_of(Thing(0, BOX))


# Reading and writing


def test_what_is_written_is_read_back_to_the_last_bit() -> None:
    for seed, truth, found in random_sets(30):
        write_results(Path("found.json"), found, truth)
        again = read_results("found.json", truth)
        for name in ("image_index", "labels", "boxes_xywh", "scores"):
            assert getattr(again, name).tobytes() == getattr(found, name).tobytes(), (seed, name)
            assert getattr(again, name).shape == getattr(found, name).shape, (seed, name)


def test_an_empty_list_is_no_detections() -> None:
    found = read(ONE)
    assert (len(found), found.boxes_xywh.shape) == (0, (0, 4))


def test_the_order_of_the_file_is_kept() -> None:
    found = read(ONE, record(score=0.1), record(score=0.9), record(score=0.5))
    assert found.scores.tolist() == [0.1, 0.9, 0.5]


def test_unknown_keys_are_ignored() -> None:
    assert len(read(ONE, record(segmentation=[], id=0, area=None))) == 1


def test_whole_numbers_are_numbers() -> None:
    found = read(ONE, record(bbox=[1, 2, 3, 4], score=1))
    assert (found.boxes_xywh.tolist(), found.scores.tolist()) == ([[1, 2, 3, 4]], [1])


@pytest.mark.parametrize("value", [-0.5, 0, 1.5, 99.9])
def test_a_score_need_not_be_a_fraction(value: float) -> None:
    assert read(ONE, record(score=value)).scores.tolist() == [value]


# Ids


@pytest.mark.parametrize(
    "ids", [(0, 1), (7, -3), (2**53 + 1, 2**53), ("a", "b"), ("1", "01"), (1, "1")], ids=str
)  # fmt: skip
def test_image_ids_mean_what_they_say(ids: tuple[ImageId, ImageId]) -> None:
    truth = truth_of(Thing(0, BOX, 0), images=2, image_ids=ids)
    assert read(truth, record(image_id=ids[1]), record(image_id=ids[0])).image_index.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("image_id", "words"),
    [
        (99, "image_id 99 is not in the ground truth"),
        ("0", "image_id '0' is not in the ground truth; the ground truth has the same id as another type"),
        (0.0, "image_id must be a whole number or text, got 0.0"),
        (False, "image_id must be a whole number or text, got False"),
        (None, "image_id must be a whole number or text, got None"),
        ([0], "image_id must be a whole number or text, got [0]"),
        (..., "image_id must be a whole number or text, got None"),
    ],
)
def test_an_unknown_image_is_refused(image_id: Any, words: str) -> None:
    assert refusal(ONE, json.dumps([record(image_id=image_id)])) == f"found.json: [0]: {words}"


def test_a_number_for_an_id_that_is_a_text_is_refused() -> None:
    truth = truth_of(Thing(0, BOX), image_ids=("0",))
    assert refusal(truth, json.dumps([record()])).endswith("the ground truth has the same id as another type")


@pytest.mark.parametrize("category_id", [1.0, True, None, [1], ...])
def test_a_category_that_is_no_id_is_refused(category_id: Any) -> None:
    message = refusal(ONE, json.dumps([record(category_id=category_id)]))
    assert message.startswith("found.json: [0]: category_id must be a whole number or text, got ")


def test_detections_of_undeclared_categories_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("detector"), "propagate", True)  # the commands switch it off
    found = read(ONE, record(category_id=0), record(), record(category_id="1"), record(category_id=0))
    assert found.labels.tolist() == [0]
    assert "found.json: left out 3 detections of undeclared categories: '0', '1'" in caplog.text


# Scores and boxes


@pytest.mark.parametrize("value", [..., None, "0.5", True, [0.5], 1e16])
def test_what_is_no_score_is_refused(value: Any) -> None:
    message = refusal(ONE, json.dumps([record(), record(score=value)]))
    assert message.startswith("found.json: [1]: score must be a number, got ")


@pytest.mark.parametrize("key", ["score", "bbox"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_refused(key: str, value: str) -> None:
    inside = value if key == "score" else f"[0, 0, {value}, 5]"
    text = json.dumps([record(**{key: "HERE"})]).replace('"HERE"', inside)
    assert refusal(ONE, text) == f"found.json: holds {value}, which is no number in JSON"


@pytest.mark.parametrize("value", ["1e400", "-1e400"])
def test_a_number_that_overflows_is_refused(value: str) -> None:
    text = json.dumps([record(score="HERE")]).replace('"HERE"', value)
    assert refusal(ONE, text).startswith("found.json: [0]: score must be a number, got ")


@pytest.mark.parametrize("box", [..., None, [], [1, 2, 3], [1, 2, 3, 4, 5], "1 2 3 4", [1, 2, 3, None], [1, 2, 3, "4"]])
def test_what_is_no_box_is_refused(box: Any) -> None:
    message = refusal(ONE, json.dumps([record(bbox=box)]))
    assert message.startswith("found.json: [0]: bbox must be four numbers [x, y, width, height], got ")


@pytest.mark.parametrize("box", [[10, 10, -1, 5], [10, 10, 5, -1]])
def test_a_box_that_is_turned_inside_out_is_refused(box: list[float]) -> None:
    assert refusal(ONE, json.dumps([record(bbox=box)])).endswith(
        "has a negative width or height (are these x1, y1, x2, y2?)"
    )


def test_a_key_that_stands_twice_is_refused() -> None:
    text = '[{"image_id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]'
    assert refusal(ONE, text) == "found.json: the key image_id stands twice in one object"


# What counts


def ap50(truth: Annotations, found: DetectionTable) -> float | None:
    return score(truth, found, ["coco"], verify=True)["coco"]["AP50"]  # type: ignore[no-any-return]


def test_a_detection_without_area_is_false() -> None:
    found = read(ONE, record(bbox=[10, 10, 0, 40], score=0.9), record(score=0.8))
    assert ap50(ONE, found) == pytest.approx(1 / 2)


def test_a_detection_that_stands_twice_counts_twice() -> None:
    truth = truth_of(Thing(0, BOX, 0), Thing(0, BOX, 1), images=2)
    found = read(truth, record(score=0.9), record(score=0.9), record(image_id=1, score=0.8))
    assert ap50(truth, found) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_without_detections_ap_is_0() -> None:
    assert ap50(ONE, read(ONE)) == 0


def test_without_objects_ap_is_undefined_and_not_minus_1() -> None:
    metrics = score(truth_of(), found_of(Guess(0, BOX, 0.9)), ["coco", "voc07", "voc"], verify=True)
    numbers = [*metrics["coco"].values(), *metrics["voc07"].values(), *metrics["voc"].values()]
    assert set(numbers) == {None}
    assert metrics["per_class"] == {
        "a": {"objects": 0, "AP": None, "AP50": None, "AP75": None, "voc07_AP50": None, "voc_AP50": None}
    }


@pytest.mark.parametrize("count", [100, 101])
def test_of_a_class_100_detections_of_an_image_count(count: int) -> None:
    guesses = [Guess(0, (500.0, 500.0, 5.0, 5.0), 0.9) for _ in range(count - 1)]
    found = found_of(*guesses, Guess(0, BOX, 0.1))
    assert ap50(ONE, found) == pytest.approx(0.01 if count == 100 else 0)


# Ground truth as strangers write it: perfect detections score 1 by both engines, whatever its ids and optional keys


@pytest.mark.parametrize(
    "changes",
    [
        [{"id": 0}, {"id": 1}],
        [{"id": 7}, {"id": 7}],
        [{"id": ...}, {"id": ...}],
        [{"iscrowd": ...}, {"iscrowd": None}],
        [{"area": ...}, {"area": None}],
    ],
    ids=["ids from 0", "repeated ids", "no ids", "no iscrowd", "no area"],
)
def test_perfect_detections_score_1(changes: list[dict[str, Any]]) -> None:
    usual = {"image_id": 0, "category_id": 1, "area": 1600, "iscrowd": 0}
    boxes = ([10, 10, 40, 40], [100, 100, 40, 40])
    annotations = [{**usual, "bbox": box, **change} for box, change in zip(boxes, changes, strict=True)]
    annotations = [{key: value for key, value in item.items() if value is not ...} for item in annotations]
    content = {"images": [{"id": 0}], "categories": [{"id": 1, "name": "a"}], "annotations": annotations}
    Path("truth.json").write_text(json.dumps(content))
    truth = read_coco_annotations("truth.json")
    found = read(truth, *(record(bbox=box) for box in boxes))
    metrics = score(truth, found, ["coco"], verify=True)["coco"]
    assert {name: metrics[name] for name in ("AP", "AP50", "APm")} == {"AP": PERFECT, "AP50": PERFECT, "APm": PERFECT}


def test_an_object_without_area_cannot_be_found_and_costs_recall() -> None:
    truth = truth_of(Thing(0, BOX), Thing(0, (10.0, 10.0, 0.0, 40.0)))
    found = read(truth, record(score=0.9), record(bbox=[10, 10, 0, 40], score=0.8))
    assert score(truth, found, ["coco"], verify=True)["coco"]["AR100"] == 0.5


def test_an_image_that_stands_twice_in_the_ground_truth_is_refused() -> None:
    content: dict[str, Any] = {"images": [{"id": 3}, {"id": 3}], "categories": [], "annotations": []}
    Path("truth.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"truth\.json: images\[1\]: the id 3 is there twice"):
        read_coco_annotations("truth.json")


def test_a_table_of_no_detections_has_the_types_of_others() -> None:
    one, none = read(ONE, record()), DetectionTable.of([])
    for name in ("image_index", "labels", "boxes_xywh", "scores"):
        assert getattr(one, name).dtype == getattr(none, name).dtype == getattr(read(ONE), name).dtype
    assert isinstance(one.scores, np.ndarray)
