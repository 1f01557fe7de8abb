"""Wrong configurations, data, images, weights and flags: each is told in a line, with what to do, and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from detector.cli import evaluate, train, visualize
from detector.data.export import write_coco, write_voc
from detector.data.shapes import ShapesDataset
from detector.structures import Size
from tests.tiny import write_tiny

Command = Callable[[Sequence[str]], int]
MAX_LINE = 400


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all is well: tiny.yaml, coco/, voc/ (12 images each), good.safetensors and photo.png."""
    folder = tmp_path_factory.mktemp("world")
    write_tiny(folder)
    shapes = ShapesDataset(12, 0, Size(64, 80), hard=False)
    write_coco(shapes, folder / "coco")
    write_voc(shapes, folder / "voc", "train")
    Image.fromarray(shapes[0].image).save(folder / "photo.png")
    quick = ["training.iterations=1", "training.evaluate_every=0", "device=cpu"]
    assert train.main([str(folder / "tiny.yaml"), *quick, "--output", str(folder / "run")]) == 0
    shutil.copy(folder / "run/model_final.safetensors", folder / "good.safetensors")
    return folder


@pytest.fixture
def refused(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs a command that must fail as a user's mistake does, and looks for words in what it says.

    ``{world}`` and ``{here}`` in arguments and words stand for the two folders.
    """

    def check(main: Command, argv: Sequence[str], *words: str) -> None:
        places = {"{world}": str(world), "{here}": str(tmp_path)}
        code = main([_filled(text, places) for text in argv])
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 2, err
        assert errors
        assert max(map(len, errors)) <= MAX_LINE
        assert "Traceback" not in out + err
        for word in words:
            assert _filled(word, places) in "\n".join(errors)

    return check


def _filled(text: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        text = text.replace(name, path)
    return text


Refused = Callable[..., None]
COCO = "data.train=[{format: coco, images: {here}/coco/images, annotations: {here}/coco/annotations.json}]"
VOC = "data.train=[{format: voc, root: {here}/voc, split: train}]"


# Configurations


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("traning: {iterations: 5}", ["bad.yaml:2: traning: unknown key; did you mean training?"]),
        ("model:\n  rpn: {nms_uio: 0.7}", ["bad.yaml:3: model.rpn.nms_uio: unknown key; did you mean nms_iou?"]),
        ("depth: 18", ["bad.yaml:2: depth: unknown key; did you mean model.backbone.depth?"]),
        ("training: {batch_size: four}", ["bad.yaml:2: training.batch_size: input should be a valid integer", "four"]),
        ("training: {learning_rate: -1}", ["bad.yaml:2: training.learning_rate: input should be greater than 0"]),
        ("data: {group_by_aspect_ratio: no}", ["bad.yaml:2: data.group_by_aspect_ratio: ", "valid boolean", "no"]),
        ("seed: 1\nseed: 2", ["bad.yaml:3: the key 'seed' is given twice (first at ", "bad.yaml:2)"]),
        ("seed:\n\t1", ["bad.yaml:3: not valid YAML"]),
        ("seed: !!python/object/apply:os.system [ls]", ["bad.yaml:2: the tag ", "is not allowed"]),
        ("data: &a {train: [*a]}", ["bad.yaml:2: too large or too deeply nested"]),
        ("data: {train: []}", ["data.train: lists no data set"]),
        ("data: {val: []}", ["data.val: lists no data set", "training.evaluate_every=0"]),
        ("data: {train: [{format: yolo, images: a}]}", ["bad.yaml:2: data.train.0: unknown format 'yolo'; use coco"]),
        ("data: {classes: [cat, dog]}", ["data.classes: the shapes set has the classes circle, ", "'cat, dog'"]),
        ("data: {augmentations: [{name: Blurr}]}", ["data.augmentations.0.name", "'Blurr'; did you mean Blur?"]),
        (
            "data: {augmentations: [{name: Blur, arguments: {limit: 3}}]}",
            ["data.augmentations.0.arguments: Blur has no argument 'limit'; did you mean blur_limit?"],
        ),
        ("data: {augmentations: [{name: Normalize}]}", ["data.augmentations"]),
        ("training: {micro_batch_size: 3}", ["bad.yaml", "training: micro_batch_size 3 does not divide batch_size 2"]),
        ("model: {weights: nowhere.safetensors}", ["nowhere.safetensors: no such weights file"]),
        ("model: {weights: torchvision:ResNet19}", ["ResNet19"]),
        ("data: {train: [{format: shapes, images: 2}, {format: shapes, images: 2}]}", ["image id 0 is in two of"]),
    ],
)
def test_a_wrong_configuration_is_told(
    tmp_path: Path, refused: Refused, world: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(f"base: {world}/tiny.yaml\n{text}\n", encoding="utf-8")
    refused(train.main, ["{here}/bad.yaml", "--output", "{here}/run"], *words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n", ["bad.yaml: not UTF-8 text"]),
        (b"base: bad.yaml", ["bad.yaml: base leads back to itself: bad.yaml -> bad.yaml"]),
        (b"base: nowhere.yaml", ["bad.yaml:1: base: no such file: ", "nowhere.yaml"]),
        (b"- a\n- b", ["bad.yaml: must hold 'key: value' lines"]),
        (b"", ["data.train: lists no data set"]),
    ],
)
def test_a_file_that_is_no_configuration_is_told(
    tmp_path: Path, refused: Refused, content: bytes, words: list[str]
) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    refused(train.main, ["{here}/bad.yaml"], *words)


def test_all_problems_are_told_at_once(tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text(f"base: {world}/tiny.yaml\nseed: x\ntraning: {{}}\ndevice: gpu\n")
    assert train.main([str(tmp_path / "bad.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["seed", "traning", "device"]
    assert all(line.startswith("error: ") for line in lines)


def test_a_run_that_could_not_begin_leaves_no_weights(tmp_path: Path, refused: Refused) -> None:
    refused(train.main, ["{world}/tiny.yaml", "data.classes=[cat]", "--output", "{here}/run"], "data.classes")
    assert not list(tmp_path.rglob("*.safetensors"))


# Flags


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["give a CONFIG", "--help"]),
        (["{world}/tiny.yml"], ["tiny.yml: no such file; did you mean {world}/tiny.yaml?"]),
        (["{world}"], ["{world}: this is a folder; name a YAML file"]),
        (["{world}/tiny.yaml", "seed"], ["override 'seed': write it as key.path=value"]),
        (
            ["{world}/tiny.yaml", "training.batch_sise=4"],
            ["training.batch_sise: unknown key; did you mean batch_size?"],
        ),
        (["{world}/tiny.yaml", "training.batch_size=0"], ["override 'training.batch_size=0'", "training.batch_size"]),
        (["{world}/tiny.yaml", "--batch-size", "4"], ["unrecognized arguments: --batch-size", "--help"]),
        (["{world}/tiny.yaml", "--overfit", "many"], ["argument --overfit: invalid int value: 'many'"]),
        (["{world}/tiny.yaml", "--overfit", "0"], ["--overfit needs a number of images of at least 1"]),
        (["{world}/tiny.yaml", "--overfit", "500"], ["500 images with objects are wanted, the data set has"]),
        (["{world}/tiny.yaml", "--resume", "{here}/nowhere"], ["{here}/nowhere: no such checkpoint"]),
        (["{world}/tiny.yaml", "--resume", "{world}"], ["{world}: is incomplete (manifest.json is missing)"]),
        (["{world}/tiny.yaml", "--weights", "{here}/no.pth"], ["{here}/no.pth: no such weights file"]),
        (["{world}/tiny.yaml", "--weights", "{here}/a #2.pth"], ["{here}/a #2.pth: no such weights file"]),
        (["{world}/tiny.yaml", "--weights", "5"], ["5: no such weights file"]),
        (["{world}/tiny.yaml", "--output", "{world}"], ["{world}: holds files but no run"]),
    ],
)
def test_a_wrong_flag_of_train_is_told(tmp_path: Path, refused: Refused, argv: list[str], words: list[str]) -> None:
    output = [] if "--output" in argv else ["--output", "{here}/run"]
    refused(train.main, [*argv, *output], *words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["give either WEIGHTS, or --ground-truth and --detections"]),
        (["--ground-truth", "{world}/coco/annotations.json"], ["--ground-truth and --detections belong together"]),
        (["--detections", "{here}/a.json"], ["--ground-truth and --detections belong together"]),
        (
            ["{world}/good.safetensors", "--ground-truth", "a", "--detections", "b"],
            ["give either WEIGHTS, or --ground-truth and --detections"],
        ),
        (["{world}/good.safetensors", "--split", "test"], ["argument --split: invalid choice: 'test'"]),
        (["{world}/good.safetensors", "--metric", "map"], ["argument --metric: invalid choice: 'map'"]),
        (["{world}/good.safetensors", "--config", "{here}/no.yaml"], ["{here}/no.yaml: no such file"]),
        (["{world}/good.safetensors", "evaluation.proposal=3"], ["evaluation.proposal: unknown key", "proposals?"]),
        (["{world}/good.safetensors", "data.val=[]"], ["data.val: lists no data set"]),
        (["{world}/good.safetensors", "model.backbone.depth=34"], ["good.safetensors: does not fit the model"]),
    ],
)
def test_a_wrong_flag_of_evaluate_is_told(refused: Refused, argv: list[str], words: list[str]) -> None:
    refused(evaluate.main, argv, *words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ["give a weights file and at least one image"]),
        (["{world}/good.safetensors"], ["give a weights file and at least one image"]),
        (["{world}/good.safetensors", "{here}/no.jpg"], ["{here}/no.jpg: no such image"]),
        (["{world}/good.safetensors", "{here}"], ["{here}: no such image"]),
        (["{world}/good.safetensors", "{here}/*.jpg"], ["{here}/*.jpg: no such image"]),
        (["{world}/good.safetensors", "https://example.org/a.jpg"], ["only local files are read; download it first"]),
        (
            ["{world}/good.safetensors", "{world}/photo.png", "--score-threshold", "50"],
            ["--score-threshold must be in 0..1, got 50"],
        ),
        (
            ["{world}/good.safetensors", "{world}/photo.png", "--score-threshold", "nan"],
            ["--score-threshold must be in 0..1, got nan"],
        ),
        (["{world}/good.safetensors", "{world}/photo.png", "--device", "gpu"], ["device: 'gpu' is not one of auto"]),
        (["{world}/good.safetensors", "{world}/photo.png", "--device", "meta"], ["device: 'meta' is not one of auto"]),
        (["{world}/good.safetensors", "{world}/photo.png", "--augmented"], ["--augmented and --weights belong to"]),
        (["--config", "{world}/tiny.yaml"], ["--config needs --output, a folder for the pictures"]),
        (
            ["--config", "{world}/tiny.yaml", "--output", "{here}/look", "--count", "0"],
            ["--count must be at least 1, got 0"],
        ),
        (
            ["--config", "{world}/tiny.yaml", "--output", "{here}/look", "--count", "few"],
            ["argument --count: invalid int value: 'few'"],
        ),
        (
            ["--config", "{world}/tiny.yaml", "--output", "{here}/look", "sede=3"],
            ["sede: unknown key; did you mean seed?"],
        ),
        (["--config", "{world}/tiny.yaml", "--output", "{here}/look", "photo.png"], ["override 'photo.png'"]),
    ],
)
def test_a_wrong_flag_of_visualize_is_told(refused: Refused, argv: list[str], words: list[str]) -> None:
    refused(visualize.main, argv, *words)


# Data sets


def change_coco(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "coco/annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("annotations"), ["annotations.json: annotations must be a list; it is missing"]),
        (lambda content: content["images"].clear(), ["annotations.json: images is empty"]),
        (lambda content: content["annotations"].clear(), ["data.train: no object of any class in 12 images"]),
        (
            lambda content: content["annotations"][2].update(bbox=[1, 2, 3]),
            ["annotations.json: annotations[2] (id 3): bbox must be four numbers"],
        ),
        (
            lambda content: content["annotations"][2].update(bbox=[50, 40, -20, 5]),
            ["annotations[2] (id 3): the box is reversed", "data.on_bad_box=drop"],
        ),
        (
            lambda content: content["annotations"][2].update(bbox=[500, 400, 20, 5]),
            ["annotations[2] (id 3): the box [500, 400, 20, 5] lies outside the image of 80 x 64 pixels"],
        ),
        (
            lambda content: content["annotations"][2].update(image_id=99),
            ["annotations[2] (id 3): image_id 99 is not among the images"],
        ),
        (
            lambda content: content["annotations"][2].update(category_id=99),
            ["annotations[2] (id 3): category_id 99 is not among the categories"],
        ),
        (lambda content: content["images"][1].update(id=0), ["images[1]: the id 0 is there twice"]),
        (
            lambda content: content["images"][1].update(file_name="../../../etc/passwd"),
            ["images[1]: file_name '../../../etc/passwd' leaves the images folder"],
        ),
        (
            lambda content: content["images"][1].update(file_name="nowhere.png"),
            ["nowhere.png: no such image file; is the images folder the right one?"],
        ),
        (
            lambda content: content["images"][1].update(file_name="a" * 1000 + ".png"),
            ["no such image file"],
        ),
        (
            lambda content: content["images"][0].update(height=1e30),
            ["images[0] (id 0): width and height must be pixels"],
        ),
        (
            lambda content: content["images"][0].update(height=63),
            ["000000.png: the image is 80 x 64, but its annotation says 80 x 63"],
        ),
        (
            lambda content: content["categories"][1].update(name="circle"),
            ["categories[1]: 'circle' (id 2) is there twice"],
        ),
    ],
)
def test_wrong_coco_annotations_are_told(
    tmp_path: Path, world: Path, refused: Refused, change: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    change_coco(tmp_path, change)
    refused(train.main, ["{world}/tiny.yaml", COCO, "--output", "{here}/run"], *words)


def test_annotations_that_are_cut_off_are_told_with_the_line(tmp_path: Path, world: Path, refused: Refused) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    path = tmp_path / "coco/annotations.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1)[:300])
    lines = len(path.read_text().splitlines())
    refused(
        train.main, ["{world}/tiny.yaml", COCO], f"annotations.json:{lines}: not valid JSON", "is the file cut off?"
    )


def test_a_class_that_no_set_has_is_told(tmp_path: Path, world: Path, refused: Refused) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    refused(train.main, ["{world}/tiny.yaml", COCO, "data.classes=[cow]"], "none of the wanted classes ('cow')")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{format: coco, images: no/images, annotations: {world}/coco/annotations.json}", ["no/images: not found"]),
        ("{format: coco, images: {world}, annotations: {here}/no.json}", ["{here}/no.json: not found"]),
        ("{format: coco, images: {world}}", ["data.train.0.annotations: is missing"]),
        ("{format: voc, root: {world}/voc, split: test}", ["test.txt: no such split; there is train"]),
        ("{format: voc, root: {world}/coco, split: train}", ["train.txt: no such split; there is none"]),
        ("{format: voc, root: {world}/tiny.yaml, split: train}", ["tiny.yaml: no such folder"]),
        ("{format: coco, images: {world}/coco/images, annotations: {world}/tiny.yaml}", ["tiny.yaml:1: not"]),
        ("{format: coco, images: {world}/coco/images, annotations: {world}/coco}", ["coco: cannot be read"]),
    ],
)
def test_data_that_are_not_there_are_told(refused: Refused, entry: str, words: list[str]) -> None:
    refused(train.main, ["{world}/tiny.yaml", f"data.train=[{entry}]", "--output", "{here}/run"], *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<annotation>", "<!DOCTYPE annotation><annotation>", ["000000.xml: a DOCTYPE is not allowed"]),
        ("</annotation>", "", ["000000.xml:1: not valid XML"]),
        ("bndbox>", "box>", ["000000.xml: object[0]", "<bndbox> is missing"]),
        ("</xmin>", ",5</xmin>", ["000000.xml: object[0]", "<xmin> must be a number", ",5"]),
        ("</xmin>", "0000</xmin>", ["000000.xml: object[0]", "the box is reversed"]),
        ("<width>80", "<width>81", ["000000.png: the image is 80 x 64, but its annotation says 81 x 64"]),
    ],
)
def test_wrong_voc_annotations_are_told(
    tmp_path: Path, world: Path, refused: Refused, old: str, new: str, words: list[str]
) -> None:
    shutil.copytree(world / "voc", tmp_path / "voc")
    path = tmp_path / "voc/Annotations/000000.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    argv = ["{world}/tiny.yaml", VOC, "training.evaluate_every=0", "--output", "{here}/run"]
    refused(train.main, argv, *words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("000003\n000003\n", ["train.txt:2: '000003' is listed twice (first in line 1)"]),
        ("../000003\n", ["train.txt:1: '../000003' must be the name of an image without its folder"]),
        ("000099\n", ["000099.xml: no such annotation, though the split lists it"]),
        ("", ["train.txt: lists no images"]),
    ],
)
def test_a_wrong_voc_list_is_told(tmp_path: Path, world: Path, refused: Refused, line: str, words: list[str]) -> None:
    shutil.copytree(world / "voc", tmp_path / "voc")
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text(line)
    argv = ["{world}/tiny.yaml", VOC, "training.evaluate_every=0", "--output", "{here}/run"]
    refused(train.main, argv, *words)


# Images


def spoil(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"empty": b"", "html": b"<html>404</html>", "truncated": content[:600]}[kind])


IMAGES = [
    ("empty", "the file is empty"),
    ("html", "not an image that can be read"),
    ("truncated", "the image is truncated"),
]


@pytest.mark.parametrize(("kind", "words"), [*IMAGES, ("missing", "no such image"), ("folder", "no such image")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_spoilt_image_stops_a_training(
    tmp_path: Path, world: Path, refused: Refused, kind: str, words: str, workers: int
) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    spoil(tmp_path / "coco/images/000005.png", kind)
    argv = ["{world}/tiny.yaml", COCO, f"data.workers={workers}", "training.batch_size=4", "--output", "{here}/run"]
    refused(train.main, argv, f"000005.png: {words}")


@pytest.mark.parametrize(("kind", "words"), IMAGES)
def test_a_spoilt_image_stops_an_evaluation(
    tmp_path: Path, world: Path, refused: Refused, kind: str, words: str
) -> None:
    shutil.copytree(world / "coco", tmp_path / "coco")
    spoil(tmp_path / "coco/images/000001.png", kind)
    argv = ["{world}/good.safetensors", COCO, "--split", "train", "--output", "{here}/evaluation"]
    refused(evaluate.main, argv, f"000001.png: {words}")


@pytest.mark.parametrize(("kind", "words"), IMAGES)
def test_a_spoilt_image_does_not_cost_the_others(
    tmp_path: Path, world: Path, refused: Refused, kind: str, words: str
) -> None:
    shutil.copy(world / "photo.png", tmp_path / "bad.png")
    spoil(tmp_path / "bad.png", kind)
    argv = ["{world}/good.safetensors", "{here}/bad.png", "{world}/photo.png", "--output", "{here}/seen"]
    refused(visualize.main, argv, f"{{here}}/bad.png: {words}")
    assert (tmp_path / "seen/photo.jpg").is_file()
    assert not (tmp_path / "seen/bad.jpg").exists()


def test_a_name_with_a_line_break_is_told_in_one_line(
    tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a\nerror: forged.png").write_bytes(b"no image")
    argv = [str(world / "good.safetensors"), str(tmp_path / "a\nerror: forged.png"), "--output", str(tmp_path / "seen")]
    assert visualize.main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_an_image_above_the_limit_is_told(refused: Refused) -> None:
    argv = [
        "{world}/good.safetensors",
        "data.max_image_pixels=100",
        "data.val=[{format: voc, root: {world}/voc, split: train}]",
    ]
    refused(evaluate.main, argv, "000000.png: 80 x 64 is more than the 100 pixels that are allowed")


def test_a_file_that_is_no_video_is_told(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    refused(visualize.main, ["{world}/good.safetensors", "{here}/a.mp4"], "{here}/a.mp4: not a video that can be read")


# Weights


def tampered(
    good: Path, path: Path, tensors: Mapping[str, Any] | None = None, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes good weights with some tensors and metadata replaced; tensors that are None are left out."""
    with safe_open(good, framework="pt") as file:
        facts = {**file.metadata(), **(metadata or {})}
    merged = {**load_file(good), **(tensors or {})}
    save_file({key: value for key, value in merged.items() if value is not None}, path, facts)


FIRST = "backbone.conv1.conv.weight"
BAD_WEIGHTS: dict[str, Callable[[Path, Path], object]] = {
    "missing": lambda good, path: None,
    "folder": lambda good, path: path.mkdir(),
    "empty": lambda good, path: path.touch(),
    "text": lambda good, path: path.write_text("no weights"),
    "cut": lambda good, path: path.write_bytes(good.read_bytes()[:100_000]),
    "unsafe": lambda good, path: torch.save({"model": Path("/")}, path),
    "foreign": lambda good, path: save_file({"a": torch.zeros(3)}, path),
    "without a tensor": lambda good, path: tampered(good, path, {FIRST: None}),
    "of another shape": lambda good, path: tampered(good, path, {FIRST: torch.zeros(64, 3, 5, 5)}),
    "nan": lambda good, path: tampered(good, path, {FIRST: torch.full((64, 3, 7, 7), float("nan"))}),
    "inf": lambda good, path: tampered(good, path, {FIRST: torch.full((64, 3, 7, 7), float("inf"))}),
}
BAD_METADATA: dict[str, dict[str, str]] = {
    "class names cut off": {"class_names": '["circle", '},
    "class names of another kind": {"class_names": "5"},
    "class names that are no text": {"class_names": "[1, 2, 3, 4, 5, 6]"},
    "fewer class names": {"class_names": '["circle", "square"]', "category_ids": "[1, 2]"},
    "fewer ids": {"category_ids": "[1, 2]"},
    "iteration": {"iteration": "many"},
    "threshold": {"score_threshold": "50"},
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_cannot_be_used_are_told(tmp_path: Path, world: Path, refused: Refused, kind: str) -> None:
    BAD_WEIGHTS[kind](world / "good.safetensors", tmp_path / "bad.safetensors")
    refused(evaluate.main, ["{here}/bad.safetensors"], "{here}/bad.safetensors: ")
    refused(visualize.main, ["{here}/bad.safetensors", "{world}/photo.png"], "{here}/bad.safetensors: ")


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_weights_that_no_training_can_start_from_are_told(
    tmp_path: Path, world: Path, refused: Refused, kind: str
) -> None:
    BAD_WEIGHTS[kind](world / "good.safetensors", tmp_path / "bad.safetensors")
    argv = ["{world}/tiny.yaml", "--weights", "{here}/bad.safetensors", "--output", "{here}/run"]
    refused(train.main, argv, "{here}/bad.safetensors: ")


@pytest.mark.parametrize("kind", ["without a tensor", "of another shape", "nan"])
def test_a_wrong_tensor_is_named(tmp_path: Path, world: Path, refused: Refused, kind: str) -> None:
    BAD_WEIGHTS[kind](world / "good.safetensors", tmp_path / "bad.safetensors")
    refused(evaluate.main, ["{here}/bad.safetensors"], FIRST)


@pytest.mark.parametrize("kind", BAD_METADATA)
def test_weights_with_damaged_metadata_are_told(tmp_path: Path, world: Path, refused: Refused, kind: str) -> None:
    tampered(world / "good.safetensors", tmp_path / "bad.safetensors", metadata=BAD_METADATA[kind])
    refused(visualize.main, ["{here}/bad.safetensors", "{world}/photo.png"], "{here}/bad.safetensors: ")


def test_a_wrong_configuration_inside_weights_is_told(tmp_path: Path, world: Path, refused: Refused) -> None:
    tampered(world / "good.safetensors", tmp_path / "bad.safetensors", metadata={"config": "seed: 1\ntraning: {}"})
    refused(
        evaluate.main,
        ["{here}/bad.safetensors"],
        "{here}/bad.safetensors: its configuration:2: traning: unknown key; did you mean training?",
    )


# Files of detections

DETECTION = {"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([{**DETECTION, "bbox": [1, 2, 3]}], "found.json: [0]: bbox must be four numbers"),
        ([DETECTION, {**DETECTION, "score": "high"}], "found.json: [1]: score must be a number, got 'high'"),
        ([{**DETECTION, "image_id": 99}], "found.json: [0]: image_id 99 is not in the ground truth"),
        ([{**DETECTION, "image_id": "0"}], "the ground truth has the same id as another type"),
        ([{**DETECTION, "bbox": [50, 40, 20, -5]}], "has a negative width or height (are these x1, y1, x2, y2?)"),
        ([5], "found.json: [0]: must be an object, got 5"),
        (
            {"annotations": []},
            "found.json: must be a list of detections (COCO results format); is this the ground truth?",
        ),
    ],
)
def test_a_wrong_file_of_detections_is_told(tmp_path: Path, refused: Refused, found: object, words: str) -> None:
    (tmp_path / "found.json").write_text(json.dumps(found))
    argv = ["--ground-truth", "{world}/coco/annotations.json", "--detections", "{here}/found.json"]
    refused(evaluate.main, argv, words)


def test_detections_in_the_place_of_the_ground_truth_are_told(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "found.json").write_text(json.dumps([DETECTION]))
    argv = ["--ground-truth", "{here}/found.json", "--detections", "{here}/found.json"]
    refused(evaluate.main, argv, "found.json: must be an object with images, annotations and categories")


# Runs


def test_a_folder_that_holds_another_run_is_told(tmp_path: Path, world: Path, refused: Refused) -> None:
    argv = [f"{world}/tiny.yaml", "training.evaluate_every=0", "training.iterations=1", "--output", f"{tmp_path}/run"]
    assert train.main(argv) == 0
    refused(train.main, [*argv, "seed=5"], "{here}/run: holds a run with another configuration (seed: 0 there, 5 here)")
    refused(train.main, [*argv, "--resume", "never"], "{here}/run: holds a run already")
