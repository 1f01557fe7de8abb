"""A checkpoint holds all that a run needs; the comparison of runs would notice if it did not; nothing else counts."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from detector.data.dataset import DetectionDataset
from detector.data.loader import Batch
from detector.data.shapes import ShapesDataset
from detector.engine import checkpoint
from detector.engine.checkpoint import TrainingState, load_checkpoint
from detector.engine.learner import Learner, Update
from detector.models import resnet
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Sample
from tests.reliability.runs import AUGMENTATIONS, NARROW, differences, outcome, records, start, stopped_at

LOSSES = FasterRCNN.losses

# The checkpoint of iteration 4 lies within a log line, and before the first evaluation.
STOP = 4
OVERRIDES = (
    "training.iterations=8", "training.log_every=3", "training.checkpoint_every=2", "training.evaluate_every=6",
    f"training.keep_every={STOP}", "training.ema_decay=0.9", AUGMENTATIONS,
)  # fmt: skip
ADAMW = (*OVERRIDES, "training.precision=fp16", "training.micro_batch_size=1")
SGD = (*OVERRIDES, "training.optimizer=sgd")

Change = Callable[[TrainingState], TrainingState]


@pytest.fixture(scope="module", autouse=True)
def _narrow_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_WIDTHS", NARROW)
        yield


@pytest.fixture(scope="module")
def adamw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with AdamW, averaged weights and a gradient scaler."""
    folder = tmp_path_factory.mktemp("adamw")
    assert start(folder, *ADAMW) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def sgd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with SGD in single precision."""
    folder = tmp_path_factory.mktemp("sgd")
    assert start(folder, *SGD) == 0
    return folder / "run"


def _goes_on(whole: Path, folder: Path, *overrides: str) -> Path:
    run = stopped_at(whole, STOP, folder)
    assert start(folder, *overrides) == 0
    return run


def _goes_on_with(change: Change, whole: Path, folder: Path, *overrides: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load_checkpoint", lambda path: change(load_checkpoint(path)))
        return _goes_on(whole, folder, *overrides)


def _with_learner(**parts: Any) -> Change:
    return lambda state: replace(state, learner=state.learner | parts)


def _with_slots(change: Callable[[str, Any], Any]) -> Change:
    """Changes what the optimiser keeps for each parameter."""

    def changed(state: TrainingState) -> TrainingState:
        optimizer = dict(state.learner["optimizer"])
        optimizer["state"] = {
            number: {name: change(name, value) for name, value in slots.items()}
            for number, slots in optimizer["state"].items()
        }
        return replace(state, learner=state.learner | {"optimizer": optimizer})

    return changed


def _zeroed(wanted: str) -> Change:
    return _with_slots(lambda name, value: torch.zeros_like(value) if name == wanted else value)


def _without_slots(state: TrainingState) -> TrainingState:
    optimizer = state.learner["optimizer"] | {"state": {}}
    return replace(state, learner=state.learner | {"optimizer": optimizer})


def _with_fresh_meter(state: TrainingState) -> TrainingState:
    return replace(state, meter=_zeros(state.meter))


def _zeros(tree: Any) -> Any:
    return {key: _zeros(value) for key, value in tree.items()} if isinstance(tree, dict) else type(tree)(0)


def _with_fresh_scaler(state: TrainingState) -> TrainingState:
    return replace(state, learner=state.learner | {"scaler": torch.amp.GradScaler("cpu").state_dict()})


ADAMW_PIECES: dict[str, Change] = {
    "the weights": lambda state: replace(state, model=state.average or {}),
    "one weight": lambda state: replace(state, model=state.model | {"rpn.conv.bias": state.model["rpn.conv.bias"] * 0}),
    "the average": lambda state: replace(state, average=None),
    "an average of its own": lambda state: replace(state, average=state.model),
    "all of the optimiser": _without_slots,
    "AdamW's means": _zeroed("exp_avg"),
    "AdamW's squares": _zeroed("exp_avg_sq"),
    "AdamW's count": _zeroed("step"),
    "the scaler": _with_learner(scaler={}),
    "the scaler's own numbers": _with_fresh_scaler,
    "the meter": _with_fresh_meter,
    "its iteration, one too few": lambda state: replace(state, iteration=state.iteration - 1),
    "its iteration, one too many": lambda state: replace(state, iteration=state.iteration + 1),
}


def test_a_run_that_goes_on_with_everything_ends_as_one_that_ran_through(adamw: Path, tmp_path: Path) -> None:
    run = _goes_on_with(lambda state: state, adamw, tmp_path, *ADAMW)
    assert differences(outcome(adamw), outcome(run)) == []


@pytest.mark.parametrize("piece", ADAMW_PIECES)
def test_a_run_that_goes_on_without_a_piece_ends_otherwise(adamw: Path, tmp_path: Path, piece: str) -> None:
    run = _goes_on_with(ADAMW_PIECES[piece], adamw, tmp_path, *ADAMW)
    assert differences(outcome(adamw), outcome(run)) != []


def test_a_run_with_sgd_goes_on_to_the_last_bit(sgd: Path, tmp_path: Path) -> None:
    assert differences(outcome(sgd), outcome(_goes_on(sgd, tmp_path, *SGD))) == []


@pytest.mark.parametrize("change", [_without_slots, _zeroed("momentum_buffer")])
def test_a_run_with_sgd_that_goes_on_without_momentum_ends_otherwise(sgd: Path, tmp_path: Path, change: Change) -> None:
    run = _goes_on_with(change, sgd, tmp_path, *SGD)
    assert differences(outcome(sgd), outcome(run)) != []


def test_losses_alone_would_not_notice_a_lost_average(adamw: Path, tmp_path: Path) -> None:
    run = _goes_on_with(ADAMW_PIECES["the average"], adamw, tmp_path, *ADAMW)
    losses = [[record for record in records(item) if "loss" in record] for item in (adamw, run)]
    assert differences(*losses) == []


def _poison(patch: pytest.MonkeyPatch, poisoned: set[int]) -> None:
    """Makes the loss of some iterations, counted from 0, not a number."""
    update, backward = Learner.update, Learner._backward

    def poisoned_update(self: Learner, parts: list[Batch], iteration: int, rate: float) -> Update:
        value = torch.full((len(LOSSES),), torch.nan)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Learner, "_backward", (lambda *_: value) if iteration in poisoned else backward)
            return update(self, parts, iteration, rate)

    patch.setattr(Learner, "update", poisoned_update)


def test_updates_left_out_in_a_row_are_counted_across_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*OVERRIDES, "training.on_nonfinite_loss=skip"]
    with pytest.MonkeyPatch.context() as patch:
        _poison(patch, {2, 3})
        assert start(tmp_path / "whole", *options) == 0
    _poison(monkeypatch, {4, 5})
    stopped_at(tmp_path / "whole" / "run", STOP, tmp_path / "counted")
    assert start(tmp_path / "counted", *options) == 4
    stopped_at(tmp_path / "whole" / "run", STOP, tmp_path / "forgotten")
    change = _with_learner(skipped_in_row=0)
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path: change(load_checkpoint(path)))
    assert start(tmp_path / "forgotten", *options) == 0


def _noise() -> float:
    """Drawn from all three global generators."""
    return 0.01 * (float(torch.rand(())) + float(np.random.rand()) + random.random())  # noqa: NPY002


def _make_a_layer_noisy(patch: pytest.MonkeyPatch) -> None:
    normalize = FasterRCNN.normalize

    def noisy(self: FasterRCNN, pixels: Tensor) -> Tensor:
        normal = normalize(self, pixels)
        return torch.nn.functional.dropout(normal, 0.1) * (1 + _noise()) if self.training else normal

    patch.setattr(FasterRCNN, "normalize", noisy)


def _make_the_data_noisy(patch: pytest.MonkeyPatch) -> None:
    read: Callable[[DetectionDataset, int], Sample] = ShapesDataset.__getitem__

    def noisy(self: ShapesDataset, index: int) -> Sample:
        sample = read(self, index)
        return replace(sample, image=(sample.image * (1 - 10 * _noise())).clip(0, 255).astype(np.uint8))

    patch.setattr(ShapesDataset, "__getitem__", noisy)


needs_fork = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="workers that are not forked do not see what a test replaces"
)


@needs_fork
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("make_noisy", [_make_a_layer_noisy, _make_the_data_noisy])
def test_what_draws_from_global_generators_goes_on_to_the_last_bit(
    sgd: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_noisy: Callable[[pytest.MonkeyPatch], None],
    workers: int,
) -> None:
    make_noisy(monkeypatch)
    assert start(tmp_path / "whole", *SGD, "data.workers=0") == 0
    expected = outcome(tmp_path / "whole" / "run")
    assert differences(expected, outcome(sgd)) != []
    run = _goes_on(tmp_path / "whole" / "run", tmp_path / "stopped", *SGD, f"data.workers={workers}")
    assert differences(expected, outcome(run)) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_number_of_workers_changes_no_bit(tmp_path: Path, precision: str) -> None:
    for workers in (0, 2):
        options = [*OVERRIDES, f"training.precision={precision}", f"data.workers={workers}"]
        assert start(tmp_path / str(workers), *options) == 0
    assert differences(*(outcome(tmp_path / name / "run") for name in ("0", "2"))) == []


def test_another_micro_batch_size_changes_the_last_bits_alone(sgd: Path, tmp_path: Path) -> None:
    run = _goes_on(sgd, tmp_path, *SGD, "training.micro_batch_size=1")
    ours, theirs = ([record for record in records(item) if "loss" in record] for item in (run, sgd))
    assert [record["iteration"] for record in ours] == [record["iteration"] for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_tensorboard_shows_every_point_once(tmp_path: Path) -> None:
    options = [*OVERRIDES, "training.log_every=1", "training.evaluate_every=2", f"training.keep_every={STOP}"]
    assert start(tmp_path, *options) == 0
    run = tmp_path / "run"
    (run / "model_final.safetensors").unlink()
    assert start(tmp_path, *options, "--resume", str(run / "checkpoints" / f"step-{STOP:09d}")) == 0
    points = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in points.Scalars("train/loss")] == list(range(1, 9))
    assert [point.step for point in points.Scalars("coco/AP")] == [2, 4, 6, 8]
