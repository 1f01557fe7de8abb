"""Names that mean harm: of files, classes and images. They stay names, wherever they are written to."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector.cli import evaluate, visualize
from detector.config.load import dump_config
from detector.data.coco import open_coco
from detector.data.dataset import FileDataset
from detector.data.loader import BadSample
from detector.data.voc import open_voc
from detector.engine.bad_samples import BadSamples
from detector.errors import DatasetError
from detector.evaluation.score import format_metrics
from detector.models import resnet
from detector.structures import Detections
from detector.visualization.draw import draw_detections
from detector.weights.own_file import WeightsInfo, save_weights
from tests.reliability.commands import Outcome, run
from tests.reliability.runs import NARROW
from tests.tiny import tiny_config, tiny_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="names and links as POSIX has them")

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
# Names of files that a file system takes.
ODD_NAMES = (
    f"{ESCAPE}.png", "a\nerror: forged.png", "-rf.png", ".hidden.png", "..png", "... .png", "a;touch it_ran;.png",
    "$(touch it_ran).png",
    "`touch it_ran`.png", "%s%n.png", "<script>alert(1)</script>.png".replace("/", "∕"), "&amp;.png", "é ü.png",
    "\u202egnp.exe.png",
    "a b.png", " .png", "CON.png", "a\\b.png", "~.png", "*.png", "?.png", "x" * 240 + ".png", "𝕏.png", "a\tb.png",
    "\x7f.png",
)  # fmt: skip
LEAVING = (
    "../x.png", "a/../../x.png", "a/../../../../../../etc/passwd", "/etc/passwd", "//etc/passwd", "..", "../",
    "a/..\\..\\x.png",
    "\\etc\\passwd", "C:\\x.png", "c:x.png", "..\\x.png", "a\0.png", "../../proc/self/environ",
)  # fmt: skip
HOSTILE_CLASSES = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>", "{{ 7 * 7 }}", "{% raw %}",
    "$\\frac{1}{0}$",
    "$x", "&lt;", "javascript:alert(1)", "x" * 5000, "\u202eabc", "日本語", "a'b\"c`d", "--", "]]>", "%s%d%n",
)  # fmt: skip


def names_within(folder: Path) -> set[str]:
    """All files and links of a folder, links not followed."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}


def no_commands(outcome: Outcome) -> None:
    """Nothing that reaches the terminal is a command to it, and no line is forged."""
    for text in (outcome.out, outcome.err):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), ascii(text)
    assert not [line for line in outcome.err.splitlines() if line.startswith("error: forged")]


def coco_set(folder: Path, names: Sequence[str], classes: Sequence[str] = ("cat",), write: bool = True) -> Path:
    """A set of small images of those names in ``folder/images``, each with an object of each class."""
    images, annotations = [], []
    for number, name in enumerate(names):
        path = folder / "images" / name
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (48, 32), (9, 99, 200)).save(path, "PNG")
        images.append({"id": number, "file_name": name, "height": 32, "width": 48})
        for label in range(len(classes)):
            annotations.append({"image_id": number, "category_id": label, "bbox": [4, 4, 20 + label % 9, 20]})
    categories = [{"id": label, "name": name} for label, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "a.json"


def configuration(folder: Path) -> Path:
    """One whose sets are that set."""
    source = f"[{{format: coco, images: {folder}/images, annotations: {folder}/a.json}}]"
    path = folder / "config.yaml"
    path.write_text(f"data: {{train: {source}, val: {source}, workers: 0}}\ndevice: cpu\n")
    return path


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of very few channels, alone in a folder."""
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)
    names = tuple(f"class {number}" for number in range(6))
    path = tmp_path / "run" / "model.safetensors"
    save_weights(path, tiny_model().state_dict(), WeightsInfo(dump_config(tiny_config()), names, tuple(range(6)), 1))
    return path


# Into the images folder and out of it


@pytest.mark.parametrize("name", LEAVING)
def test_a_file_name_that_leaves_the_images_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "images/a").mkdir(parents=True)
    Image.new("RGB", (48, 32)).save(tmp_path / "x.png")
    annotations = coco_set(tmp_path, [name], write=False)
    with pytest.raises(DatasetError, match="leaves the images folder") as caught:
        open_coco(tmp_path / "images", annotations, None, False, 10**6)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "..", ".", "..\\x"])
def test_a_listed_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text(name + "\n")
    with pytest.raises(DatasetError, match="must be the name of an image without its folder"):
        open_voc(tmp_path, "train", None, False, 10**6)


def test_images_of_odd_names_are_read(tmp_path: Path) -> None:
    dataset = open_coco(tmp_path / "images", coco_set(tmp_path, ODD_NAMES), None, False, 10**6)
    assert {dataset[index].image.shape for index in range(len(ODD_NAMES))} == {(32, 48, 3)}


def test_the_same_file_by_another_path_is_told(tmp_path: Path) -> None:
    annotations = coco_set(tmp_path, ["b/a.png", "b//./a.png"])
    with pytest.raises(DatasetError, match=r"images\[1\].*is also that of images\[0\]"):
        open_coco(tmp_path / "images", annotations, None, False, 10**6)


def linked_set(tmp_path: Path, kind: str) -> FileDataset:
    """A set whose image lies elsewhere, by a link of that kind."""
    coco_set(tmp_path / "elsewhere", ["a.png"])
    annotations = coco_set(tmp_path, ["a.png"], write=False)
    if kind == "folder":
        (tmp_path / "images").symlink_to(tmp_path / "elsewhere/images")
    else:
        (tmp_path / "images").mkdir()
        (tmp_path / "images/a.png").symlink_to(tmp_path / "elsewhere/images/a.png")
    return open_coco(tmp_path / "images", annotations, None, False, 10**6)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_images_behind_links_are_read(tmp_path: Path, kind: str) -> None:
    assert linked_set(tmp_path, kind)[0].image.shape == (32, 48, 3)


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "\0", "\x9b2J", "\ud800"])
def test_a_class_whose_name_is_no_text_is_refused(tmp_path: Path, name: str) -> None:
    annotations = coco_set(tmp_path, ["a.png"], [name])
    with pytest.raises(DatasetError, match=r"categories\[0\]: name ") as caught:
        open_coco(tmp_path / "images", annotations, None, False, 10**6)
    assert str(caught.value).isprintable()


# Out of names of files: names of what is written


def test_pictures_of_a_data_set_stay_in_their_folder(tmp_path: Path) -> None:
    coco_set(tmp_path, ODD_NAMES)
    before = names_within(tmp_path)
    config = configuration(tmp_path)
    outcome = run(visualize.main, "--config", config, "--count", "100", "--output", tmp_path / "look")
    assert outcome.code == 0, outcome.err
    no_commands(outcome)
    written = names_within(tmp_path) - before - {"config.yaml"}
    assert len(written) == len(ODD_NAMES)
    assert all(re.fullmatch(r"look/[\w.-]+\.jpg", name) for name in written)


def test_pictures_of_images_stay_in_their_folder(tmp_path: Path, weights: Path) -> None:
    coco_set(tmp_path, ODD_NAMES)
    before = names_within(tmp_path)
    output = tmp_path / "look"
    outcome = run(visualize.main, weights, tmp_path / "images", "--output", output, "--device", "cpu")
    assert outcome.code == 0, outcome.err
    no_commands(outcome)
    written = names_within(tmp_path) - before
    assert len(written) == len(ODD_NAMES) + 1
    assert all(re.fullmatch(r"look/[\w.-]+\.(jpg|json)", name) for name in written)
    known = {record["image_id"] for record in json.loads((output / "detections.json").read_text())}
    assert known <= {str(tmp_path / "images" / name) for name in ODD_NAMES}


def test_images_that_cannot_be_read_are_told_without_commands(tmp_path: Path, weights: Path) -> None:
    for name in ODD_NAMES:
        path = tmp_path / "images" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    outcome = run(visualize.main, weights, tmp_path / "images", "--output", tmp_path / "look", "--device", "cpu")
    assert outcome.code == 2
    assert len(outcome.errors) == len(ODD_NAMES)
    no_commands(outcome)


def test_the_list_of_bad_samples_has_a_line_for_each(tmp_path: Path) -> None:
    listed = BadSamples(tmp_path / "bad_samples.jsonl", 1000, 1.0)
    listed.note([BadSample(f"images/{name}", f"{name!a}: is damaged") for name in ODD_NAMES])
    lines = (tmp_path / "bad_samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines] == [f"images/{name}" for name in ODD_NAMES]
    assert all(line.isprintable() for line in lines)
    assert names_within(tmp_path) == {"bad_samples.jsonl"}


# Through links that somebody has put where something will be written


def planted(output: Path, name: str, victim: Path) -> None:
    """A link that leads from the output to a file of somebody else."""
    victim.write_text("precious")
    output.mkdir(parents=True, exist_ok=True)
    (output / name).symlink_to(victim)


def test_a_link_among_the_pictures_of_a_data_set_leads_nowhere(tmp_path: Path) -> None:
    coco_set(tmp_path, ["a.png"])
    planted(tmp_path / "look", "000000-a.jpg", tmp_path / "victim")
    outcome = run(visualize.main, "--config", configuration(tmp_path), "--output", tmp_path / "look")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "victim").read_text() == "precious"
    with Image.open(tmp_path / "look/000000-a.jpg") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("name", ["a.jpg", "detections.json"])
def test_a_link_among_the_pictures_of_images_leads_nowhere(tmp_path: Path, weights: Path, name: str) -> None:
    coco_set(tmp_path, ["a.png"])
    planted(tmp_path / "look", name, tmp_path / "victim")
    argv = (weights, tmp_path / "images/a.png", "--output", tmp_path / "look", "--device", "cpu")
    outcome = run(visualize.main, *argv)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "look" / name).is_symlink()


@pytest.mark.parametrize("name", ["metrics.json", "detections.json", "analysis.json", "report.html"])
def test_a_link_in_the_folder_of_an_evaluation_leads_nowhere(tmp_path: Path, name: str) -> None:
    truth = coco_set(tmp_path, ["a.png"])
    planted(tmp_path / "out", name, tmp_path / "victim")
    outcome = run(evaluate.main, *scoring(truth, tmp_path))
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_link_in_place_of_the_list_of_bad_samples_leads_nowhere(tmp_path: Path) -> None:
    planted(tmp_path / "run", "bad_samples.jsonl", tmp_path / "victim")
    BadSamples(tmp_path / "run/bad_samples.jsonl", 10, 1.0).note([BadSample("a.png", "a.png: is damaged")])
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_folder_behind_a_link_can_be_written_to(tmp_path: Path) -> None:
    coco_set(tmp_path, ["a.png"])
    (tmp_path / "disk").mkdir()
    (tmp_path / "look").symlink_to(tmp_path / "disk")
    assert run(visualize.main, "--config", configuration(tmp_path), "--output", tmp_path / "look").code == 0
    assert names_within(tmp_path / "disk") == {"000000-a.jpg"}


# On the terminal


@pytest.mark.parametrize("part", ["folder", "file name", "class", "id", "key"])
def test_no_command_reaches_the_terminal_by_an_error(tmp_path: Path, part: str) -> None:
    folder = tmp_path / (ESCAPE if part == "folder" else "plain")
    folder.mkdir()
    path = coco_set(folder, ["a.png"])
    content: dict[str, Any] = json.loads(path.read_text())
    if part == "file name":
        content["images"][0]["file_name"] = f"../{ESCAPE}"
    elif part == "class":
        content["categories"][0]["name"] = ESCAPE
    elif part == "id":
        content["annotations"][0]["image_id"] = ESCAPE
    elif part == "key":
        content["annotations"][0] = {ESCAPE: 1}
    else:
        content["annotations"][0]["bbox"] = 5
    path.write_text(json.dumps(content))
    outcome = run(evaluate.main, *scoring(path, tmp_path, write=False))
    no_commands(outcome)
    source = f"data.val=[{{format: coco, images: {folder}/images, annotations: {json.dumps(str(path))}}}]"
    config = tmp_path / "config.yaml"
    config.write_text("device: cpu\n")
    outcome = run(visualize.main, "--config", config, source, "--output", tmp_path / "look")
    assert outcome.code == 2
    no_commands(outcome)


@pytest.mark.parametrize("name", [f"{ESCAPE}.yaml", "a\nerror: forged.yaml"])
@pytest.mark.parametrize("content", [None, "seed: x", "seed: [", "a: 1\na: 2", "base: nowhere.yaml", "unknown: 1"])
def test_no_command_reaches_the_terminal_by_the_name_of_a_configuration(
    tmp_path: Path, name: str, content: str | None
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    outcome = run(visualize.main, "--config", tmp_path / name, "--output", tmp_path / "look")
    assert outcome.code == 2
    no_commands(outcome)


def test_no_command_reaches_the_terminal_by_an_argument(tmp_path: Path) -> None:
    for argv in (
        [ESCAPE],
        [f"--{ESCAPE}"],
        ["--config", ESCAPE, ESCAPE],
        ["w.safetensors", f"{ESCAPE}://x"],
        ["w", ESCAPE],
    ):
        outcome = run(visualize.main, *argv)
        assert outcome.code == 2
        no_commands(outcome)


def test_no_command_reaches_the_terminal_by_a_table(tmp_path: Path) -> None:
    metrics = {"images": 1, "detections": 0, "per_class": {ESCAPE: {"objects": 1}}}
    assert "\x1b" not in format_metrics(metrics)


# In pictures and pages


def scoring(truth: Path, folder: Path, write: bool = True) -> list[object]:
    """The arguments that score detections which are all right."""
    if write:
        records = [item | {"score": 0.9} for item in json.loads(truth.read_text())["annotations"]]
        (folder / "found.json").write_text(json.dumps(records))
    else:
        (folder / "found.json").write_text("[]")
    return ["--ground-truth", truth, "--detections", folder / "found.json", "--output", folder / "out"]


def test_names_of_classes_are_no_markup_in_the_report(tmp_path: Path) -> None:
    truth = coco_set(tmp_path, ["a.png", "b.png"], HOSTILE_CLASSES)
    outcome = run(evaluate.main, *scoring(truth, tmp_path))
    assert outcome.code == 0, outcome.err
    no_commands(Outcome(0, outcome.out.replace("\u202e", ""), outcome.err.replace("\u202e", "")))
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "</style><b>" not in page
    assert page.count("<script") == page.count("</script>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert len(page) < 5_000_000


def test_ids_of_images_are_no_markup_in_the_report(tmp_path: Path) -> None:
    truth = coco_set(tmp_path, ["a.png"])
    text = truth.read_text().replace('"id": 0, "file_name"', '"id": "<script>alert(2)</script>", "file_name"')
    truth.write_text(text.replace('"image_id": 0', '"image_id": "<script>alert(2)</script>"'))
    (tmp_path / "found.json").write_text("[]")
    outcome = run(evaluate.main, *scoring(truth, tmp_path, write=False))
    assert outcome.code == 0, outcome.err
    assert "<script>alert(2)" not in (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*HOSTILE_CLASSES, "\n\n\n", "\x1b", "\0", "\ud800", ""])
def test_any_name_can_be_drawn(name: str) -> None:
    found = Detections(torch.tensor([[4.0, 4, 40, 30]]), torch.tensor([0.9]), torch.tensor([0]))
    drawn = draw_detections(np.zeros((32, 48, 3), dtype=np.uint8), found, [name])
    assert drawn.max() > 0


def test_nothing_was_run(tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [lambda: coco_set(tmp_path, ODD_NAMES), lambda: configuration(tmp_path)]
    for call in calls:
        call()
    run(visualize.main, "--config", tmp_path / "config.yaml", "--count", "100", "--output", tmp_path / "look")
    assert not [name for name in names_within(tmp_path) if os.path.basename(name) == "it_ran"]
    assert not Path("it_ran").exists()
