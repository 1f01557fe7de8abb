"""Detections in COCO's results format, read against a fixed ground truth."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from detector.data.coco import read_coco_annotations
from detector.evaluation.results_file import read_results
from detector.structures import Annotations, DetectionTable
from tests.fuzz import json_text, raw_bytes
from tests.fuzz.cases import Case, Reading
from tests.fuzz.json_text import HOSTILE, change_list, change_record, plain_number, proper_id

_RECORD = r"\[\d+\]"
_TRUTH = {
    "images": [{"id": 1}, {"id": 7}, {"id": "7"}, {"id": "a"}],
    "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}, {"id": "x", "name": "ox"}],
    "annotations": [],
}
_VALUES: dict[str, tuple[Any, ...]] = {
    "image_id": (1, "1", 7, "7", "a", 2, 1.0, True, -1, 2**64, 10**30, None, [1], "٧", "\x1b[2J", "x" * 500),
    "category_id": (3, "3", "x", 99, 3.0, True, None, [3], "\x1b[2J", 10**30, "\ud800"),
    "bbox": ([1, 2, 3, 4], [1, 2, -3, 4], [1, 2, 0, 0], [1, 2, 3], [1e308] * 4, [1, 2, 3, "4"], None, {}, [True] * 4),
    "score": (0, 1, 0.5, -1, 2, 1e308, 1e14, True, "0.5", None, [0.5], 5e-324),
}


class DetectionsTarget:
    """Changed files of six detections."""

    name = "detections"

    def __init__(self, folder: Path, shared: Path | None) -> None:
        self.folder = folder
        (folder / "truth.json").write_text(json.dumps(_TRUTH), encoding="utf-8")
        self.truth = read_coco_annotations(folder / "truth.json")
        self.base: list[dict[str, Any]] = [
            {"image_id": image, "category_id": category, "bbox": [1.5, 2, 30, 40.25], "score": score}
            for image, category, score in (
                (1, 3, 0.9),
                (7, 1, 0.5),
                ("7", "x", 0.25),
                ("a", 3, 1),
                (1, 1, 0),
                (1, 5, 0.1),
            )
        ]

    def case(self, random: Random) -> Case:
        """One to three changes."""
        content: Any = copy.deepcopy(self.base)
        case = Case()
        for _ in range(random.choice((1, 1, 2, 3))):
            case.notes.append(self._change(random, content))
        if random.random() < 0.05:
            content = random.choice((*HOSTILE, {"annotations": content}, [content]))
        text = json_text.write(content)
        data, kind = text.encode("utf-8", "surrogatepass"), random.random()
        if kind < 0.15:
            data, note = raw_bytes.mutate(random, data, json.dumps(_TRUTH).encode())
            case.notes.append(note)
        elif kind < 0.2:
            data, note = raw_bytes.reencode(random, text)
            case.notes.append(note)
        case.files["detections.json"] = data
        return case

    def _change(self, random: Random, content: list[Any]) -> str:
        if random.random() < 0.2 or not content:
            return change_list(random, content)
        position = random.randrange(len(content))
        if not isinstance(content[position], dict):
            return "nothing"
        if random.random() < 0.5:
            return change_record(random, content, position)
        key = random.choice(list(_VALUES))
        content[position] = dict(content[position]) | {key: random.choice(_VALUES[key])}
        return f"{key} {content[position][key]!a:.50}"

    def readings(self, case: Case) -> Sequence[Reading]:
        """The one way they are read."""
        path = self.folder / "detections.json"
        expected = _Expected(case.files["detections.json"] or b"", self.truth)
        return (
            Reading(
                "read_results",
                lambda: read_results(path, self.truth),
                lambda found: expected.compare(found),
                None if expected.faults or expected.doubts else True,
                (str(path),),
            ),
        )


class _Expected:
    """What a file means, worked out anew."""

    def __init__(self, data: bytes, truth: Annotations) -> None:
        content = json_text.Strict(data)
        self.faults, self.doubts = list(content.faults), list(content.doubts)
        self.rows: list[tuple[int, int, list[float], float]] = []
        if self.faults or not isinstance(content.value, list):
            self.faults.append("no list")
            return
        for record in content.value:
            self._record(record, list(truth.image_ids), list(truth.category_ids))

    def _record(self, record: Any, images: list[Any], categories: list[Any]) -> None:
        if not isinstance(record, dict):
            self.faults.append("a record that is no object")
            return
        image, category = record.get("image_id"), record.get("category_id")
        box: Any = record.get("bbox")
        score: Any = record.get("score")
        proper = proper_id(image) and proper_id(category) and image in images and plain_number(score)
        proper = proper and isinstance(box, list) and len(box) == 4 and all(map(plain_number, box))
        if not proper or box[2] < 0 or box[3] < 0:
            self.faults.append(f"{record!a:.200}")
        elif category in categories:
            place = images.index(image), categories.index(category)
            self.rows.append((*place, [float(value) for value in box], float(score)))

    def compare(self, found: DetectionTable) -> list[str]:
        """What is wrong with detections that were accepted."""
        if self.faults:
            return [f"accepted, though {self.faults[0]}"]
        rows = zip(
            found.image_index.tolist(), found.labels.tolist(), found.boxes_xywh.tolist(), found.scores.tolist(),
            strict=True,
        )  # fmt: skip
        return [] if list(rows) == self.rows else ["the detections differ"]
