"""evaluate.py and compare.py as a user runs them, and numbers that depend on nothing but weights and images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector import Detector, load_config
from detector.cli import compare, evaluate, train, visualize
from detector.data.build import open_split
from detector.data.export import coco_content
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.engine.distributed import Processes
from detector.engine.inference import detect_dataset
from detector.errors import DetectorError
from detector.evaluation import coco, comparison, results_file
from detector.evaluation.precision import Curves
from detector.evaluation.score import score
from detector.structures import Annotations, Detections, DetectionTable, Size
from detector.weights.layouts import MMDETECTION, to_layout
from detector.weights.load import read_weights
from detector.weights.own_file import save_weights
from tests.evaluation_sets import chosen
from tests.tiny import tiny_config, tiny_model, write_tiny

CPU = torch.device("cpu")
SIZE = Size(64, 80)
MANY = "data.val=[{format: shapes, images: 30, seed: 1, size: [64, 80]}]"


@pytest.fixture(autouse=True)
def _without_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """report.html has tests of its own, and takes most of the time."""
    monkeypatch.setattr("detector.engine.reporting.write_report", lambda *_: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a tiny run that nobody evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    quick = ["training.iterations=2", "training.evaluate_every=0", "device=cpu", "model.roi_head.score_threshold=0.001"]
    assert train.main([str(write_tiny(folder)), *quick, "--output", str(folder / "run")]) == 0
    return folder / "run" / "model_final.safetensors"


@pytest.fixture
def weights(trained: Path, tmp_path: Path) -> Path:
    """A copy of them, alone in a folder."""
    (tmp_path / "mine").mkdir()
    return Path(shutil.copy(trained, tmp_path / "mine" / "weights.safetensors"))


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What was said since the last time that is an error; no traceback among it."""

    def since() -> list[str]:
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return [line for line in err.splitlines() if line.startswith("error: ")]

    return since


Lines = Callable[[], list[str]]


def shapes(images: int = 30, seed: int = 1) -> ShapesDataset:
    return ShapesDataset(images, seed, SIZE, hard=False)


def near(truth: Annotations, seed: int = 0) -> DetectionTable:
    """The objects, each a little off, by falling score, and as many detections of nothing."""
    random = np.random.default_rng(seed)
    count = len(truth.labels)
    boxes = truth.boxes_xywh + random.normal(0, 0.05, (count, 4)) * np.tile(truth.boxes_xywh[:, 2:], 2)
    nothing = np.concatenate([random.random((count, 2)) * 40, random.uniform(5, 30, (count, 2))], axis=1)
    images = truth.image_index()
    return DetectionTable(
        np.concatenate([images, images]),
        np.concatenate([truth.labels, random.permutation(truth.labels)]),
        np.concatenate([boxes, nothing]),
        np.concatenate([random.uniform(0.4, 1, count), random.uniform(0, 0.6, count)]),
    )


def write_files(folder: Path, truth: Annotations, found: DetectionTable) -> list[str]:
    """Both as files, and the arguments that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "truth.json").write_text(json.dumps(coco_content(truth)))
    results_file.write_results(folder / "found.json", found, truth)
    return ["--ground-truth", str(folder / "truth.json"), "--detections", str(folder / "found.json")]


def strict(path: Path) -> Any:
    """The content of a JSON file in which NaN is an error."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(path.read_text(), parse_constant=refuse)


# --verify


def tampered(real: Callable[..., Curves]) -> Callable[..., Curves]:
    """An engine that is wrong in the last bit of one number."""

    def accumulate(*arguments: Any) -> Curves:
        curves = real(*arguments)
        curves.precision[0, 0, 0, 0, -1] = np.nextafter(curves.precision[0, 0, 0, 0, -1], 0)
        return curves

    return accumulate


def test_both_engines_agree_on_the_detections_of_weights(weights: Path) -> None:
    assert evaluate.main([str(weights), "--verify"]) == 0


def test_an_engine_that_is_wrong_in_one_bit_fails_with_one_line(monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    truth = shapes().annotations
    files = write_files(Path(), truth, near(truth))
    monkeypatch.setattr(coco, "accumulate", tampered(coco.accumulate))
    assert evaluate.main([*files, "--verify", "--output", "out"]) == 1
    (line,) = lines()
    assert line.startswith("error: precision: the fast engine and pycocotools differ (largest difference ")
    assert not Path("out/metrics.json").exists()


def test_without_asking_nothing_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = shapes().annotations
    files = write_files(Path(), truth, near(truth))
    monkeypatch.setattr(coco, "accumulate", tampered(coco.accumulate))
    assert evaluate.main(files) == 0


def test_weights_are_verified_too(weights: Path, monkeypatch: pytest.MonkeyPatch, lines: Lines) -> None:
    monkeypatch.setattr("detector.engine.evaluation.detect_dataset", told(shapes(5).annotations))
    monkeypatch.setattr(coco, "accumulate", tampered(coco.accumulate))
    assert evaluate.main([str(weights), "--verify"]) == 1
    assert len(lines()) == 1


def test_verifying_what_is_not_computed_is_refused(weights: Path, lines: Lines) -> None:
    truth = shapes(5).annotations
    for given in (write_files(Path(), truth, near(truth)), [str(weights)]):
        assert evaluate.main([*given, "--verify", "--metric", "voc"]) == 2
        (line,) = lines()
        assert "--verify" in line
        assert "coco" in line


@pytest.mark.parametrize("flag", [["--config", "tiny.yaml"], ["--split", "train"], ["--split", "val"]])
def test_flags_that_mean_nothing_for_files_are_refused(flag: list[str], lines: Lines) -> None:
    write_tiny(Path())
    truth = shapes(5).annotations
    assert evaluate.main([*write_files(Path(), truth, near(truth)), *flag]) == 2
    (line,) = lines()
    assert flag[0] in line


def test_the_backend_of_pycocotools_writes_the_same_metrics(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = shapes(5).annotations
    monkeypatch.setattr("detector.engine.evaluation.detect_dataset", told(truth))
    assert evaluate.main([str(weights), "--output", "fast"]) == 0
    assert evaluate.main([str(weights), "evaluation.backend=pycocotools", "--output", "official"]) == 0
    fast, official = (Path(name, "metrics.json").read_bytes() for name in ("fast", "official"))
    assert fast == official
    assert strict(Path("fast/metrics.json"))["coco"]["AP50"] > 0.3


# What is written


def test_an_analysis_is_written_without_nan(weights: Path) -> None:
    assert evaluate.main([str(weights)]) == 0
    analysis = strict(weights.parent / "evaluation" / "analysis.json")
    assert analysis["data"]["fingerprint"] == shapes(5).annotations.fingerprint()
    assert analysis["stages"]["images"] == 5
    strict(weights.parent / "evaluation" / "metrics.json")


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("detections", [False, True])
def test_files_without_objects_or_detections_have_an_analysis_without_nan(objects: bool, detections: bool) -> None:
    full = shapes(4).annotations
    arrays = {name: getattr(full, name)[:0] for name in ("labels", "boxes_xywh", "areas", "crowd", "difficult")}
    truth = full if objects else replace(full, rows=np.zeros_like(full.rows), **arrays)
    found = near(full) if detections else DetectionTable.of([])
    assert evaluate.main([*write_files(Path(), truth, found), "--output", "out"]) == 0
    for name in ("metrics.json", "analysis.json"):
        strict(Path("out") / name)


def test_a_set_without_images_is_scored_as_nothing() -> None:
    Path("truth.json").write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    Path("found.json").write_text("[]")
    arguments = ["--ground-truth", "truth.json", "--detections", "found.json", "--output", "out"]
    assert evaluate.main(arguments) == 0
    assert set(strict(Path("out/metrics.json"))["coco"].values()) == {None}
    strict(Path("out/analysis.json"))


def test_the_written_detections_score_the_same_again(weights: Path) -> None:
    assert evaluate.main([str(weights), "--metric", "coco", "--metric", "voc07"]) == 0
    folder, truth = weights.parent / "evaluation", shapes(5).annotations
    again = score(truth, results_file.read_results(folder / "detections.json", truth), ["coco", "voc07"])
    assert again == strict(folder / "metrics.json")


# --store-thresholds


def told(truth: Annotations, scores: Sequence[float] = (0.25, 0.5, 0.75)) -> Callable[..., list[Detections]]:
    """A detector of known scores: of each class the first object has the highest, the others the lowest.

    Between them lies a detection of nothing. So the best F1 has the lowest score where a class has two objects or more.
    """
    low, middle, high = scores
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    first = {int(label): int(np.flatnonzero(truth.labels == label)[0]) for label in np.unique(truth.labels)}
    rows = [
        (int(image), corners[row].tolist(), high if first[int(label)] == row else low, int(label))
        for row, (image, label) in enumerate(zip(truth.image_index(), truth.labels, strict=True))
    ]
    rows += [(0, [0.0, 0.0, 1.0, 1.0], middle, label) for label in first]

    def detect(*_: Any) -> list[Detections]:
        return [_detections(row for row in rows if row[0] == image) for image in range(len(truth.image_ids))]

    return detect


def _detections(rows: Any) -> Detections:
    rows = sorted(rows, key=lambda row: -row[2])
    return Detections(
        torch.tensor([row[1] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[2] for row in rows], dtype=torch.float32),
        torch.tensor([row[3] for row in rows], dtype=torch.int64),
    )


def wanted_thresholds(truth: Annotations, goal: str, scores: Sequence[float]) -> list[float]:
    """What is to be stored for the detector above: 0.5 for a class without objects."""
    low, _, high = scores
    objects = np.bincount(truth.labels, minlength=len(truth.class_names)).tolist()
    return [0.5 if not count else low if goal == "f1" and count > 1 else high for count in objects]


@pytest.fixture
def usual_scores(trained: Path) -> list[float]:
    """Quarters of the scores that the weights give, so that thresholds of them part its detections."""
    detector = Detector.load(trained, device="cpu")
    found = [detector.predict(shapes(5)[index].image, score_threshold=0.0).scores for index in range(5)]
    return [float(torch.quantile(torch.cat(found), part).float()) for part in (0.25, 0.5, 0.75)]


@pytest.mark.parametrize("goal", ["f1", "0.9"])
def test_stored_thresholds_are_used_by_predict_and_visualize(
    weights: Path, goal: str, usual_scores: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = shapes(5).annotations
    monkeypatch.setattr("detector.engine.evaluation.detect_dataset", told(truth, usual_scores))
    assert evaluate.main([str(weights), "--store-thresholds", goal]) == 0
    detector, image = Detector.load(weights, device="cpu"), shapes(5)[1].image
    assert list(detector.class_thresholds) == wanted_thresholds(truth, goal, usual_scores)
    everything, shown = detector.predict(image, score_threshold=0.0), detector.predict(image)
    thresholds = torch.tensor(detector.class_thresholds)
    expected = everything.keep(everything.scores >= thresholds[everything.labels])
    assert 0 < len(shown) < len(everything)
    assert shown.scores.tolist() == expected.scores.tolist()
    assert shown.boxes.tolist() == expected.boxes.tolist()
    Image.fromarray(image).save("image.png")
    assert visualize.main([str(weights), "image.png", "--output", "pictures", "--device", "cpu"]) == 0
    assert [row["score"] for row in strict(Path("pictures/detections.json"))] == shown.scores.tolist()


def test_storing_thresholds_changes_nothing_else_in_the_file(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_weights(weights)
    monkeypatch.setattr("detector.engine.evaluation.detect_dataset", told(shapes(5).annotations))
    assert evaluate.main([str(weights), "--store-thresholds", "f1"]) == 0
    after = read_weights(weights)
    assert before.info is not None
    assert after.info == replace(before.info, class_thresholds=after.info.class_thresholds)  # type: ignore[union-attr]
    assert {key: value.numpy().tobytes() for key, value in before.tensors.items()} == {
        key: value.numpy().tobytes() for key, value in after.tensors.items()
    }


def test_without_being_asked_no_thresholds_are_stored(weights: Path) -> None:
    before = weights.read_bytes()
    assert evaluate.main([str(weights)]) == 0
    assert weights.read_bytes() == before
    assert Detector.load(weights, device="cpu").class_thresholds == ()


def test_a_threshold_for_all_classes_is_used_where_none_has_its_own(weights: Path, usual_scores: list[float]) -> None:
    stored = read_weights(weights)
    assert stored.info is not None
    save_weights(weights, stored.tensors, replace(stored.info, score_threshold=usual_scores[1]))
    detector, image = Detector.load(weights, device="cpu"), shapes(5)[1].image
    shown = detector.predict(image)
    assert 0 < len(shown) < len(detector.predict(image, score_threshold=0.0))
    assert shown.scores.tolist() == detector.predict(image, score_threshold=usual_scores[1]).scores.tolist()


def test_thresholds_cannot_be_stored_in_weights_of_another_toolkit(lines: Lines) -> None:
    plain = ["model.backbone.norm=frozen_batch", "model.backbone.depth=50"]
    tensors = to_layout(MMDETECTION, tiny_model(*plain).state_dict(), tiny_config(*plain).model.anchors)
    torch.save({"state_dict": tensors}, "theirs.pth")
    before = Path("theirs.pth").read_bytes()
    settings = ["--config", str(write_tiny(Path())), *plain, f"data.classes=[{', '.join(CLASS_NAMES)}]"]
    assert evaluate.main(["theirs.pth", *settings, "--store-thresholds", "f1", "--output", "out"]) == 2
    (line,) = lines()
    assert line.startswith("error: theirs.pth: ")
    assert "--store-thresholds" in line
    assert Path("theirs.pth").read_bytes() == before


def test_thresholds_cannot_be_stored_in_files(lines: Lines) -> None:
    truth = shapes(5).annotations
    assert evaluate.main([*write_files(Path(), truth, near(truth)), "--store-thresholds", "f1"]) == 2
    assert lines() == ["error: --store-thresholds needs WEIGHTS to store them in"]


@pytest.mark.parametrize("goal", ["f2", "0", "1.5", "nan", "-1", ""])
def test_a_goal_that_is_none_is_refused(goal: str, weights: Path, lines: Lines) -> None:
    assert evaluate.main([str(weights), f"--store-thresholds={goal}"]) == 2
    (line,) = lines()
    assert "must be f1 or a precision in 0..1" in line


# compare.py


def run_folder(folder: Path, found: DetectionTable, *overrides: str) -> Path:
    """What compare.py needs of an evaluated run of the tiny configuration: its settings and detections."""
    folder.mkdir()
    config = load_config(write_tiny(folder), [MANY, *overrides])
    (folder / "config.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    (folder / "evaluation").mkdir()
    results_file.write_results(folder / "evaluation" / "detections.json", found, open_split(config, "val").annotations)
    return folder


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one whose detector overlooks a third of what the other sees."""
    found = near(shapes().annotations)
    worse = chosen(found, np.arange(len(found)) % 3 > 0)
    return run_folder(tmp_path / "good", found), run_folder(tmp_path / "bad", worse)


def test_two_runs_are_compared(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = map(str, two_runs)
    assert compare.main([good, bad, "--samples", "200", "--output", "difference.json"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"A: {good}", f"B: {bad}"]
    assert said[2].startswith("A is better by ")
    truth = shapes().annotations
    tables = [results_file.read_results(Path(run) / "evaluation/detections.json", truth) for run in (good, bad)]
    assert strict(Path("difference.json")) == {"a": good, "b": bad, **comparison.compare(truth, *tables, 200)}


def test_the_other_way_round_the_other_is_better(
    two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main([*map(str, two_runs[::-1]), "--samples", "200"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("B is better by ")


def test_a_run_is_no_better_than_itself(two_runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(two_runs[0])] * 2) == 0
    assert "no real difference can be seen" in capsys.readouterr().out


def test_runs_folders_of_evaluations_and_files_give_the_same(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps(coco_content(shapes().annotations)))
    folders = [run / "evaluation" for run in two_runs]
    files = [folder / "detections.json" for folder in folders]
    results = []
    for places in ([*two_runs], folders, [*files, "--ground-truth", tmp_path / "truth.json"]):
        assert compare.main([*map(str, places), "--samples", "100", "--output", "difference.json"]) == 0
        results.append({**strict(Path("difference.json")), "a": "", "b": ""})
    assert results[0] == results[1] == results[2]


def test_runs_on_other_data_are_refused(two_runs: tuple[Path, Path], tmp_path: Path, lines: Lines) -> None:
    other = run_folder(tmp_path / "other", near(shapes(30, 2).annotations), MANY.replace("seed: 1", "seed: 2"))
    assert compare.main([str(two_runs[0]), str(other)]) == 2
    (line,) = lines()
    assert line.startswith("error: the two runs were evaluated on different data (data.val)")


def test_a_run_whose_last_evaluation_was_of_other_images_is_refused(
    weights: Path, tmp_path: Path, lines: Lines
) -> None:
    run = tmp_path / "mine"
    (run / "config.yaml").write_text(json.dumps(tiny_config().model_dump(mode="json")))
    shutil.copytree(run, tmp_path / "other")
    other = "data.val=[{format: shapes, images: 5, seed: 7, size: [64, 80]}]"
    assert evaluate.main([str(weights)]) == 0
    assert evaluate.main([str(tmp_path / "other" / "weights.safetensors"), other]) == 0
    lines()
    assert compare.main([str(run), str(tmp_path / "other")]) == 2
    (line,) = lines()
    assert str(tmp_path / "other") in line


def test_a_run_that_nobody_evaluated_is_refused(two_runs: tuple[Path, Path], lines: Lines) -> None:
    (two_runs[1] / "evaluation" / "detections.json").unlink()
    assert compare.main([*map(str, two_runs)]) == 2
    assert lines() == [
        f"error: {two_runs[1]}: no detections.json there; evaluate the run first (evaluate.py), or name a results file"
    ]


def test_files_without_ground_truth_are_refused(two_runs: tuple[Path, Path], lines: Lines) -> None:
    for run in two_runs:
        (run / "config.yaml").unlink()
    assert compare.main([*map(str, two_runs)]) == 2
    assert lines() == [f"error: {two_runs[0]}: no config.yaml there, so its data set is unknown; give --ground-truth"]


@pytest.mark.parametrize("samples", ["99", "100001", "many"])
def test_a_number_of_draws_that_says_nothing_is_refused(samples: str, lines: Lines) -> None:
    assert compare.main(["a", "b", "--samples", samples]) == 2
    assert len(lines()) == 1


def test_detections_of_other_images_than_the_ground_truths_are_refused(lines: Lines) -> None:
    truth = shapes(5).annotations
    write_files(Path(), truth, near(truth))
    results_file.write_results(Path("more.json"), near(shapes(6).annotations), shapes(6).annotations)
    assert compare.main(["found.json", "more.json", "--ground-truth", "truth.json"]) == 2
    (line,) = lines()
    assert "more.json" in line
    assert "image_id 5 is not in the ground truth" in line


# The number of processes


@dataclass(frozen=True)
class Share(Processes):
    """One of several processes, run one after another: the main one comes last and gathers what the others left."""

    left: list[Any] = field(default_factory=list)

    def any(self, flag: bool) -> bool:
        return flag

    def agree(self, problem: DetectorError | None) -> None:
        assert problem is None

    def gather(self, value: Any) -> list[Any]:
        if not self.is_main:
            self.left.append(value)
        return [value, *self.left]


def detected_by(processes: int, images: int, batch_size: int = 1) -> list[Detections]:
    config = tiny_config(f"evaluation.batch_size={batch_size}")
    model, left = tiny_model(), []  # type: ignore[var-annotated]
    for rank in reversed(range(processes)):
        found = detect_dataset(model, shapes(images), config, CPU, Share(rank, processes, left=left))
    assert found is not None
    return found


@pytest.mark.parametrize("images", [1, 7])
def test_detections_do_not_depend_on_the_number_of_processes(images: int) -> None:
    alone = DetectionTable.of(detected_by(1, images))
    truth = shapes(images).annotations
    assert len(alone)
    for processes in (2, 3, 4, 8):
        found = DetectionTable.of(detected_by(processes, images))
        for name in ("image_index", "labels", "boxes_xywh", "scores"):
            assert getattr(found, name).tobytes() == getattr(alone, name).tobytes(), (processes, name)
        assert score(truth, found, ["coco", "voc"]) == score(truth, alone, ["coco", "voc"])


def test_every_image_is_detected_once_by_one_process() -> None:
    left: list[Any] = []
    for rank in reversed(range(3)):
        detect_dataset(tiny_model(), shapes(7), tiny_config(), CPU, Share(rank, 3, left=left))
    assert [sorted(part) for part in left] == [[2, 5], [1, 4]]


def test_an_image_that_two_processes_deliver_counts_once() -> None:
    alone, left = detected_by(1, 3), []  # type: ignore[var-annotated]
    detect_dataset(tiny_model(), shapes(3), tiny_config(), CPU, Share(1, 2, left=left))
    left[0] |= dict(enumerate(alone))
    found = detect_dataset(tiny_model(), shapes(3), tiny_config(), CPU, Share(0, 2, left=left))
    assert found is not None
    assert [len(part) for part in found] == [len(part) for part in alone]
