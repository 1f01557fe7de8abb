"""The commands as a user runs them: train, stop, go on, evaluate, look."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from detector import Detector, load_config
from detector.cli import evaluate, make_shapes, train, visualize
from detector.data.shapes import ShapesDataset
from detector.engine.checkpoint import list_checkpoints, load_checkpoint
from detector.engine.optim import learning_rate
from detector.structures import Size
from tests.tiny import write_tiny


def _records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny run."""
    folder = tmp_path_factory.mktemp("finished")
    assert train.main([str(write_tiny(folder)), "--output", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_leaves_everything_that_was_promised(run: Path) -> None:
    for name in (
        "config.yaml", "environment.json", "metrics.jsonl", "train.log", "tensorboard", "checkpoints",
        "model_best.safetensors", "model_final.safetensors", "samples/first_batch.jpg",
        "evaluation/metrics.json", "evaluation/detections.json", "evaluation/pictures",
    ):  # fmt: skip
        assert (run / name).exists(), name
    assert load_config(run / "config.yaml").training.iterations == 4
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert set(metrics["coco"]) == {
        "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
    }  # fmt: skip
    assert metrics["images"] == 5
    training = [record for record in _records(run) if "loss" in record]
    assert [record["iteration"] for record in training] == [1, 2, 3, 4]
    parts = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")
    assert training[0]["loss"] == pytest.approx(sum(training[0][name] for name in parts))


def test_a_finished_run_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "model_final.safetensors").stat().st_mtime_ns
    assert train.main([str(write_tiny(run.parent)), "--output", str(run)]) == 0
    assert "already finished" in capsys.readouterr().err
    assert (run / "model_final.safetensors").stat().st_mtime_ns == before


def test_another_configuration_is_refused_in_the_same_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(write_tiny(run.parent)), "training.learning_rate=0.5", "--output", str(run)]) == 2
    message = capsys.readouterr().err
    assert "training.learning_rate: 0.001 there, 0.5 here" in message
    assert "--output" in message


def test_never_resuming_refuses_a_folder_with_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(write_tiny(run.parent)), "--output", str(run), "--resume", "never"]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_evaluating_the_weights_again_gives_the_same_numbers(run: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(run / "model_final.safetensors"), "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again == json.loads((run / "evaluation" / "metrics.json").read_text())


def test_scoring_the_written_detections_gives_the_same_numbers(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    arguments = ["--output", str(folder), "--images", "5", "--seed", "1", "--size", "64", "80"]
    assert make_shapes.main(arguments) == 0
    files = ["--ground-truth", str(folder / "annotations.json")]
    files += ["--detections", str(run / "evaluation" / "detections.json")]
    assert evaluate.main([*files, "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["coco"] == json.loads((run / "evaluation" / "metrics.json").read_text())["coco"]


def test_weights_of_our_own_start_another_training(run: Path, tmp_path: Path) -> None:
    arguments = [str(write_tiny(tmp_path)), "training.iterations=1", "training.evaluate_every=0"]
    weights = run / "model_best.safetensors"
    assert train.main([*arguments, "--weights", str(weights), "--output", str(tmp_path / "tuned")]) == 0
    assert not (tmp_path / "tuned" / "evaluation").exists()


def test_pictures_of_images_folders_globs_and_videos(run: Path, tmp_path: Path) -> None:
    images = ShapesDataset(4, 3, Size(64, 80), hard=False)
    (tmp_path / "folder").mkdir()
    for index, name in enumerate(["one.png", "folder/two.png", "folder/one.png", "glob-1.png"]):
        Image.fromarray(images[index].image).save(tmp_path / name)
    video = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (80, 64))
    for index in range(3):
        video.write(np.ascontiguousarray(images[index].image[:, :, ::-1]))
    video.release()
    inputs = [str(tmp_path / name) for name in ("one.png", "folder", "glob-*.png", "film.avi")]
    arguments = [str(run / "model_best.safetensors"), *inputs, "--output", str(tmp_path / "out")]
    assert visualize.main([*arguments, "--score-threshold", "0"]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"one.jpg", "one-2.jpg", "two.jpg", "glob-1.jpg", "film.mp4", "detections.json"}
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert all(set(record) == {"image_id", "category_id", "category_name", "bbox", "score"} for record in records)


def test_one_bad_image_does_not_cost_the_others(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jpg").write_text("<html>")
    Image.new("RGB", (80, 64)).save(tmp_path / "good.png")
    arguments = [str(run / "model_best.safetensors"), "bad.jpg", "good.png", "--output", "out"]
    assert visualize.main(arguments) == 2
    assert "error: bad.jpg: not an image" in capsys.readouterr().err
    assert Path("out/good.jpg").exists()


@pytest.mark.parametrize("extra", [[], ["--augmented"], ["--weights", "RUN"]])
def test_pictures_of_a_data_set(run: Path, tmp_path: Path, extra: list[str]) -> None:
    extra = [str(run / "model_best.safetensors") if part == "RUN" else part for part in extra]
    config = str(write_tiny(tmp_path))
    assert visualize.main(["--config", config, "--split", "val", "--count", "3", *extra, "--output", "look"]) == 0
    assert len(list(Path("look").glob("*.jpg"))) == 3


@pytest.mark.parametrize("with_data_set", [False, True])
def test_both_ways_to_draw_detections_heed_how_they_are_computed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, with_data_set: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    weights, config = str(run / "model_best.safetensors"), str(write_tiny(tmp_path))
    Image.new("RGB", (80, 64)).save(tmp_path / "a.png")
    inputs = ["--config", config, "--weights", weights] if with_data_set else [weights, "a.png"]
    assert visualize.main([*inputs, "--compile", "--device", "cpu", "--output", "look"]) == 2
    assert "error: compiling for a CPU needs a C++ compiler" in capsys.readouterr().err


def test_the_python_interface(run: Path, tmp_path: Path) -> None:
    detector = Detector.load(run / "model_best.safetensors", device="cpu", precision="fp32")
    assert detector.class_names == ["circle", "square", "triangle", "star", "cross", "ring"]
    image = ShapesDataset(1, 3, Size(64, 80), hard=False)[0].image
    Image.fromarray(image).save(tmp_path / "image.png")
    many = detector.predict([tmp_path / "image.png", Image.fromarray(image), image], score_threshold=0.0)
    assert len(many) == 3
    for detections in many:
        torch.testing.assert_close(detections.boxes, many[0].boxes)
        assert detections.boxes.dtype == detections.scores.dtype == torch.float32
        assert detections.labels.dtype == torch.int64
        assert (detections.scores.diff() <= 0).all()
    assert len(detector.predict(image, score_threshold=1.0)) == 0


def test_learning_by_heart_uses_the_same_images_for_both(tmp_path: Path) -> None:
    arguments = [str(write_tiny(tmp_path)), "training.iterations=1", "training.evaluate_every=1"]
    assert train.main([*arguments, "--overfit", "3", "--output", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run/evaluation/metrics.json").read_text())["images"] == 3


def _start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "detector.cli.train", str(write_tiny(folder)), *overrides]
    code = "import sys, torch; torch.set_num_threads(1); from detector.cli.train import main; sys.exit(main())"
    return subprocess.Popen(
        [command[0], "-c", code, *command[3:], "--output", str(folder / "run")],
        stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, number: signal.Signals, code: int) -> None:
    overrides = ["training.iterations=40", "training.checkpoint_every=0", "training.evaluate_every=0"]
    process = _start(tmp_path, *overrides)
    log = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) >= 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    (checkpoint,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    stopped_at = load_checkpoint(checkpoint).iteration
    assert 3 <= stopped_at < 40
    again = _start(tmp_path, *overrides)
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert f"going on after iteration {stopped_at}" in errors
    records = _records(tmp_path / "run")
    assert [record["iteration"] for record in records] == list(range(1, 41))
    training = load_config(tmp_path / "run" / "config.yaml").training
    rates = [record["learning_rate"] for record in records]
    assert rates == pytest.approx([learning_rate(training, iteration) for iteration in range(40)])


def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_weights(tmp_path: Path) -> None:
    overrides = ["training.iterations=12", "training.checkpoint_every=2", "training.evaluate_every=0"]
    for folder in ("whole", "killed"):
        (tmp_path / folder).mkdir()
    whole = _start(tmp_path / "whole", *overrides)
    _, errors = whole.communicate(timeout=240)
    assert whole.returncode == 0, errors
    killed = _start(tmp_path / "killed", *overrides)
    checkpoints = tmp_path / "killed" / "run" / "checkpoints"
    deadline = time.monotonic() + 120
    while len(list_checkpoints(checkpoints)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    again = _start(tmp_path / "killed", *overrides)
    _, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    weights = [
        Detector.load(tmp_path / name / "run/model_final.safetensors", device="cpu") for name in ("whole", "killed")
    ]
    one, other = (detector.model.state_dict() for detector in weights)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=0, msg=key)


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    overrides = ["training.iterations=3", "training.batch_size=4", "training.evaluate_every=3"]
    config = write_tiny(tmp_path)
    assert train.main([str(config), *overrides, "--output", str(tmp_path / "one")]) == 0
    script = Path(__file__).resolve().parents[2] / "tools" / "train.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    done = subprocess.run(
        [*command, str(config), *overrides, "--output", str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = ([record for record in _records(tmp_path / name) if "loss" in record] for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
    metrics = [json.loads((tmp_path / name / "evaluation/metrics.json").read_text()) for name in ("one", "two")]
    assert metrics[0]["images"] == metrics[1]["images"] == 5


def test_micro_batches_give_the_losses_of_the_whole_batch(tmp_path: Path) -> None:
    overrides = ["training.iterations=3", "training.batch_size=4", "training.evaluate_every=0"]
    config = write_tiny(tmp_path)
    assert train.main([str(config), *overrides, "--output", "whole"]) == 0
    assert train.main([str(config), *overrides, "training.micro_batch_size=1", "--output", "parts"]) == 0
    for whole, parts in zip(_records(Path("whole")), _records(Path("parts")), strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains(tmp_path: Path, precision: str) -> None:
    arguments = [str(write_tiny(tmp_path)), f"training.precision={precision}", "training.evaluate_every=0"]
    assert train.main([*arguments, "--output", "run"]) == 0
    assert all(np.isfinite(record["loss"]) for record in _records(Path("run")))


def test_a_diverging_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(write_tiny(tmp_path)), "training.learning_rate=1e20", "training.optimizer=sgd"]
    assert train.main([*arguments, "training.iterations=30", "--output", "run"]) == 4
    message = capsys.readouterr().err
    assert "error: iteration" in message
    assert "not finite" in message
    assert "images" in message
