"""check_dataset as its users call it: on data sets without fault, with planted faults, and on real ones."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.cli.check_dataset import main
from detector.cli.train import main as train
from tests.tiny import write_tiny

SHARED = os.environ.get("DETECTOR_SHARED", "")
Found = Callable[..., Counter[str]]

needs_shared = pytest.mark.skipif(not SHARED, reason="needs the data sets that DETECTOR_SHARED points to")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A COCO data set of 14 images for training and 6 for validation, each with objects of two classes; no fault."""
    root = tmp_path / "data"
    for split, count in (("train", 14), ("val", 6)):
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
        content["categories"] = [{"id": number + 1, "name": name} for number, name in enumerate(("cat", "dog"))]
        for image in range(count):
            name = f"{split}{image}.png"
            draw(root / split / name, seed=1000 * (split == "val") + image)
            content["images"].append({"id": image, "file_name": name, "height": 320, "width": 400})
            for label in (0, 1):
                box = [20 + 170 * label, 30 + 5 * image, 120, 110 + 4 * image]
                number = len(content["annotations"]) + 1
                annotation = {"id": number, "image_id": image, "category_id": label + 1, "bbox": box, "iscrowd": 0}
                content["annotations"].append(annotation | {"area": box[2] * box[3]})
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((400, 320), Image.Resampling.BICUBIC).save(path)


def change(folder: Path, section: str, number: int, split: str = "train", **values: Any) -> None:
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    content[section][number] |= values
    path.write_text(json.dumps(content))


@pytest.fixture
def found(capsys: pytest.CaptureFixture[str]) -> Found:
    """How many findings of each kind the command reports, after its exit code is compared."""

    def run(*argv: object, code: int) -> Counter[str]:
        assert main([*map(str, argv), "--json", "--workers", "0", "--output", "report"]) == code
        printed = json.loads(capsys.readouterr().out)
        assert printed == json.loads(Path("report/findings.json").read_text())
        assert Path("report/report.html").stat().st_size < 5_000_000
        return Counter(printed["counts"])

    return run


def test_a_data_set_without_fault_has_no_findings(folder: Path, found: Found) -> None:
    assert found(folder, code=0) == {}


def test_its_ground_truth_scores_one(folder: Path, found: Found) -> None:
    found(folder, code=0)
    scores = json.loads(Path("report/findings.json").read_text())["self_test"]
    assert scores == {"train": {"coco.AP": pytest.approx(1.0)}, "val": {"coco.AP": pytest.approx(1.0)}}


FAULTS: dict[str, Callable[[Path], None]] = {
    "box-reversed": lambda folder: change(folder, "annotations", 0, bbox=[140, 140, -120, -110]),
    "box-without-area": lambda folder: change(folder, "annotations", 0, bbox=[20, 30, 0, 110]),
    "box-outside": lambda folder: change(folder, "annotations", 0, bbox=[500, 30, 20, 20]),
    "box-partly-outside": lambda folder: change(folder, "annotations", 0, bbox=[350, 30, 120, 110]),
    "box-unreadable": lambda folder: change(folder, "annotations", 0, bbox=["20", 30, 120, 110]),
    "box-tiny": lambda folder: change(folder, "annotations", 0, bbox=[20, 30, 1.2, 1.2]),
    "box-whole-image": lambda folder: change(folder, "annotations", 0, bbox=[0, 0, 400, 320]),
    "box-twice": lambda folder: change(folder, "annotations", 0, bbox=[190, 30, 120, 110], category_id=2),
    "unknown-image": lambda folder: change(folder, "annotations", 0, image_id=99),
    "unknown-category": lambda folder: change(folder, "annotations", 0, category_id=99),
    "image-missing": lambda folder: (folder / "train" / "train3.png").unlink(),
    "image-empty": lambda folder: (folder / "train" / "train3.png").write_bytes(b""),
    "image-unlisted": lambda folder: draw(folder / "train" / "more.png", seed=77),
    "image-in-two-splits": lambda folder: draw(folder / "train" / "train3.png", seed=1002),
    "image-twice": lambda folder: draw(folder / "train" / "train3.png", seed=5),
    "recorded-size-differs": lambda folder: change(folder, "images", 3, width=500),
    "file-name-unsafe": lambda folder: change(folder, "images", 3, file_name="../val/val3.png"),
    "class-alike": lambda folder: change(folder, "categories", 0, name="Dog"),
    "annotation-id-twice": lambda folder: change(folder, "annotations", 3, id=2),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found(folder: Path, found: Found, kind: str) -> None:
    FAULTS[kind](folder)
    assert found(folder, code=1)[kind] == 1


@pytest.mark.parametrize(
    "kind", ["box-reversed", "box-outside", "image-missing", "image-in-two-splits", "unknown-image"]
)
def test_a_mended_copy_has_nothing_to_mend(folder: Path, found: Found, tmp_path: Path, kind: str) -> None:
    FAULTS[kind](folder)
    found(folder, "--fix", tmp_path / "mended", code=1)
    assert kind not in found(tmp_path / "mended", code=0)
    assert (tmp_path / "mended" / "changes.txt").read_text()


def test_quick_leaves_image_files_alone(folder: Path, found: Found) -> None:
    FAULTS["image-empty"](folder)
    assert found(folder, "--quick", code=0) == {}


def test_lines_name_file_record_and_remedy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FAULTS["box-reversed"](folder)
    assert main([str(folder), "--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "error: Boxes that are reversed: 1" in lines
    assert any("instances_train.json: annotations[0] (id 1): " in line for line in lines)
    assert "  -> Swap the corners." in lines
    assert lines[-1] == "found: 1 error, 0 warnings, 0 notes"


def test_a_configuration_names_the_sets(folder: Path, found: Found, tmp_path: Path) -> None:
    FAULTS["box-whole-image"](folder)
    sets = {
        split: f"[{{format: coco, images: {folder}/{split}, annotations: {folder}/annotations/instances_{split}.json}}]"
        for split in ("train", "val")
    }
    (tmp_path / "c.yaml").write_text(f"data: {{train: {sets['train']}, val: {sets['val']}}}")
    assert found(tmp_path / "c.yaml", code=1) == {"box-whole-image": 1}
    assert found(tmp_path / "c.yaml", "data.classes=[cat]", "data.val=[]", code=1)["box-whole-image"] == 1


def test_classes_that_are_merged_are_looked_for_under_their_own_names(folder: Path, found: Found) -> None:
    assert found(folder, "data.classes=[{name: animal, merge: [cat, dog]}]", code=0) == {}
    assert set(json.loads(Path("report/findings.json").read_text())["self_test"]) == {"train", "val"}
    assert found(folder, "data.classes=[cat, {name: bird, merge: [hen]}]", code=1)["class-unused"] == 1


def test_drawn_shapes_are_checked_without_files(found: Found) -> None:
    Path("shapes.yaml").write_text("data: {train: [{format: shapes, images: 30}]}")
    Path("a.png").write_bytes(b"not looked at")
    assert set(found("shapes.yaml", code=0)) <= {"no-objects"}
    assert list(json.loads(Path("report/findings.json").read_text())["self_test"]) == ["train"]


def test_files_can_be_named_one_by_one(folder: Path, found: Found) -> None:
    names = ("--images", folder / "train", "--annotations", folder / "annotations" / "instances_train.json")
    assert found("--format", "coco", *names, code=0) == {}
    assert found(*names, code=0) == {}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give either CONFIG or FOLDER"),
        (["nothing.yaml"], "nothing.yaml: no such file"),
        (["empty"], "no data set is recognised here"),
        (["empty", "--fix", "x", "--quick"], "leave --quick out"),
        (["--format", "coco"], "give either CONFIG or FOLDER"),
        (["--images", "empty", "--annotations", "none.json"], "none.json: no such file"),
        (["empty", "--workers", "-1"], "--workers must be"),
        (["nothing_listed.yaml"], "data.train and data.val list no data set"),
        (["shapes.yaml", "--fix", "x"], "shapes are drawn"),
        (["a.json"], "annotations need their images"),
        (["empty", "--fix", "empty/mended"], "lies in the data set itself"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    Path("shapes.yaml").write_text("data: {train: [{format: shapes, images: 3}]}")
    Path("nothing_listed.yaml").write_text("seed: 1")
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_a_training_begins_with_the_quick_part(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    FAULTS["box-partly-outside"](folder)
    sets = f"[{{format: coco, images: {folder}/train, annotations: {folder}/annotations/instances_train.json}}]"
    argv = [str(write_tiny(Path.cwd())), f"data.train={sets}", "training.iterations=1", "--output", "run"]
    assert train([*argv, "training.evaluate_every=0"]) == 0
    log = capfd.readouterr().err
    assert "Boxes that reach over the edge: 1, such as" in log
    assert "of 28 objects at IoU 0.5" in log


def test_a_training_tells_of_images_that_it_is_evaluated_on(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sets = f"[{{format: coco, images: {folder}/train, annotations: {folder}/annotations/instances_train.json}}]"
    argv = [str(write_tiny(Path.cwd())), f"data.train={sets}", f"data.val={sets}", "training.iterations=1"]
    assert train([*argv, "--output", "run"]) == 0
    assert "14 of 14 images of data.val are in data.train, too" in capfd.readouterr().err


@needs_shared
@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("bccd", {"box-without-area"}),
        ("coco_by", set()),
        ("microcontroller/images", set()),
        ("nasty", {"image-empty", "image-truncated"}),
    ],
)
def test_the_faults_of_real_data_sets_are_found_and_no_others(found: Found, name: str, errors: set[str]) -> None:
    found(Path(SHARED) / "data" / name, code=1)
    findings = json.loads(Path("report/findings.json").read_text())["findings"]
    assert {finding["kind"] for finding in findings if finding["severity"] == "error"} == errors


@needs_shared
def test_near_duplicates_of_blood_cells_in_two_splits_are_found(found: Found) -> None:
    found(Path(SHARED) / "data" / "bccd", code=1)
    findings = json.loads(Path("report/findings.json").read_text())["findings"]
    leaks = [finding for finding in findings if finding["kind"] == "image-nearly-in-two-splits"]
    assert any("00258" in finding["file"] and "00229" in finding["what"] for finding in leaks)
