"""pretrain.py as a user runs it: train, stop, go on, evaluate, start a detector from it, ask from Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from detector import Classifier, load_config
from detector.cli import benchmark, check_dataset, evaluate, plot_errors, pretrain, train, visualize
from detector.data.shapes import CLASS_NAMES
from tests.conftest import ROOT
from tests.reliability.commands import Outcome, lines_of, run
from tests.tiny import write_tiny, write_tiny_classifier

TIMING = {"images_per_second", "data_wait", "memory_mib"}
RESNET = ("model.classifier.network=resnet", "model.backbone.depth=18", "model.backbone.norm=group")
FOLDER = (
    "data.resize.train_short_side=[32, 40]", "data.resize.test_short_side=32", "data.crop.padding=0", "data.val=[]",
    "data.holdout=0.34",
)  # fmt: skip


def start(folder: Path, *arguments: object) -> Outcome:
    """Pretrains in ``folder/run``."""
    folder.mkdir(exist_ok=True)
    return run(pretrain.main, write_tiny_classifier(folder), *arguments, "--output", folder / "run")


def records(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key not in TIMING} for line in lines_of(folder / "metrics.jsonl")
    ]


def write_folder(root: Path, mode: str = "RGB", names: tuple[str, ...] = ("cat", "dog"), count: int = 6) -> Path:
    """Random pictures of different sizes, one folder a class."""
    random = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(count):
            shape = (40 + number, 50) if mode == "L" else (40 + number, 50, 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8), mode).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on shapes."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = start(folder)
    assert outcome.code == 0, outcome.err
    return folder / "run"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a ResNet-18, trained for an iteration."""
    folder = tmp_path_factory.mktemp("resnet")
    outcome = start(folder, *RESNET, "training.iterations=1", "training.evaluate_every=0")
    assert outcome.code == 0, outcome.err
    return folder / "run" / "model_final.safetensors"


def test_a_run_leaves_what_a_detectors_run_leaves(finished: Path) -> None:
    for name in (
        "config.yaml", "environment.json", "metrics.jsonl", "train.log", "tensorboard", "checkpoints", "curves.png",
        "model_best.safetensors", "model_final.safetensors", "samples/first_batch.jpg",
        "evaluation/metrics.json", "evaluation/report.html", "evaluation/pictures", "exit-0.json",
    ):  # fmt: skip
        assert (finished / name).exists(), name


def test_metrics_hold_the_promised_numbers(finished: Path) -> None:
    metrics = json.loads((finished / "evaluation" / "metrics.json").read_text())
    assert set(metrics["classification"]) == {"top1", "top5", "log_loss"}
    assert 0 <= metrics["classification"]["top1"] <= metrics["classification"]["top5"] <= 1
    assert set(metrics["per_class"]) == set(CLASS_NAMES)
    assert metrics["images"] == 12


def test_the_log_holds_loss_and_training_error(finished: Path) -> None:
    training = [record for record in records(finished) if "loss" in record]
    assert [record["iteration"] for record in training] == [1, 2, 3, 4, 5, 6]
    assert all(record["loss"] == record["loss_class"] and 0 <= record["error"] <= 1 for record in training)


def test_a_runs_evaluations_are_ranked_by_their_top1(finished: Path) -> None:
    evaluations = [record for record in records(finished) if "headline" in record]
    assert evaluations
    assert all(record["headline"] == record["classification"]["top1"] for record in evaluations)


def test_a_best_metric_is_refused_for_it_would_not_count(tmp_path: Path) -> None:
    outcome = start(tmp_path, "training.best_metric=coco.AP")
    assert outcome.code == 2
    assert outcome.errors == [
        "error: training.best_metric: classifiers are ranked by their top-1 accuracy; leave it out"
    ]


def test_a_run_that_was_stopped_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    start(tmp_path)
    name = "step-000000002"
    other = tmp_path / "other"
    (other / "run" / "checkpoints").mkdir(parents=True)
    part = start(tmp_path / "part", "training.checkpoint_every=2", "training.keep_every=2")
    assert part.code == 0
    shutil.copytree(tmp_path / "part" / "run" / "checkpoints" / name, other / "run" / "checkpoints" / name)
    for file in ("config.yaml", "metrics.jsonl"):
        shutil.copy(tmp_path / "part" / "run" / file, other / "run" / file)
    resumed = start(other, "training.keep_every=2")
    assert "going on after iteration 2" in resumed.err
    ours, theirs = (load_file(folder / "model_final.safetensors") for folder in (other / "run", finished))
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)
    assert records(other / "run") == records(finished)


def test_several_micro_batches_give_the_batch_of_one(tmp_path: Path) -> None:
    plain = ("model.classifier.network=lenet", "training.iterations=3", "training.evaluate_every=0")
    start(tmp_path / "one", *plain)
    start(tmp_path / "two", *plain, "training.micro_batch_size=2")
    losses = [[record["loss"] for record in records(tmp_path / name / "run")] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    plain = ("model.classifier.network=lenet", "training.iterations=3", "training.evaluate_every=3")
    start(tmp_path / "one", *plain)
    folder = tmp_path / "two"
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(ROOT / "tools" / "pretrain.py"), str(write_tiny_classifier(folder)), *plain]
    command += ["--output", str(folder / "run")]
    found = subprocess.run(
        command, env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False, timeout=240
    )
    assert found.returncode == 0, found.stderr
    one, two = records(tmp_path / "one" / "run"), records(folder / "run")
    assert [item["loss"] for item in one if "loss" in item] == pytest.approx(
        [item["loss"] for item in two if "loss" in item], rel=1e-5
    )
    assert one[-1]["classification"] == pytest.approx(two[-1]["classification"], rel=1e-4)


@pytest.mark.slow
def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config = write_tiny_classifier(tmp_path)
    command = [sys.executable, str(ROOT / "tools" / "pretrain.py"), str(config), "training.iterations=100000"]
    command += ["--output", str(tmp_path / "run")]
    with subprocess.Popen(command, env=dict(os.environ, OMP_NUM_THREADS="1"), stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert b"start the same command again to go on" in err


def test_evaluating_the_weights_again_gives_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    outcome = run(evaluate.main, finished / "model_final.safetensors", "--output", tmp_path)
    assert outcome.code == 0, outcome.err
    numbers = [json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, finished / "evaluation")]
    assert numbers[0] == numbers[1]
    assert "top-1" in outcome.out


def test_another_configuration_shows_squares_of_the_size_that_was_learned(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    config.write_text(
        "data:\n"
        "  val: [{format: shapes, images: 12, seed: 1, size: [32, 32]}]\n"
        "  resize: {train_short_side: [20], test_short_side: 20, max_long_side: 20}\n"
        "  crop: {size: 24}\n"
        "  workers: 0\n"
    )
    weights = finished / "model_final.safetensors"
    outcome = run(evaluate.main, weights, "--config", config, "--output", tmp_path / "x")
    assert outcome.code == 0, outcome.err
    folders = (tmp_path / "x", finished / "evaluation")
    numbers = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    assert numbers[0]["classification"] == pytest.approx(numbers[1]["classification"], rel=1e-5)


def test_a_detector_starts_from_a_pretrained_network_and_says_so(resnet: Path, tmp_path: Path) -> None:
    outcome = run(
        train.main, write_tiny(tmp_path), "training.iterations=1", "training.evaluate_every=0",
        "model.pixel_mean=[123.675, 116.28, 103.53]", "model.pixel_std=[58.395, 57.12, 57.375]",
        "training.learning_rate=1e-12", "--weights", resnet, "--output", tmp_path / "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "conv1 to conv5_x" in outcome.err
    taken, given = load_file(tmp_path / "run" / "model_final.safetensors"), load_file(resnet)
    for theirs, ours in (("backbone.conv4_x.1", "backbone.conv4_x.1"), ("conv5_x.1", "roi_head.conv5_x.1")):
        key = ".conv2.conv.weight"
        torch.testing.assert_close(taken[ours + key], given[theirs + key], rtol=0, atol=1e-6)


def test_a_folder_of_images_is_learned_with_one_command(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    outcome = start(tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER)
    assert outcome.code == 0, outcome.err
    metrics = json.loads((tmp_path / "a" / "run" / "evaluation" / "metrics.json").read_text())
    assert metrics["images"] == 4
    assert set(metrics["per_class"]) == {"cat", "dog"}


def test_gray_images_and_a_gray_network(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", "L")
    outcome = start(
        tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER, "model.classifier.channels=1"
    )
    assert outcome.code == 0, outcome.err
    found = Classifier.load(tmp_path / "a" / "run" / "model_final.safetensors").predict(root / "cat" / "0.png")
    assert set(found.names) == {"cat", "dog"}


def test_what_is_odd_in_a_folder_is_told_once_though_images_are_held_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images", names=("cat", "dog", "cow"))
    outcome = start(
        tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER, "data.classes=[dog, cat]"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("left out the classes that are not wanted: 'cow'") == 1


def test_drawn_images_that_are_trained_on_and_evaluated_on_are_told(tmp_path: Path) -> None:
    outcome = start(tmp_path, "data.val=[{format: shapes, images: 12, seed: 0, size: [32, 32]}]")
    assert outcome.code == 0, outcome.err
    assert "12 of 12 images of data.val are in data.train, too" in outcome.err


def test_fine_tuning_replaces_the_class_layer(resnet: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    outcome = start(
        tmp_path / "a", *RESNET, f"data.train=[{{format: folder, root: {root}}}]", *FOLDER, "training.iterations=2",
        "training.evaluate_every=0", "training.body_rate=0.1", "model.backbone.frozen_stages=[conv1, conv2_x]",
        "--weights", resnet,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    after, before = load_file(tmp_path / "a" / "run" / "model_final.safetensors"), load_file(resnet)
    assert after["class_layer.weight"].shape == (2, 512)
    assert after["backbone.conv2_x.0.conv1.conv.weight"].equal(before["backbone.conv2_x.0.conv1.conv.weight"])
    assert not after["backbone.conv3_x.0.conv1.conv.weight"].equal(before["backbone.conv3_x.0.conv1.conv.weight"])


def test_python_gives_names_and_probabilities(finished: Path) -> None:
    classifier = Classifier.load(finished / "model_best.safetensors", device="cpu")
    found = classifier.predict(np.zeros((40, 50, 3), np.uint8))
    assert set(found.names) == set(CLASS_NAMES)
    assert float(found.probabilities.sum()) == pytest.approx(1)
    assert found.name == found.names[0] == classifier.class_names[found.label]


@pytest.mark.parametrize(
    "make",
    [
        lambda root: root,
        lambda root: write_folder(root, names=("cat",)),
        lambda root: write_folder(root / "train"),
    ],
    ids=["missing", "one class", "splits"],
)
def test_a_wrong_layout_gives_one_line(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    root = tmp_path / "images"
    make(root)
    outcome = start(tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER)
    assert outcome.code == 2
    assert len(outcome.errors) == 1
    assert str(root) in outcome.errors[0]


def test_each_command_refuses_what_is_the_others(finished: Path, tmp_path: Path) -> None:
    classifier = run(train.main, write_tiny_classifier(tmp_path), "--output", tmp_path / "x")
    detector = tmp_path / "detector"
    detector.mkdir()
    weights = ("--weights", finished / "model_final.safetensors")
    drawn = run(visualize.main, "--config", write_tiny(detector), *weights, "--output", tmp_path / "y")
    boxes = start(tmp_path / "z", "data.train=[{format: coco, images: a, annotations: b}]")
    for outcome in (classifier, drawn, boxes):
        assert outcome.code == 2
        assert len(outcome.errors) == 1, outcome.err


def test_what_was_held_out_stays_so_whatever_seed_evaluates(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    outcome = start(tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER)
    assert outcome.code == 0, outcome.err
    weights = tmp_path / "a" / "run" / "model_final.safetensors"
    others = ("seed=3", "data.holdout=0.9", "training.evaluate_every=0")
    again = run(evaluate.main, weights, *others, "--output", tmp_path / "b")
    assert "seed, data.holdout and training.evaluate_every are those of the training" in again.err
    assert again.code == 0, again.err
    looked_at = [
        [item["image_id"] for item in json.loads((folder / "predictions.json").read_text())]
        for folder in (tmp_path / "a" / "run" / "evaluation", tmp_path / "b")
    ]
    assert looked_at[0] == looked_at[1]


def test_a_run_that_held_nothing_out_is_not_scored_on_what_it_was_trained_on(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    plain = ("model.classifier={network: lenet}", "training.iterations=1", "training.evaluate_every=0")
    outcome = start(tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER, *plain)
    assert outcome.code == 0, outcome.err
    assert "12 images of 2 classes" in outcome.err
    again = run(evaluate.main, tmp_path / "a" / "run" / "model_final.safetensors", "training.evaluate_every=2")
    assert again.code == 2
    assert "training.evaluate_every 0 nothing is held out" in again.errors[0]


def test_a_few_images_to_learn_by_heart_are_of_all_classes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "images")
    outcome = start(tmp_path / "a", f"data.train=[{{format: folder, root: {root}}}]", *FOLDER, "--overfit", 2)
    assert outcome.code == 0, outcome.err
    per_class = json.loads((tmp_path / "a" / "run" / "evaluation" / "metrics.json").read_text())["per_class"]
    assert [row["images"] for row in per_class.values()] == [1, 1]


def test_a_detector_is_suggested_where_one_can_start(tmp_path: Path) -> None:
    suggested = "python tools/train.py YOUR_CONFIG --weights"
    for block, fits in (("residual", True), ("plain", False)):
        outcome = start(
            tmp_path / block, *RESNET, f"model.classifier.block={block}", "training.iterations=1",
            "training.evaluate_every=0",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        assert (suggested in outcome.out) == fits


def test_errors_of_several_runs_are_drawn(finished: Path, tmp_path: Path) -> None:
    plain = start(tmp_path / "plain", "model.classifier.block=plain")
    assert plain.code == 0, plain.err
    outcome = run(plot_errors.main, finished, tmp_path / "plain" / "run", "--output", tmp_path / "errors.png")
    assert outcome.code == 0, outcome.err
    for kind, folder in (("Plain", tmp_path / "plain" / "run"), ("Residual", finished)):
        train = [record["error"] for record in records(folder) if "error" in record][-1]
        test = 1 - json.loads((folder / "evaluation" / "metrics.json").read_text())["classification"]["top1"]
        errors = f"training error {100 * train:.1f} %, test error {100 * test:.1f} % at the end"
        assert f"{kind} networks: 8 layers: {errors}" in outcome.out.splitlines()
    with Image.open(tmp_path / "errors.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize("what", ["missing", "unfinished", "a detector's", "no picture"])
def test_what_has_no_errors_to_draw_is_refused(finished: Path, tmp_path: Path, what: str) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    if what == "missing":
        shutil.rmtree(folder)
    elif what == "unfinished":
        (folder / "metrics.jsonl").write_text('{"iteration": 1, "error": 0.5}\n{"iter', encoding="utf-8")
    elif what == "a detector's":
        shutil.copy(write_tiny(tmp_path), folder / "config.yaml")
    outcome = run(plot_errors.main, folder, "--output", tmp_path / ("a.xyz" if what == "no picture" else "a.png"))
    assert outcome.code == 2
    assert len(outcome.errors) == 1


def test_the_pictures_of_a_training_set_show_its_classes(tmp_path: Path) -> None:
    config = write_tiny_classifier(tmp_path)
    outcome = run(
        visualize.main, "--config", config, "--split", "train", "--augmented", "--count", 2, "--output", tmp_path / "x"
    )
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "x").glob("*.jpg"))) == 2


def test_the_pictures_of_a_set_name_the_right_and_the_predicted_class(finished: Path, tmp_path: Path) -> None:
    weights = ("--weights", finished / "model_final.safetensors", "--device", "cpu")
    config = write_tiny_classifier(tmp_path)
    outcome = run(visualize.main, "--config", config, *weights, "--count", 3, "--output", tmp_path / "x")
    assert outcome.code == 0, outcome.err
    drawn = sorted((tmp_path / "x").glob("*.jpg"))
    assert len(drawn) == 3
    with Image.open(drawn[0]) as picture:
        assert picture.width == 320  # the strip's width, in which the names can be read


@pytest.mark.parametrize("command", [train, benchmark, check_dataset])
def test_commands_for_detectors_refuse_a_classifiers_configuration(command: ModuleType, tmp_path: Path) -> None:
    outcome = run(command.main, write_tiny_classifier(tmp_path), "--output", tmp_path / "x")
    assert outcome.code == 2
    assert ["model.classifier" in line for line in outcome.errors] == [True]


def test_a_batch_norm_without_anything_to_average_is_told(tmp_path: Path) -> None:
    outcome = start(
        tmp_path, "model.classifier.network=resnet", "model.backbone.depth=18", "training.micro_batch_size=1"
    )
    assert outcome.code == 2
    assert "a batch norm has a single value a channel" in outcome.errors[0]


def test_the_shipped_folder_example_is_a_resnet_18() -> None:
    config = load_config(ROOT / "configs" / "examples" / "pretrain_folder.yaml")
    assert config.model.backbone.depth == 18
    assert config.model.classifier is not None
    assert config.model.classifier.network == "resnet"
