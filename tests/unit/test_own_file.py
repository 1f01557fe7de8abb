"""The weights file of this toolkit says of itself what was put into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from detector.errors import WeightsError
from detector.weights.own_file import WeightsInfo, parse_info, save_weights

PATH = Path("weights.safetensors")
INFO = WeightsInfo("seed: 0", ("cat", "dög"), (7, "x"), 42, 0.3, (0.25, 1.0), "runs/mine", "0123456789abcdef")
TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([1, 2])}


def metadata() -> dict[str, str]:
    with safe_open(PATH, "pt") as file:
        return dict(file.metadata())


def read_again(info: WeightsInfo) -> WeightsInfo | None:
    save_weights(PATH, TENSORS, info)
    return parse_info(metadata(), PATH)


@pytest.mark.parametrize(
    "info",
    [
        INFO,
        replace(INFO, score_threshold=None, class_thresholds=()),
        replace(INFO, class_thresholds=(0.1 + 0.2, float(torch.tensor(0.1)))),
        WeightsInfo("", (), (), 0),
    ],
    ids=["all", "no thresholds", "odd fractions", "nothing"],
)
def test_what_is_said_is_read_back(info: WeightsInfo) -> None:
    assert read_again(info) == info


def test_tensors_are_read_back_to_the_last_bit() -> None:
    save_weights(PATH, TENSORS, INFO)
    for name, tensor in load_file(PATH).items():
        torch.testing.assert_close(tensor, TENSORS[name], rtol=0, atol=0)


def test_a_file_from_before_thresholds_of_classes_has_none() -> None:
    save_weights(PATH, TENSORS, INFO)
    old = {key: value for key, value in metadata().items() if key not in ("class_thresholds", "run", "fingerprint")}
    assert parse_info(old, PATH) == replace(INFO, class_thresholds=(), run="", fingerprint="")


@pytest.mark.parametrize("format_", [{}, {"format": "pt"}, {"format": "detector-weights-99"}])
def test_a_file_of_another_kind_says_nothing(format_: dict[str, str]) -> None:
    save_file({"a": torch.zeros(1)}, PATH, format_ or None)
    assert parse_info(format_, PATH) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_thresholds", "[0.5]"),
        ("class_thresholds", "[0.5, 0.5, 0.5]"),
        ("class_thresholds", "[0.5, 1.5]"),
        ("class_thresholds", "[0.5, -0.1]"),
        ("class_thresholds", "[0.5, NaN]"),
        ("class_thresholds", '[0.5, "0.5"]'),
        ("class_thresholds", "[0.5, null]"),
        ("class_thresholds", "[[0.5], [0.5]]"),
        ("class_thresholds", "0.5"),
        ("class_thresholds", "null"),
        ("class_thresholds", '{"a": 0.5, "b": 0.5}'),
        ("class_thresholds", "[0.5, 0.5"),
        ("score_threshold", "2"),
        ("score_threshold", "NaN"),
        ("score_threshold", '"high"'),
        ("class_names", '["cat"]'),
        ("class_names", "[1, 2]"),
        ("category_ids", "[1]"),
        ("iteration", "many"),
    ],
)
def test_damaged_metadata_is_refused(key: str, value: str) -> None:
    save_weights(PATH, TENSORS, INFO)
    with pytest.raises(WeightsError, match=r"weights\.safetensors: its metadata is damaged"):
        parse_info({**metadata(), key: value}, PATH)


@pytest.mark.parametrize("key", ["config", "class_names", "category_ids", "iteration", "score_threshold"])
def test_missing_metadata_is_refused(key: str) -> None:
    save_weights(PATH, TENSORS, INFO)
    left = {name: value for name, value in metadata().items() if name != key}
    with pytest.raises(WeightsError, match=r"weights\.safetensors: its metadata is damaged"):
        parse_info(left, PATH)
