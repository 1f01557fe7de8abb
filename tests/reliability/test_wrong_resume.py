"""Going on with what is not the same run is refused, told, or done on request; what is finished is left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from detector import load_config
from detector.data.export import write_coco
from detector.data.shapes import ShapesDataset
from detector.engine.checkpoint import MANIFEST, TrainingState, iteration_of, list_checkpoints, load_checkpoint
from detector.models import resnet
from detector.structures import Size
from tests.reliability.runs import NARROW, differences, records, start, stopped_at

OPTIONS = ("training.checkpoint_every=2", "training.evaluate_every=0")
EVALUATED = ("training.evaluate_every=1", "training.iterations=8", "training.early_stopping_patience=2")
# So small that the weights, and with them the metrics, stay.
NO_LEARNING = "training.learning_rate=1e-30"


@pytest.fixture(scope="module", autouse=True)
def _narrow_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", NARROW)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four iterations with checkpoints of the second and of the fourth."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, *OPTIONS) == 0
    return folder / "run"


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The same run as it was after two iterations."""
    return stopped_at(whole, 2, tmp_path)


def _state(run: Path) -> TrainingState:
    return load_checkpoint(list_checkpoints(run / "checkpoints")[-1])


def _iterations(run: Path) -> list[int]:
    return [iteration_of(path) for path in list_checkpoints(run / "checkpoints")]


def _content(run: Path) -> dict[str, bytes]:
    """All files of a run but its diary and what is said of the last start."""
    diary = {"train.log", "environment.json", "exit-0.json", ".lock"}
    files = [path for path in run.rglob("*") if path.is_file() and path.name not in diary]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


def _set_format(checkpoint: Path, number: int) -> None:
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).write_text(json.dumps(manifest | {"format": number}))


# Settings


def test_another_setting_is_refused_with_both_values(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _content(stopped)
    assert start(tmp_path, *OPTIONS, "training.learning_rate=0.5") == 2
    message = capsys.readouterr().err
    assert "training.learning_rate: 0.001 there, 0.5 here" in message
    assert "--resume-anyway" in message
    assert _content(stopped) == before


def test_a_checkpoint_of_a_run_with_another_setting_is_refused_elsewhere_too(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = whole / "checkpoints" / "step-000000002"
    assert start(tmp_path, *OPTIONS, "training.batch_size=4", "--resume", str(checkpoint)) == 2
    message = capsys.readouterr().err
    assert "the checkpoint of iteration 2" in message
    assert "training.batch_size: 2 there, 4 here" in message


def test_many_other_settings_are_counted(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = ["seed=1", "training.batch_size=4", "training.precision=bf16", "training.iterations=9", NO_LEARNING]
    assert start(tmp_path, *OPTIONS, *others) == 2
    message = capsys.readouterr().err
    assert message.count(" there, ") == 3
    assert "and 2 more" in message


@pytest.mark.parametrize(
    "free",
    ["data.workers=1", "training.micro_batch_size=1", "training.log_every=2", "training.keep_every=2",
     "evaluation.proposals=5"],
)  # fmt: skip
def test_what_does_not_change_the_run_may_change(stopped: Path, tmp_path: Path, free: str) -> None:
    assert start(tmp_path, *OPTIONS, free) == 0
    assert _iterations(stopped)[-1] == 4


def test_another_setting_is_taken_and_told_when_asked_for(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, *OPTIONS, "training.learning_rate=0.5", "--resume-anyway") == 0
    told = "training.learning_rate: 0.001 there, 0.5 here"
    assert told in capsys.readouterr().err
    assert told in (stopped / "train.log").read_text()
    rates = [record["learning_rate"] for record in records(stopped)]
    assert rates[:2] == [0.001, pytest.approx(0.00085, rel=0.01)]
    assert rates[2:] == [pytest.approx(0.25), pytest.approx(0.0732, rel=0.01)]


def test_going_on_anyway_where_nothing_differs_changes_nothing(whole: Path, stopped: Path, tmp_path: Path) -> None:
    assert start(tmp_path, *OPTIONS, "--resume-anyway") == 0
    assert differences(vars(_state(whole)), vars(_state(stopped))) == []


def test_another_weight_decay_has_its_effect(stopped: Path, tmp_path: Path) -> None:
    assert start(tmp_path, *OPTIONS, "training.weight_decay=0.25", "--resume-anyway") == 0
    groups = _state(stopped).learner["optimizer"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0]


def test_another_optimiser_starts_without_a_past(stopped: Path, tmp_path: Path) -> None:
    assert start(tmp_path, *OPTIONS, "training.optimizer=sgd", "--resume-anyway") == 0
    slots = _state(stopped).learner["optimizer"]["state"]
    assert {name for slot in slots.values() for name in slot} == {"momentum_buffer"}


def test_an_average_that_begins_late_begins_at_the_weights_so_far(whole: Path, stopped: Path, tmp_path: Path) -> None:
    options = ["training.ema_decay=0.9", NO_LEARNING]
    before = load_checkpoint(stopped / "checkpoints" / "step-000000002").model
    assert start(tmp_path, *OPTIONS, *options, "--resume-anyway") == 0
    average = _state(stopped).average
    assert average is not None
    for name, value in average.items():
        torch.testing.assert_close(value, before[name], msg=name)


# Data


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """The annotations of a data set whose training was stopped after two iterations."""
    folder = tmp_path / "coco"
    write_coco(ShapesDataset(12, 0, Size(64, 80), hard=False), folder)
    assert start(tmp_path / "first", *OPTIONS, *_coco(folder)) == 0
    stopped_at(tmp_path / "first" / "run", 2, tmp_path)
    content = json.loads((folder / "annotations.json").read_text())
    content["annotations"][0]["bbox"][2] -= 1
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def _coco(folder: Path) -> list[str]:
    return [
        f"data.train=[{{format: coco, images: {folder / 'images'}, annotations: {folder / 'annotations.json'}}}]",
        f"data.val=[{{format: coco, images: {folder / 'images'}, annotations: {folder / 'annotations.json'}}}]",
    ]


def test_a_changed_box_is_noticed_by_the_fingerprint(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    before = _content(tmp_path / "run")
    assert start(tmp_path, *OPTIONS, *_coco(annotations.parent)) == 2
    message = capsys.readouterr().err
    assert "another training set" in message
    assert "fingerprint" in message
    assert "12 images, 42 objects" in message
    assert _content(tmp_path / "run") == before


def test_changed_data_are_taken_and_told_when_asked_for(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert start(tmp_path, *OPTIONS, *_coco(annotations.parent), "--resume-anyway") == 0
    assert "gone on with anyway" in capsys.readouterr().err
    assert _iterations(tmp_path / "run")[-1] == 4


# Machines


def test_another_number_of_threads_is_told_and_gone_on_with(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)
    try:
        assert start(tmp_path, *OPTIONS) == 0
    finally:
        torch.set_num_threads(1)
    message = capsys.readouterr().err
    assert "warning: not bit for bit" in message
    assert "threads 1 -> 2" in message


def test_nothing_is_told_where_nothing_differs(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, *OPTIONS) == 0
    assert "bit for bit" not in capsys.readouterr().err


# Checkpoints


def _run_to_redo(whole: Path, folder: Path) -> Path:
    """A run with two checkpoints that has not finished."""
    stopped_at(whole, 2, folder)
    return stopped_at(whole, 4, folder)


def test_later_checkpoints_are_set_aside(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run_to_redo(whole, tmp_path)
    earlier = run / "checkpoints" / "step-000000002"
    assert start(tmp_path, *OPTIONS, "--resume", str(earlier)) == 0
    assert (run / "checkpoints" / "unused-step-000000004").is_dir()
    assert "set aside as unused-step-000000004" in capsys.readouterr().err
    assert [record["iteration"] for record in records(run)] == [1, 2, 3, 4]
    assert differences(vars(_state(whole)), vars(_state(run))) == []


def test_a_checkpoint_of_another_format_is_passed_over(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _run_to_redo(whole, tmp_path)
    _set_format(run / "checkpoints" / "step-000000004", 99)
    assert start(tmp_path, *OPTIONS) == 0
    message = capsys.readouterr().err
    assert "step-000000004: written in format 99" in message
    assert "passed over" in message
    assert "going on after iteration 2" in message
    assert differences(vars(_state(whole)), vars(_state(run))) == []


def test_a_named_checkpoint_of_another_format_is_refused(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = stopped / "checkpoints" / "step-000000002"
    _set_format(checkpoint, 99)
    assert start(tmp_path, *OPTIONS, "--resume", str(checkpoint)) == 2
    assert "written in format 99, this version reads" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_refused(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(tmp_path, *OPTIONS, "--resume", str(stopped / "checkpoints" / "step-000000003")) == 2
    assert "step-000000003: no such checkpoint" in capsys.readouterr().err


# Finished runs


def test_a_finished_run_is_left_alone(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _content(whole)
    assert start(whole.parent, *OPTIONS) == 0
    assert "already finished; nothing to do" in capsys.readouterr().err
    assert _content(whole) == before


def test_a_finished_run_goes_on_from_an_earlier_checkpoint_that_is_named(whole: Path, tmp_path: Path) -> None:
    run = _run_to_redo(whole, tmp_path)
    shutil.copy(whole / "model_final.safetensors", run)
    assert start(tmp_path, *OPTIONS, "--resume", str(run / "checkpoints" / "step-000000002")) == 0
    assert (run / "checkpoints" / "unused-step-000000004").is_dir()


def test_epochs_are_turned_into_iterations(tmp_path: Path) -> None:
    assert start(tmp_path, *OPTIONS, "training.epochs=0.75") == 0
    run = tmp_path / "run"
    assert load_config(run / "config.yaml").training.iterations == 5  # 0.75 x 12 images in batches of 2, rounded up
    assert _state(run).iteration == 5
    assert len(records(run)) == 5


def test_a_run_of_epochs_goes_on(tmp_path: Path) -> None:
    options = [*OPTIONS, "training.epochs=0.75"]
    assert start(tmp_path / "whole", *options) == 0
    run = stopped_at(tmp_path / "whole" / "run", 4, tmp_path)
    assert start(tmp_path, *options) == 0
    assert differences(vars(_state(tmp_path / "whole" / "run")), vars(_state(run))) == []


def test_a_finished_run_of_epochs_is_left_alone(tmp_path: Path) -> None:
    options = [*OPTIONS, "training.epochs=0.5"]
    assert start(tmp_path, *options) == 0
    before = _content(tmp_path / "run")
    assert start(tmp_path, *options) == 0
    assert _content(tmp_path / "run") == before


def test_other_epochs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(tmp_path, *OPTIONS, "training.epochs=0.5") == 0
    assert start(tmp_path, *OPTIONS, "training.epochs=1.5") == 2
    assert "training.epochs: 0.5 there, 1.5 here" in capsys.readouterr().err


# Early ends


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that gets no better, with a patience of two evaluations."""
    folder = tmp_path_factory.mktemp("early")
    assert start(folder, *EVALUATED, NO_LEARNING) == 0
    return folder / "run"


def test_a_run_that_gets_no_better_ends_early(ended_early: Path) -> None:
    assert [record["iteration"] for record in records(ended_early) if "headline" in record] == [1, 2, 3]
    assert _state(ended_early).iteration == 3
    assert (ended_early / "model_final.safetensors").exists()


def test_a_run_that_ended_early_is_finished(ended_early: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _content(ended_early)
    assert start(ended_early.parent, *EVALUATED, NO_LEARNING) == 0
    assert "already finished; nothing to do" in capsys.readouterr().err
    assert _content(ended_early) == before


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_that_goes_on_ends_early_at_the_same_iteration(ended_early: Path, tmp_path: Path, stop: int) -> None:
    run = stopped_at(ended_early, stop, tmp_path)
    assert start(tmp_path, *EVALUATED, NO_LEARNING) == 0
    assert records(run) == records(ended_early)
    assert (run / "model_final.safetensors").exists()


@pytest.mark.parametrize("metric", ["voc.mAP50", "voc07.mAP50"])
def test_a_best_metric_that_does_not_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str
) -> None:
    assert start(tmp_path, f"training.best_metric={metric}") == 2
    message = capsys.readouterr().err
    assert f"training.best_metric is {metric}, but evaluation.metrics lacks {metric.split('.')[0]}" in message
    assert not (tmp_path / "run").exists()
