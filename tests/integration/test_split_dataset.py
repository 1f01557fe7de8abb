"""The command split_dataset, as a user runs it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector.cli.split_dataset import main
from detector.config import Config
from detector.config.load import load_config
from detector.data.build import open_split

INFO = {"info": {"year": 2020, "note": "kept"}, "licenses": [{"id": 7, "name": "CC"}]}


def picture(path: Path, seed: int) -> None:
    """A picture that is like no other of another seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def coco(root: Path, split: str = "all", count: int = 20, first_id: int = 1, first_seed: int = 0) -> Path:
    """Images of which each third holds a cat and all a dog, with keys that only the file's owner knows."""
    images, annotations = [], []
    for number in range(count):
        picture(root / split / f"{number:03}.png", first_seed + number)
        image_id = first_id + number
        images.append({"id": image_id, "file_name": f"{number:03}.png", "width": 64, "height": 48, "camera": number})
        for category in (4, 9) if number % 3 == 0 else (9,):
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": [1.5, 2, 20, 30],
                "area": 600.25, "iscrowd": 0, "segmentation": [[1, 2, 3, 4, 5, 6]], "drawn_by": "me",
            })  # fmt: skip
    categories = [{"id": 4, "name": "cat", "supercategory": "animal"}, {"id": 9, "name": "dog"}]
    content = INFO | {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def voc(root: Path, lists: dict[str, list[str]]) -> Path:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(sorted({name for names in lists.values() for name in names})):
        picture(root / "JPEGImages" / f"{name}.png", seed)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>30</ymax></bndbox>"
        xml = f"<annotation><filename>{name}.png</filename><object><name>cat</name>{box}</object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
    for split, names in lists.items():
        (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
    return root


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def file_names(path: Path) -> list[str]:
    return [image["file_name"] for image in read(path)["images"]]


def settings_in(text: str) -> list[list[str]]:
    """The settings that a user is told to paste, line by line."""
    return [shlex.split(line) for line in text.splitlines() if "data.val=" in line]


def configured(settings: list[str]) -> Config:
    """A configuration that says nothing else."""
    Path("empty.yaml").write_text("seed: 0\n", encoding="utf-8")
    return load_config("empty.yaml", settings)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 400
    return lines[0].removeprefix("error: ")


# COCO


def test_each_image_is_in_one_part_and_parts_have_their_size(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    assert main([str(tmp_path / "data"), "--fractions", "0.8", "0.2", "--output", "out"]) == 0
    train, val = (file_names(Path(f"out/instances_{split}.json")) for split in ("train", "val"))
    assert (len(train), len(val)) == (16, 4)
    assert sorted(train + val) == [f"{number:03}.png" for number in range(20)]


def test_records_are_as_they_were(tmp_path: Path) -> None:
    source = read(coco(tmp_path / "data"))
    main([str(tmp_path / "data"), "--fractions", "0.5", "0.5", "--output", "out"])
    parts = [read(Path(f"out/instances_{split}.json")) for split in ("train", "val")]
    for part in parts:
        assert {key: part[key] for key in ("info", "licenses", "categories")} == {
            key: source[key] for key in ("info", "licenses", "categories")
        }
    for key in ("images", "annotations"):
        assert sorted(parts[0][key] + parts[1][key], key=lambda record: record["id"]) == source[key]


def test_nothing_in_the_data_set_changes(tmp_path: Path) -> None:
    coco(tmp_path / "data")
    before = contents(tmp_path / "data")
    main([str(tmp_path / "data"), "--folds", "3", "--output", "out"])
    assert contents(tmp_path / "data") == before


def test_the_settings_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "it's a data set")
    main([str(tmp_path / "it's a data set"), "--fractions", "0.7", "0.2", "0.1", "--output", "out put"])
    first, second = settings_in(capsys.readouterr().out)
    config = configured([*first, "data.classes=[cat, dog]"])
    assert [len(open_split(config, split)) for split in ("train", "val")] == [14, 4]
    assert len(open_split(configured(second), "val")) == 2


def test_every_class_gets_its_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data", count=30)
    main([str(tmp_path / "data"), "--fractions", "0.8", "0.2", "--output", "out"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["cat", "10", "8", "+0.0%", "2", "+0.0%"] in rows
    assert ["dog", "30", "24", "+0.0%", "6", "+0.0%"] in rows
    assert ["objects", "40", "32", "+0.0%", "8", "+0.0%"] in rows


def test_near_duplicates_stay_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco(tmp_path / "data", count=12)
    with Image.open(source.parents[1] / "all/000.png") as image:
        for number in (3, 6, 9):  # each third image holds a cat; now all of these show the same
            darker = Image.fromarray((np.asarray(image) * (1 - number / 50)).astype(np.uint8))
            darker.save(source.parents[1] / f"all/{number:03}.png")
    main([str(tmp_path / "data"), "--fractions", "0.5", "0.5", "--output", "out"])
    trained = {name for name in file_names(Path("out/instances_train.json")) if int(name[:3]) % 3 == 0}
    assert len(trained) in (0, 4)
    log = capsys.readouterr().err
    assert "4 images are the same or nearly the same as others, in 1 group" in log
    assert "cat: not in " in log
    assert "it is in 4 images, of which near-duplicates make 1 group" in log


def test_the_same_seed_gives_the_same_whatever_the_order_of_records(tmp_path: Path) -> None:
    for place, turn in (("a", 1), ("b", -1)):
        path = coco(tmp_path / place)
        content = read(path)
        path.write_text(json.dumps(content | {"images": content["images"][::turn]}), encoding="utf-8")
        main([str(tmp_path / place), "--fractions", "0.6", "0.4", "--seed", "3", "--output", f"out_{place}"])
    one, other = (file_names(Path(f"out_{place}/instances_train.json")) for place in ("a", "b"))
    assert sorted(one) == sorted(other)


def test_each_image_is_in_the_validation_of_one_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data")
    assert main([str(tmp_path / "data"), "--folds", "3", "--output", "out"]) == 0
    halves = [
        {half: file_names(Path(f"out/fold_{fold}/instances_{half}.json")) for half in ("train", "val")}
        for fold in (1, 2, 3)
    ]
    everything = [f"{number:03}.png" for number in range(20)]
    assert sorted(name for fold in halves for name in fold["val"]) == everything
    assert all(sorted(fold["train"] + fold["val"]) == everything for fold in halves)
    pasted = settings_in(capsys.readouterr().out)
    assert len(pasted) == 3
    assert len(open_split(configured(pasted[2]), "train")) == len(halves[2]["train"])


# Several splits


def test_splits_are_joined_and_ids_that_stand_in_two_are_numbered_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "data", "train", 10)
    coco(tmp_path / "data", "val", 6, first_id=8, first_seed=50)
    assert main([str(tmp_path / "data"), "--fractions", "0.5", "0.5", "--output", "out"]) == 0
    parts = [read(Path(f"out/instances_{split}.json")) for split in ("train", "val")]
    images = [image for part in parts for image in part["images"]]
    annotations = [record for part in parts for record in part["annotations"]]
    assert len({image["id"] for image in images}) == 16
    assert len({record["id"] for record in annotations}) == len(annotations) == 16 + 4 + 2
    name_of = {image["id"]: image["file_name"] for image in images}
    with_cat = sorted(name_of[record["image_id"]] for record in annotations if record["category_id"] == 4)
    assert with_cat == [f"train/{number:03}.png" for number in (0, 3, 6, 9)] + ["val/000.png", "val/003.png"]
    config = configured(settings_in(capsys.readouterr().out)[0])
    assert open_split(config, "val")[0].image.shape == (48, 64, 3)


def test_one_file_of_several_can_be_named(tmp_path: Path) -> None:
    coco(tmp_path / "data", "val", 6)
    path = coco(tmp_path / "data", "train", 10)
    assert main([str(path), "--fractions", "0.5", "0.5", "--output", "out"]) == 0
    assert len(file_names(Path("out/instances_train.json"))) == 5


def test_files_that_list_the_same_image_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco(tmp_path / "data")
    path.with_name("instances_more.json").write_bytes(path.read_bytes())
    message = refusal(capsys, tmp_path / "data", "--folds", 2, "--output", "out")
    assert "000.png: is listed in" in message
    assert "name one of these files" in message


def test_categories_that_contradict_each_other_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data", "train", 4)
    path = coco(tmp_path / "data", "val", 4, first_id=100, first_seed=50)
    content = read(path)
    content["categories"][0]["name"] = "horse"
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refusal(capsys, tmp_path / "data", "--folds", 2, "--output", "out")
    assert "'horse' (id 4) is another one in" in message
    assert not Path("out").exists()


def test_the_sets_of_a_configuration_can_be_split(tmp_path: Path) -> None:
    path = coco(tmp_path / "data")
    sets = f'[{{format: coco, images: "{tmp_path / "data/all"}", annotations: "{path}"}}]'
    Path("mine.yaml").write_text(f"data: {{train: {sets}}}\n", encoding="utf-8")
    assert main(["--config", "mine.yaml", "--fractions", "0.5", "0.5", "--output", "out"]) == 0
    assert len(file_names(Path("out/instances_val.json"))) == 10


# VOC and other formats


def test_voc_gets_lists_beside_links(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"n{number}" for number in range(10)]
    voc(tmp_path / "data", {"train": names[:6], "val": names[6:], "trainval": names})
    before = contents(tmp_path / "data")
    assert main([str(tmp_path / "data"), "--fractions", "0.7", "0.3", "--output", "out"]) == 0
    assert contents(tmp_path / "data") == before
    train, val = (Path(f"out/ImageSets/Main/{split}.txt").read_text().split() for split in ("train", "val"))
    assert sorted(train + val) == names
    config = configured(settings_in(capsys.readouterr().out)[0])
    assert [len(open_split(config, split)) for split in ("train", "val")] == [7, 3]


def test_two_folders_of_voc_are_split_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voc(tmp_path / "kit/VOC2007", {"trainval": [f"a{number}" for number in range(4)]})
    voc(tmp_path / "kit/VOC2012", {"trainval": [f"b{number}" for number in range(8)]})
    for path in (tmp_path / "kit/VOC2012/JPEGImages").iterdir():
        picture(path, 100 + int(path.stem[1:]))
    assert main([str(tmp_path / "kit"), "--folds", "2", "--output", "out"]) == 0
    config = configured(settings_in(capsys.readouterr().out)[1])
    ids = [open_split(config, split).annotations.image_ids for split in ("train", "val")]
    assert sorted(str(image_id)[0] for split in ids for image_id in split) == ["a"] * 4 + ["b"] * 8


def test_other_formats_are_to_be_converted_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = voc(tmp_path / "data", {"all": ["a", "b"]})
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*(data / "Annotations").iterdir(), *(data / "JPEGImages").iterdir()]:
        path.rename(flat / path.name)
    assert "convert_dataset.py FOLDER --to coco" in refusal(capsys, flat, "--folds", 2, "--output", "out")


def test_a_data_set_with_faults_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco(tmp_path / "data")
    content = read(path)
    content["annotations"][4]["image_id"] = 999
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refusal(capsys, tmp_path / "data", "--folds", 2, "--output", "out")
    assert "annotations[4]" in message
    assert "check_dataset.py --fix" in message


def test_an_image_that_cannot_be_read_is_told_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data")
    (tmp_path / "data/all/004.png").write_bytes(b"")
    assert main([str(tmp_path / "data"), "--folds", "2", "--output", "out"]) == 0
    assert "1 image that cannot be read" in capsys.readouterr().err


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fractions", "0.8", "0.3"], "--fractions must be two or more parts that sum to 1"),
        (["--fractions", "1"], "--fractions must be two or more parts that sum to 1"),
        (["--fractions", "nan", "0.5"], "--fractions must be two or more parts that sum to 1"),
        (["--folds", "1"], "--folds must be 2..100"),
        (["--folds", "2", "--names", "a", "b"], "--names is for --fractions"),
        (["--fractions", "0.5", "0.5", "--names", "a", "A"], "--names must be 2 different names"),
        (["--fractions", "0.5", "0.5", "--names", "a", "../b"], "--names: '../b' must be letters"),
        (["--fractions", "0.25", "0.25", "0.25", "0.25"], "--names must be 4 different names"),
        (["--folds", "21"], "20 images in 20 groups of alike ones leave none for fold_"),
        (["--fractions", "0.99", "0.01"], "leave none for val; make fewer or larger parts"),
        ([], "one of the arguments --fractions --folds is required"),
    ],
)
def test_what_cannot_work_is_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco(tmp_path / "data")
    assert message in refusal(capsys, tmp_path / "data", *arguments, "--output", "out")


def test_an_output_that_is_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data")
    assert "is there and not empty" in refusal(capsys, tmp_path / "data", "--folds", 2, "--output", tmp_path)


def test_an_output_inside_the_data_set_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "data")
    message = refusal(capsys, tmp_path / "data", "--folds", 2, "--output", tmp_path / "data/new")
    assert "lies in the data set itself" in message


# Real data


def test_overlapping_views_of_blood_cells_stay_together(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(shared / "data/bccd/BCCD"), "--fractions", "0.8", "0.2", "--output", "out"])
    printed = capsys.readouterr()
    assert "24 images are the same or nearly the same as others, in 12 groups" in printed.err
    train = set(Path("out/ImageSets/Main/train.txt").read_text().split())
    assert ("BloodImage_00204" in train) == ("BloodImage_00277" in train)
    rows = [line.split() for line in printed.out.splitlines()]
    assert ["images", "364", "291", "-0.1%", "73", "+0.1%"] in rows
    deviations = [abs(float(row[3][:-1])) for row in rows if row and row[0] in ("RBC", "WBC", "Platelets")]
    assert len(deviations) == 3
    assert max(deviations) < 1
