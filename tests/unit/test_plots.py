"""Curves: files that open as images, whatever there is to draw, without a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detector.errors import MachineError
from detector.visualization.plots import plot_rate_test, plot_training

LOSSES = ("loss_objectness", "loss_rpn_box", "loss_class", "loss_box")


def iteration(number: int, loss: float = 1.0, rate: float = 0.01) -> dict[str, Any]:
    return {"iteration": number, "learning_rate": rate, "loss": 4 * loss, **dict.fromkeys(LOSSES, loss)}


def evaluation(number: int, **groups: dict[str, float | None]) -> dict[str, Any]:
    return {"iteration": number, "headline": 0.5, **groups}


COCO = evaluation(2, coco={"AP": 0.3, "AP50": 0.5})
BOTH = evaluation(4, coco={"AP": 0.4, "AP50": None}, voc07={"mAP50": 0.6}, voc={"mAP50": 0.65})
RUNS: dict[str, list[dict[str, Any]]] = {
    "a whole run": [iteration(1), iteration(2), COCO, iteration(3), iteration(4), BOTH],
    "one iteration": [iteration(1)],
    "a classifier": [
        {"iteration": 1, "learning_rate": 0.1, "loss": 1.0, "loss_class": 1.0, "error": 0.5},
        evaluation(1, classification={"top1": 0.5, "top5": 1.0, "log_loss": 1.0}),
    ],
    "nothing": [],
    "an evaluation alone": [COCO],
    "iterations without updates": [{"iteration": 1, "learning_rate": 0.1, "skipped": 1}, iteration(2)],
    "an evaluation without numbers": [iteration(1), evaluation(1, coco={"AP": None, "AP50": None})],
    "zeros": [iteration(1, 0.0, 0.0), iteration(2, 0.0, 0.0)],
    "huge losses": [iteration(1, 1e30), iteration(2, 1e-30)],
}


def assert_is_an_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()
        assert min(image.size) > 300
        assert len(image.convert("L").getcolors() or []) > 2


@pytest.mark.parametrize("name", RUNS)
def test_the_curves_of_a_run_are_an_image(tmp_path: Path, name: str) -> None:
    plot_training(tmp_path / "curves.png", RUNS[name])
    assert_is_an_image(tmp_path / "curves.png")


def test_evaluations_change_the_picture(tmp_path: Path) -> None:
    plot_training(tmp_path / "without.png", [iteration(1), iteration(2)])
    plot_training(tmp_path / "with.png", [iteration(1), iteration(2), COCO])
    assert (tmp_path / "without.png").read_bytes() != (tmp_path / "with.png").read_bytes()


@pytest.mark.parametrize(
    ("rates", "losses"),
    [([1e-7, 1e-4, 1e-1], [3.0, 1.0, 9.0]), ([1e-7], [3.0]), ([1e-7, 1e-6], [3.0, 3.0]), ([1e-7, 1e-6], [0.0, 0.0])],
)
def test_a_rate_test_is_an_image(tmp_path: Path, rates: list[float], losses: list[float]) -> None:
    plot_rate_test(tmp_path / "rates.png", rates, losses, losses, rates[0] / 3)
    assert_is_an_image(tmp_path / "rates.png")


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_text("old")
    plot_training(tmp_path / "curves.png", [iteration(1)])
    assert_is_an_image(tmp_path / "curves.png")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="nowhere/curves.png: cannot be written"):
        plot_training(tmp_path / "nowhere/curves.png", [iteration(1)])
