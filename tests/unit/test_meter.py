"""What a log line says: means since the last one, and nothing of updates that were left out."""

from __future__ import annotations

import json
import time

import pytest
import torch

from detector.engine.learner import Update
from detector.engine.meter import Meter
from detector.models.faster_rcnn import FasterRCNN

LOSSES = FasterRCNN.losses

CPU = torch.device("cpu")


def update(*values: float, norm: float = 1.0, made: bool = True) -> Update:
    return Update(dict(zip(LOSSES, values, strict=True)), norm, made)


LEFT_OUT = update(float("nan"), 1.0, float("inf"), 1.0, norm=float("nan"), made=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until its only item is set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_losses_and_the_gradient_norm_are_means() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0, norm=10.0), 0.0)
    meter.add(update(3.0, 4.0, 5.0, 6.0, norm=20.0), 0.0)
    record = meter.read(CPU)
    assert [record[name] for name in (*LOSSES, "gradient_norm")] == [2.0, 3.0, 4.0, 5.0, 15.0]


def test_the_loss_is_the_sum_of_the_four() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0), 0.0)
    assert meter.read(CPU)["loss"] == 10.0


def test_an_update_that_was_not_made_counts_as_skipped() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0), 0.0)
    meter.add(LEFT_OUT, 0.0)
    assert meter.read(CPU)["skipped"] == 1


def test_means_are_of_what_was_finite() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0, norm=7.0), 0.0)
    meter.add(LEFT_OUT, 0.0)
    record = meter.read(CPU)
    assert [record[name] for name in (*LOSSES, "gradient_norm")] == [1.0, 1.5, 3.0, 2.5, 7.0]
    assert record["loss"] == 8.0


def test_without_a_finite_value_of_each_there_is_no_loss() -> None:
    meter = Meter(2)
    meter.add(LEFT_OUT, 0.0)
    assert not {"loss", "gradient_norm", "loss_objectness", "loss_class"} & set(meter.read(CPU))


def test_a_record_holds_no_number_that_json_lacks() -> None:
    meter = Meter(2)
    meter.add(LEFT_OUT, 0.0)
    json.dumps(meter.read(CPU), allow_nan=False)


def test_reading_starts_anew() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0), 0.0)
    meter.add(LEFT_OUT, 0.0)
    meter.read(CPU)
    meter.add(update(5.0, 5.0, 5.0, 5.0), 0.0)
    record = meter.read(CPU)
    assert (record["loss"], record["skipped"]) == (20.0, 0)


def test_speed_and_waiting_are_shares_of_the_time_since_the_last_line(clock: list[float]) -> None:
    meter = Meter(16)
    for _ in range(5):
        meter.add(update(1.0, 1.0, 1.0, 1.0), waited=0.5)
    clock[0] += 10.0
    record = meter.read(CPU)
    assert (record["images_per_second"], record["data_wait"]) == (8.0, 0.25)


def test_what_is_left_out_takes_its_time_too(clock: list[float]) -> None:
    meter = Meter(16)
    meter.add(LEFT_OUT, waited=0.0)
    clock[0] += 2.0
    assert meter.read(CPU)["images_per_second"] == 8.0


def test_the_memory_of_the_process_is_told() -> None:
    meter = Meter(2)
    assert 10 < meter.read(CPU)["memory_mib"] < 100_000


def test_a_resumed_meter_gives_the_line_of_one_that_never_stopped() -> None:
    whole, before, after = Meter(2), Meter(2), Meter(2)
    first, second = update(1.0, 2.0, 3.0, 4.0), update(0.1, 0.2, 0.3, 0.4)
    for item in (first, LEFT_OUT, second):
        whole.add(item, 0.0)
    before.add(first, 0.0)
    before.add(LEFT_OUT, 0.0)
    after.load_state_dict(before.state_dict())
    after.add(second, 0.0)
    names = ("loss", *LOSSES, "gradient_norm", "skipped")
    one, other = whole.read(CPU), after.read(CPU)
    assert [one[name] for name in names] == [other[name] for name in names]


def test_measures_are_means_and_no_part_of_the_loss() -> None:
    meter = Meter(2)
    for error in (0.25, 0.75):
        meter.add(Update({"loss_class": 1.0}, 1.0, made=True, measures={"error": error}), 0.0)
    record = meter.read(CPU)
    assert (record["loss"], record["error"]) == (1.0, 0.5)


def test_time_before_a_resume_does_not_count(clock: list[float]) -> None:
    before, after = Meter(10), Meter(10)
    before.add(update(1.0, 1.0, 1.0, 1.0), waited=50.0)
    after.load_state_dict(before.state_dict())
    after.add(update(1.0, 1.0, 1.0, 1.0), waited=0.0)
    clock[0] += 1.0
    record = after.read(CPU)
    assert (record["images_per_second"], record["data_wait"]) == (10.0, 0.0)


def test_its_state_does_not_change_afterwards() -> None:
    meter = Meter(2)
    meter.add(update(1.0, 2.0, 3.0, 4.0), 0.0)
    state = meter.state_dict()
    meter.add(update(1.0, 2.0, 3.0, 4.0), 0.0)
    assert state["sums"]["loss_box"] == 4.0
