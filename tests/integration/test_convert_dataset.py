"""convert_dataset.py as a user runs it: what the readers for training find in the result, and what is told."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from detector.cli.convert_dataset import main
from detector.data.coco import open_coco
from detector.data.dataset import FileDataset
from detector.data.export import write_coco, write_voc
from detector.data.shapes import ShapesDataset
from detector.data.voc import open_voc
from detector.structures import Annotations, Size

PIXELS = 64_000_000
SHAPES = ShapesDataset(6, 0, Size(64, 80), hard=False)
Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command, which must do its work, and returns what it printed."""

    def check(*argv: object) -> str:
        code = main([str(item) for item in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return check


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Runs the command, which must refuse its work, and returns the lines of the error."""

    def check(*argv: object) -> list[str]:
        assert main([str(item) for item in argv]) == 2
        out, err = capsys.readouterr()
        assert not out
        lines = err.splitlines()
        assert all(line.startswith("error: ") and len(line) <= 400 for line in lines)
        return lines

    return check


def coco_of(folder: Path, split: str) -> FileDataset:
    return open_coco(folder / split, folder / f"annotations/instances_{split}.json", None, False, PIXELS)


def read(folder: Path, split: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"annotations/instances_{split}.json").read_text())
    return content


def make_coco(folder: Path, annotations: Sequence[dict[str, Any]], **image: Any) -> Path:
    """A set of one image of 40 x 30."""
    folder.mkdir(exist_ok=True)
    (folder / "images").mkdir()
    record = {"id": 7, "file_name": "a.png"} | image
    Image.new("RGB", (40, 30)).save(folder / "images/a.png")
    content = {"images": [record], "annotations": list(annotations), "categories": [{"id": 3, "name": "cat"}]}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def thing(*box: float, **further: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 7, "category_id": 3, "bbox": list(box)} | further


def names_of(annotations: Annotations) -> list[str]:
    return [annotations.class_names[label] for label in annotations.labels]


def digests(folder: Path) -> dict[str, str]:
    """Every file with its contents."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# Real data: the readers for training agree box for box.


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_blood_cells_are_the_same_in_coco(shared: Path, run: Run, tmp_path: Path, split: str) -> None:
    source = shared / "data/bccd/BCCD"
    run(source, "--to", "coco", "--output", "out", "--link")
    was, now = open_voc(source, split, None, True, PIXELS).annotations, coco_of(tmp_path / "out", split).annotations
    assert (now.boxes_xywh == was.boxes_xywh).all()
    assert names_of(now) == names_of(was)
    assert (now.rows == was.rows).all()
    assert [now.category_ids, now.class_names] == [(1, 2, 3), was.class_names]


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_photographs_are_the_same_in_voc(shared: Path, run: Run, tmp_path: Path, split: str) -> None:
    source = shared / "data/coco_by"
    run(source, "--to", "voc", "--output", "out", "--link")
    was, now = coco_of(source, split).annotations, open_voc(tmp_path / "out", split, None, False, PIXELS).annotations
    np.testing.assert_allclose(now.boxes_xywh, was.boxes_xywh, rtol=1e-9, atol=3e-9)
    assert names_of(now) == names_of(was)
    assert (now.rows == was.rows).all()
    assert (now.difficult == was.crowd).all()


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_photographs_come_back_from_yolo(shared: Path, run: Run, tmp_path: Path, split: str) -> None:
    source, key = shared / "data/coco_by", split[:-4]
    run(source, "--to", "yolo", "--output", "yolo", "--link")
    run("yolo", "--to", "coco", "--output", "out", "--link")
    was, now = coco_of(source, split), coco_of(tmp_path / "out", key)
    order = np.argsort([now.info(index).path.rsplit("/", 1)[1] for index in range(len(now))])
    assert (order == np.arange(len(now))).all()
    back = {
        now.info(index).path.rsplit("/", 1)[1]: now.annotations.boxes_xywh[now.annotations.of_image(index)]
        for index in range(len(now))
    }
    for index in range(len(was)):
        expected = was.annotations.boxes_xywh[was.annotations.of_image(index)]
        np.testing.assert_allclose(back[was.info(index).path.rsplit("/", 1)[1]], expected, rtol=0, atol=1e-6)
    assert now.annotations.class_names == was.annotations.class_names


@pytest.mark.parametrize("split", ["train", "test"])
def test_microcontrollers_are_the_same_in_voc_and_coco(shared: Path, run: Run, tmp_path: Path, split: str) -> None:
    source = shared / "data/microcontroller/images"
    run(source, "--to", "voc", "--output", "voc", "--link")
    run(source, "--to", "coco", "--output", "coco", "--link")
    voc, coco = open_voc(tmp_path / "voc", split, None, False, PIXELS), coco_of(tmp_path / "coco", split)
    expected = []
    for path in sorted((source / split).glob("*.xml")):
        for box in ElementTree.parse(path).iter("bndbox"):
            x1, y1, x2, y2 = (float(box.findtext(tag) or "") for tag in ("xmin", "ymin", "xmax", "ymax"))
            expected.append([x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1])
    assert voc.annotations.boxes_xywh.tolist() == coco.annotations.boxes_xywh.tolist() == expected
    assert names_of(voc.annotations) == names_of(coco.annotations)


def test_coco_to_coco_keeps_every_key(shared: Path, run: Run, tmp_path: Path) -> None:
    source = shared / "data/coco_by"
    out = run(source, "--to", "coco", "--output", "out", "--link")
    was, now = read(source, "val2017"), read(tmp_path / "out", "val2017")
    for content in (was, now):
        content["annotations"].sort(key=lambda record: record["id"])
    assert now == was
    assert "nothing is lost" in out


def test_what_voc_cannot_hold_is_counted(shared: Path, run: Run) -> None:
    out = run(shared / "data/coco_by", "--to", "voc", "--output", "out", "--link")
    for line in (
        "lost: crowd flags (written as difficult): 13",
        "lost: areas that are not their box's: 1041",
        "lost: image ids: 104",
        "lost: category ids: 80",
        "lost: classes without objects: 9",
        "lost: segmentation of annotations: 1041",
    ):
        assert line in out.splitlines()


def test_hard_files_are_found_under_plain_names(shared: Path, run: Run, tmp_path: Path) -> None:
    source = shared / "data/nasty"
    content = json.loads((source / "instances.json").read_text(encoding="utf-8"))
    content["images"] = [record for record in content["images"] if record["file_name"] != "empty.jpg"]
    kept = {record["id"] for record in content["images"]}
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] in kept]
    shutil.copytree(source / "images", tmp_path / "in/images")
    (tmp_path / "in/instances.json").write_text(json.dumps(content))
    run("in", "--to", "voc", "--output", "out")
    dataset = open_voc(tmp_path / "out", "all", None, False, PIXELS)
    assert len(dataset) == 15
    names = json.loads((tmp_path / "out/names.json").read_text())
    assert names == {
        "JPEGImages/png_named.jpg": "png named.jpg",
        "JPEGImages/UPPER#=ünï.jpg": "UPPER#=ünï.JPG",
    }
    for index in range(len(dataset)):
        if "truncated" not in dataset.info(index).path:
            assert dataset.info(index).size == dataset[index].size


# What is written.


def test_the_source_is_as_it_was(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    before = digests(tmp_path / "in")
    run("in", "--to", "yolo", "--output", "out")
    assert digests(tmp_path / "in") == before


def test_images_are_copied_byte_by_byte(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    run("in", "--to", "yolo", "--output", "out")
    assert digests(tmp_path / "out/images/train") == digests(tmp_path / "in/JPEGImages")
    assert not any(path.is_symlink() for path in (tmp_path / "out/images/train").iterdir())


def test_images_can_be_linked(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    run("in", "--to", "coco", "--output", "out", "--link")
    assert all(path.is_symlink() for path in (tmp_path / "out/train").iterdir())
    assert len(coco_of(tmp_path / "out", "train")) == len(SHAPES)


def test_yolo_files_say_what_trainers_read(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(10, 15, 20, 6)])
    run("in", "--to", "yolo", "--output", "out")
    assert (tmp_path / "out/labels/all/a.txt").read_text() == "0 0.5 0.6 0.5 0.2\n"
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text()) == {
        "path": str(tmp_path / "out"),
        "train": "images/all",
        "names": ["cat"],
    }


def test_an_image_without_objects_has_an_empty_text_file(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [])
    run("in", "--to", "yolo", "--output", "out")
    assert (tmp_path / "out/labels/all/a.txt").read_text() == ""


def test_whole_coordinates_stay_whole_in_voc_and_others_keep_their_decimals(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(10, 15.25, 20, 6.5)])
    run("in", "--to", "voc", "--output", "out")
    box = ElementTree.parse(tmp_path / "out/Annotations/a.xml").find("object/bndbox")
    assert box is not None
    assert [corner.text for corner in box] == ["11", "16.25", "30", "21.75"]


def test_voc_to_voc_keeps_what_this_toolkit_does_not_read(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    path = tmp_path / "in/Annotations/000000.xml"
    path.write_text(path.read_text().replace("<object>", "<object><pose>Left</pose>", 1))
    run("in", "--to", "voc", "--output", "out")
    written = ElementTree.parse(tmp_path / "out/Annotations/000000.xml")
    assert written.findtext("object/pose") == "Left"


def test_voc_to_coco_counts_what_is_not_read(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    path = tmp_path / "in/Annotations/000000.xml"
    path.write_text(path.read_text().replace("<object>", "<object><pose>Left</pose><truncated>0</truncated>", 1))
    assert "lost: <pose> of objects: 1" in run("in", "--to", "coco", "--output", "out").splitlines()


def test_an_image_of_two_splits_is_there_once_in_voc(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "in", "train")
    shutil.copy(tmp_path / "in/ImageSets/Main/train.txt", tmp_path / "in/ImageSets/Main/trainval.txt")
    run("in", "--to", "voc", "--output", "out")
    assert digests(tmp_path / "out/JPEGImages") == digests(tmp_path / "in/JPEGImages")


def test_images_of_one_name_in_two_folders_get_two_names(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    content = json.loads((tmp_path / "in/instances.json").read_text())
    content["images"] = [{"id": 7, "file_name": "b/a.png"}, {"id": 8, "file_name": "b_a.png"}]
    (tmp_path / "in/images/b").mkdir()
    shutil.copy(tmp_path / "in/images/a.png", tmp_path / "in/images/b/a.png")
    shutil.move(tmp_path / "in/images/a.png", tmp_path / "in/images/b_a.png")
    (tmp_path / "in/instances.json").write_text(json.dumps(content))
    run("in", "--to", "voc", "--output", "out")
    names = json.loads((tmp_path / "out/names.json").read_text())
    assert names == {"JPEGImages/b_a.png": "b/a.png", "JPEGImages/b_a_2.png": "b_a.png"}


def test_polygons_stay_polygons_in_yolo_and_are_counted_elsewhere(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(10, 15, 20, 6)])
    run("in", "--to", "yolo", "--output", "yolo")
    (tmp_path / "yolo/labels/all/a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.9\n")
    assert "lost: polygons (written as their boxes): 1" in run("yolo", "--to", "coco", "--output", "a")
    assert "nothing is lost" in run("yolo", "--to", "yolo", "--output", "b")
    assert (tmp_path / "b/labels/train/a.txt").read_text() == "0 0.1 0.1 0.5 0.1 0.5 0.9\n"


def test_a_box_over_the_edge_is_not_clipped_but_told(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(30, 15, 20, 6), thing(20, 24, 20, 6, id=2)])
    out = run("in", "--to", "yolo", "--output", "out")
    assert (tmp_path / "out/labels/all/a.txt").read_text().startswith("0 1.0 0.6 0.5 0.2\n")
    assert "note: boxes over the edge of their image, not clipped" in out
    assert out.endswith(": 1\n")


def test_difficult_is_written_to_coco_only_where_it_is_known(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "plain", "train")
    shutil.copytree(tmp_path / "plain", tmp_path / "marked")
    path = tmp_path / "marked/Annotations/000000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    run("plain", "--to", "coco", "--output", "a")
    run("marked", "--to", "coco", "--output", "b")
    assert "difficult" not in read(tmp_path / "a", "train")["annotations"][0]
    assert [record["difficult"] for record in read(tmp_path / "b", "train")["annotations"]].count(1) == 1


def test_the_account_is_printed_and_kept(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4, iscrowd=1)])
    out = run("in", "--to", "yolo", "--output", "out")
    kept = json.loads((tmp_path / "out/conversion.json").read_text())
    assert out.splitlines()[1].split() == ["all", "1", "1", "1"]
    assert kept["splits"] == [{"split": "all", "images": 1, "objects": 1, "classes": 1}]
    assert [f"lost: {what}: {count}" for what, count in kept["lost"].items()] == out.splitlines()[2:]
    assert kept["lost"]["crowd flags"] == 1


# Several sets.


def test_categories_keep_their_ids_where_splits_agree(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    content = json.loads((tmp_path / "in/instances.json").read_text())
    (tmp_path / "in/instances.json").rename(tmp_path / "in/instances_train.json")
    content["categories"] = [{"id": 2, "name": "dog", "supercategory": "animal"}]
    content["annotations"] = []
    (tmp_path / "in/instances_val.json").write_text(json.dumps(content))
    run("in", "--to", "coco", "--output", "out")
    written = [read(tmp_path / "out", split)["categories"] for split in ("train", "val")]
    assert [[record["id"] for record in categories] for categories in written] == [[2, 3], [2, 3]]
    assert written[1][0] == {"id": 2, "name": "dog", "supercategory": "animal"}


def test_categories_are_numbered_anew_where_splits_contradict_each_other(run: Run, tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    content = json.loads((tmp_path / "in/instances.json").read_text())
    (tmp_path / "in/instances.json").rename(tmp_path / "in/instances_train.json")
    content["categories"] = [{"id": 3, "name": "dog"}]
    (tmp_path / "in/instances_val.json").write_text(json.dumps(content))
    out = run("in", "--to", "coco", "--output", "out")
    assert "lost: category ids: 2" in out
    val = read(tmp_path / "out", "val")
    assert [(record["id"], record["name"]) for record in val["categories"]] == [(1, "cat"), (2, "dog")]
    assert val["annotations"][0]["category_id"] == 2


def test_the_sets_of_a_configuration_are_joined(run: Run, tmp_path: Path) -> None:
    write_voc(SHAPES, tmp_path / "voc", "train")
    write_coco(SHAPES, tmp_path / "coco")
    voc = {"format": "voc", "root": "voc", "split": "train"}
    coco = {"format": "coco", "images": "coco/images", "annotations": "coco/annotations.json"}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump({"data": {"train": [voc, coco], "val": [voc]}}))
    run("--config", "sets.yaml", "--to", "coco", "--output", "out")
    train, val = (coco_of(tmp_path / "out", split) for split in ("train", "val"))
    assert [len(train), len(val)] == [12, 6]
    assert train.annotations.class_names == val.annotations.class_names
    first, second = train.annotations.of_image(0), train.annotations.of_image(6)
    assert (train.annotations.labels[first] == train.annotations.labels[second]).all()
    assert json.loads((tmp_path / "out/names.json").read_text())["train/000000_2.png"] == "000000.png"


# What is refused.


def test_faults_are_told_and_nothing_is_written(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, float("nan"), 4) | {"bbox": [1, 2]}, thing(1, 2, 3, 4, category_id=9)])
    lines = refusal("in", "--to", "voc", "--output", "out")
    assert "annotations[0]" in lines[0]
    assert "category_id 9" in lines[1]
    assert lines[2] == "error: 2 faults stop the conversion; run check_dataset.py --fix and convert what it writes"
    assert not (tmp_path / "out").exists()


def test_ten_faults_are_told_and_all_are_counted(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4, image_id=number) for number in range(100, 112)])
    lines = refusal("in", "--to", "coco", "--output", "out")
    assert len(lines) == 11
    assert "12 faults stop the conversion; 2 of them are not shown" in lines[-1]


def test_a_missing_image_is_told(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    (tmp_path / "in/images/a.png").unlink()
    assert "a.png: no such image file" in refusal("in", "--to", "coco", "--output", "out")[0]


def test_the_image_without_which_a_yolo_box_has_no_size_is_told_first(
    run: Run, refusal: Callable[..., list[str]], tmp_path: Path
) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    run("in", "--to", "yolo", "--output", "yolo")
    (tmp_path / "yolo/images/all/a.png").write_bytes(b"")
    assert "a.png: the file is empty" in refusal("yolo", "--to", "coco", "--output", "out")[0]


def test_an_image_of_another_size_than_its_boxes_is_told(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)], width=80, height=60)
    lines = refusal("in", "--to", "yolo", "--output", "out")
    assert "a.png: the image is 40 x 30, but its annotation says 80 x 60" in lines[0]


def test_a_class_name_that_xml_cannot_hold_is_told(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    path = tmp_path / "in/instances.json"
    path.write_text(path.read_text().replace('"cat"', '"a\\u0000b"'))
    assert r"'a\x00b'" in refusal("in", "--to", "voc", "--output", "out")[0]
    assert not (tmp_path / "out").exists()


def test_drawn_shapes_cannot_be_converted(refusal: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "shapes.yaml").write_text("data: {train: [{format: shapes, images: 3}]}\n")
    assert "make_shapes.py" in refusal("--config", "shapes.yaml", "--to", "voc", "--output", "out")[0]


@pytest.mark.parametrize("output", ["in", "in/out", "full"])
def test_what_is_there_is_not_written_to(refusal: Callable[..., list[str]], tmp_path: Path, output: str) -> None:
    make_coco(tmp_path / "in", [thing(1, 2, 3, 4)])
    make_coco(tmp_path / "full", [])
    assert "choose another --output" in refusal("in", "--to", "voc", "--output", output)[0]


@pytest.mark.parametrize("argv", [[], ["in", "--config", "sets.yaml"]])
def test_there_is_one_source(refusal: Callable[..., list[str]], argv: list[str]) -> None:
    assert "give either FOLDER or --config" in refusal(*argv, "--to", "voc", "--output", "out")[0]
