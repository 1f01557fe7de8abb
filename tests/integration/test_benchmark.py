"""benchmark.py as a user runs it: tables, files, one line for each mistake. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.cli import benchmark, entry, train
from detector.engine.benchmark import machine, measure
from detector.engine.benchmark.machine import Peak
from detector.engine.benchmark.memory import Memory
from detector.strict_json import read_json
from tests.tiny import write_tiny

SMALL = ["device=cpu", "--image-size", "64x96", "--proposals", "8", "--runs", "2"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unit tests measure the machine's peak, and the memory of another process: both take seconds."""
    monkeypatch.setattr(machine, "measure_peak", lambda precision, device: Peak("a kernel", 1e11, 1e11))
    monkeypatch.setattr(measure, "measure_memory", lambda *arguments: Memory(2**21, 2**22))


def run(folder: Path, *options: str) -> int:
    return benchmark.main([str(write_tiny(folder)), *options, "--output", str(folder / "out")])


def results_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "out/benchmark.json")
    return found


def test_the_command_is_listed(root: Path) -> None:
    assert "benchmark" in entry.COMMANDS
    assert (root / "tools/benchmark.py").is_file()


def test_inference_against_both_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *SMALL, "--precision", "fp32", "--batch", "2", "--against", "plain", "torchvision") == 0
    out, err = capsys.readouterr()
    assert "peak fp32: " in out
    assert "inference: ResNet-18 C4 (random weights), 2 x 64x96, 8 proposals an image, 6 classes" in out
    assert "fp32 torchvision / fp32 fast" in out
    assert "written: " in err
    comparison = results_of(tmp_path)["comparisons"][0]
    assert [one["way"] for one in comparison["results"]] == ["fast", "plain", "torchvision"]
    assert set(comparison["reading"]) == {"decode", "resize"}
    for one in comparison["results"]:
        assert one["parts"]["total"]["flops"] == sum(
            part["flops"] for name, part in one["parts"].items() if name != "total"
        )
        assert one["peak_memory_bytes"] == 2**22
        assert one["images_per_second"] > 0
    fast, _, theirs = comparison["results"]
    assert theirs["parts"]["backbone"]["flops"] == fast["parts"]["backbone"]["flops"]
    assert theirs["parts"]["rpn"]["flops"] == fast["parts"]["rpn"]["flops"]


def test_training_in_both_precisions_and_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "data.workers=1", *SMALL, "--mode", "data", "--objects", "2") == 0
    out = capsys.readouterr().out
    assert "training: ResNet-18 C4 (random weights), 1 x 64x96, 8 regions sampled an image, 6 classes, 2 objects" in out
    assert "fp32 fast / bf16 fast" in out
    assert "data: the training step (fp32, fast) takes " in out
    found = results_of(tmp_path)
    assert [each["workers"] for each in found["data"]] == [0, 1]
    assert {"backward", "optimiser"} <= set(found["comparisons"][0]["results"][0]["parts"])


def test_own_weights_bring_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(write_tiny(tmp_path))
    quick = ["training.iterations=1", "training.evaluate_every=0", "device=cpu"]
    assert train.main([config, *quick, "--output", str(tmp_path / "run")]) == 0
    weights = str(tmp_path / "run/model_final.safetensors")
    assert run(tmp_path, *SMALL, "--precision", "fp32", "--weights", weights) == 0
    assert f"({weights}), 1 x 64x96" in capsys.readouterr().out


def test_scaling_writes_a_curve_and_its_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["--scaling", "side=64,96", "proposals=4,8", "batch=1,2", "classes=1,3", "objects=1,4"]
    assert run(tmp_path, *SMALL, "--precision", "fp32", *wanted) == 0
    out = capsys.readouterr().out
    assert out.count("too steep") == 5
    curves = json.loads((tmp_path / "out/scaling.json").read_text(encoding="utf-8"))["curves"]
    assert [curve["axis"] for curve in curves] == ["side", "proposals", "batch", "classes", "objects"]
    assert [point["value"] for point in curves[0]["points"]] == [64, 96]
    assert [point["value"] for point in curves[1]["points"]] == [4, 8]
    for curve in curves:
        with Image.open(tmp_path / f"out/scaling_{curve['axis']}.png") as image:
            image.load()
    assert not (tmp_path / "out/benchmark.json").exists()


COCO = "data.train=[{format: coco, images: none, annotations: none.json}]"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--image-size", "800"], "--image-size: must be HEIGHTxWIDTH"),
        (["--image-size", "8x8"], "--image-size: must be HEIGHTxWIDTH in pixels, 32..16384 each"),
        (["--batch", "0"], "--batch: must be a whole number from 1"),
        (["--proposals", "many"], "--proposals: must be a whole number"),
        (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
        (["--against", "detectron2"], "--against detectron2 compares the loading of images alone"),
        (["--scaling", "depth"], "--scaling: must be of side, proposals, batch, classes, objects"),
        (["--scaling", "side=400"], "a curve needs two different values or more"),
        (["--scaling", "side=1,2"], "sides must be 32..16384 pixels"),
        (["--classes", "3", "--weights", "x"], "--classes and --weights exclude each other"),
        (["--scaling", "classes", "--weights", "x"], "--scaling classes needs random weights"),
        (["evaluation.box_voting=true", "--against", "torchvision"], "neither evaluation.box_refinement nor"),
        (["--weights", "none.safetensors"], "none.safetensors"),
        ([COCO, "--mode", "data"], "none: not found"),
        (["device=tpu"], "device: input should be 'auto'"),
        (["model.backbone.depht=50"], "did you mean depth"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert run(tmp_path, *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.main(["--help"])
    assert ended.value.code == 0
    assert "--against plain torchvision" in capsys.readouterr().out
