"""The learning-rate range test: which rate it names, what it writes, and what it says where nothing works."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from detector.cli import train
from detector.data.loader import Batch
from detector.engine import rate_test
from detector.engine.learner import Learner, Update
from detector.models import resnet
from detector.models.faster_rcnn import FasterRCNN
from tests.reliability.commands import Outcome, lines_of, run
from tests.reliability.runs import NARROW
from tests.tiny import write_tiny

LOSSES = FasterRCNN.losses

Curve = Callable[[float], float]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that computes in milliseconds."""
    monkeypatch.setattr(resnet, "_WIDTHS", NARROW)


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Outcome]:
    """The command on a training whose loss is a given function of the learning rate."""

    def test(curve: Curve, *arguments: str) -> Outcome:
        def update(self: Learner, parts: list[Batch], iteration: int, rate: float) -> Update:
            loss = curve(rate)
            finite = math.isfinite(loss)
            return Update(dict.fromkeys(LOSSES, loss / 4), 1.0, made=finite, diverged=not finite)

        monkeypatch.setattr(Learner, "update", update)
        small = ["data.train=[{format: shapes, images: 4, size: [32, 32]}]", "training.batch_size=1"]
        command = [write_tiny(tmp_path), "--find-learning-rate", *small, *arguments]
        return run(train.main, *command, "--output", tmp_path / "rates")

    return test


def valley(rate: float) -> float:
    """A loss that is lowest at a rate of 0.01, and blows up from ten times that on."""
    return 1 + (math.log10(rate) + 2) ** 2 / 10 if rate < 0.1 else 1e4


def named(outcome: Outcome) -> float:
    """The rate that the command suggests."""
    (line,) = [line for line in outcome.out.splitlines() if "training.learning_rate=" in line]
    return float(line.split("training.learning_rate=")[1])


def test_it_names_a_third_of_the_rate_at_which_the_smoothed_loss_is_lowest(
    tested: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = tested(valley)
    assert outcome.code == 0
    records = lines_of(tmp_path / "rates/learning_rate.jsonl")
    best = min(records, key=lambda record: record["smoothed"])
    assert named(outcome) == pytest.approx(best["learning_rate"] / 3, rel=0.05)


def test_it_names_a_rate_near_the_valley(tested: Callable[..., Outcome]) -> None:
    assert 0.002 < named(tested(valley)) < 0.05


def test_rates_rise_evenly_on_a_logarithmic_scale(tested: Callable[..., Outcome], tmp_path: Path) -> None:
    tested(lambda rate: 1.0)
    rates = [record["learning_rate"] for record in lines_of(tmp_path / "rates/learning_rate.jsonl")]
    assert len(rates) == rate_test.ITERATIONS
    assert (rates[0], rates[-1]) == pytest.approx((1e-7, 1.0))
    factors = [after / before for before, after in pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * len(factors))


@pytest.mark.parametrize("above", [1e4, math.nan, math.inf])
def test_it_ends_where_the_loss_blows_up(tested: Callable[..., Outcome], tmp_path: Path, above: float) -> None:
    outcome = tested(lambda rate: 1.0 if rate < 1e-3 else above)
    assert outcome.code == 0
    assert "the loss blows up at a learning rate of 0.001" in outcome.err
    assert max(record["learning_rate"] for record in lines_of(tmp_path / "rates/learning_rate.jsonl")) < 1e-3


def test_a_constant_loss_is_smoothed_to_itself(tested: Callable[..., Outcome], tmp_path: Path) -> None:
    tested(lambda rate: 2.0)
    smoothed = [record["smoothed"] for record in lines_of(tmp_path / "rates/learning_rate.jsonl")]
    assert smoothed == pytest.approx([2.0] * len(smoothed))


def test_a_loss_that_is_never_finite_is_told(tested: Callable[..., Outcome]) -> None:
    outcome = tested(lambda rate: math.nan)
    assert outcome.code == 4
    (line,) = outcome.errors
    assert "not finite even at a learning rate of 1e-7" in line


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Outcome, Path]:
    """A real test of a small network."""
    folder = tmp_path / "rates"
    return run(train.main, write_tiny(tmp_path), "--find-learning-rate", "device=cpu", "--output", folder), folder


def test_it_leaves_a_curve_and_numbers_and_no_weights(finished: tuple[Outcome, Path]) -> None:
    outcome, folder = finished
    assert outcome.code == 0
    assert 1e-7 < named(outcome) < 1.0
    with Image.open(folder / "learning_rate.png") as image:
        image.load()
    assert all(
        set(record) == {"learning_rate", "loss", "smoothed"} for record in lines_of(folder / "learning_rate.jsonl")
    )
    assert not list(folder.rglob("*.safetensors"))
    assert json.loads((folder / "exit-0.json").read_text())["code"] == 0


def test_it_can_be_done_again_in_the_same_folder(tested: Callable[..., Outcome]) -> None:
    assert tested(valley).code == 0
    assert tested(valley).code == 0
