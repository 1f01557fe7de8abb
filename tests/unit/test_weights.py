from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import pickle
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from detector.config import dump_config
from detector.config.schema import ModelConfig
from detector.errors import MachineError, WeightsError
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.weights.initial import load_initial
from detector.weights.layouts import OWN
from detector.weights.load import LoadReport, Weights, fill, read_weights
from detector.weights.own_file import WeightsInfo, save_weights
from tests.tiny import NUM_CLASSES, tiny_config

FROZEN = "model.backbone.norm=frozen_batch"
# What weights of torchvision were trained with.
RESNET = ("model.pixel_mean=[123.675, 116.28, 103.53]", "model.pixel_std=[58.395, 57.12, 57.375]", FROZEN)
RESNET18 = "ResNet18_Weights.IMAGENET1K_V1"
DEPTH_34 = "model.backbone.depth=34"

Tensors = Mapping[str, torch.Tensor]


class Small(nn.Module):
    """A module with tensors of several kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.short = nn.Parameter(torch.randn(5).bfloat16())
        self.register_buffer("nothing", torch.zeros(0, 4))


class Hostile:
    """Leaves a mark in the current folder when it is unpickled."""

    mark = Path("it_ran")

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def one_line(action: Callable[..., object], *arguments: object) -> str:
    """The message of the WeightsError that an action ends in."""
    with pytest.raises(WeightsError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert message.isprintable(), message
    return message


@lru_cache(maxsize=3)
def built(classes: int, overrides: tuple[str, ...], seed: int) -> FasterRCNN:
    config = tiny_config(*overrides)
    torch.manual_seed(seed)
    return build_model(config.model, classes, config.evaluation)


def model_of(*overrides: str, classes: int = NUM_CLASSES, seed: int = 0) -> FasterRCNN:
    """A tiny model of one's own; drawing its weights takes longer than copying them."""
    return copy.deepcopy(built(classes, overrides, seed))


def settings(weights: Path | str | None, *overrides: str) -> ModelConfig:
    return tiny_config(f"model.weights={json.dumps(None if weights is None else str(weights))}", *overrides).model


def info_of(*overrides: str, score_threshold: float | None = 0.25) -> WeightsInfo:
    names = ("cat", "größter Hund", "a, b")
    return WeightsInfo(dump_config(tiny_config(*overrides)), names, (1, 18, "x"), 90000, score_threshold)


def save(path: Path | str, model: nn.Module, *overrides: str) -> None:
    save_weights(Path(path), model.state_dict(), info_of(*overrides))


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return found.dtype == expected.dtype and torch.equal(found, expected)


def assert_same_state(model: nn.Module, before: Tensors) -> None:
    assert [key for key, value in model.state_dict().items() if not same(value, before[key])] == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def own(folder: Path) -> Path:
    """A weights file of a tiny model."""
    save(folder / "own.safetensors", model_of(seed=1))
    return folder / "own.safetensors"


@pytest.fixture(scope="module")
def resnet18() -> Tensors:
    """A ResNet-18 of torchvision with random weights."""
    torch.manual_seed(2)
    model = torchvision.models.resnet18()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model.state_dict()


@pytest.fixture(scope="module")
def pth(folder: Path, resnet18: Tensors) -> Path:
    torch.save(resnet18, folder / "resnet18.pth")
    return folder / "resnet18.pth"


def cached_name(name: str) -> str:
    return Path(torchvision.models.get_weight(name).url).name


# Writing and reading.


def test_tensors_survive_to_the_last_bit() -> None:
    model = Small()
    save("a.safetensors", model)
    tensors = read_weights("a.safetensors").tensors
    assert tensors.keys() == model.state_dict().keys()
    assert all(same(tensors[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("score_threshold", [0.25, 0.1 + 0.2, None])
def test_what_a_file_says_of_itself_survives(score_threshold: float | None) -> None:
    info = info_of(score_threshold=score_threshold)
    save_weights(Path("a.safetensors"), Small().state_dict(), info)
    assert read_weights("a.safetensors").info == info


def test_a_transposed_tensor_can_be_saved() -> None:
    save_weights(Path("a.safetensors"), {"weight": torch.arange(6.0).view(2, 3).t()}, info_of())
    assert read_weights("a.safetensors").tensors["weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_file_is_read_whatever_the_length_of_its_header() -> None:
    # A safetensors file begins with that length, a multiple of 8, which may look like the first byte of a pickle.
    for spaces in range(0, 256, 8):
        info = WeightsInfo("model: {}" + " " * spaces, ("cat",), (1,), 5)
        save_weights(Path("a.safetensors"), {"a": torch.zeros(1)}, info)
        assert read_weights("a.safetensors").info == info


def test_saving_again_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        save_weights(tmp_path / "a.safetensors", {"a": torch.tensor(value)}, info_of())
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert read_weights(tmp_path / "a.safetensors").tensors["a"].item() == 2


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_the_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.safetensors"
    save(path, Small())
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fill_the_disk)
    with pytest.raises(MachineError, match=r"a\.safetensors: cannot be written .*No space left"):
        save(path, Small())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to_is_named() -> None:
    Path("file").touch()
    with pytest.raises(MachineError, match=r"file/a\.safetensors: cannot be written"):
        save("file/a.safetensors", Small())


# Files that cannot be used.

KINDS = pytest.mark.parametrize("kind", ["own", "zip", "legacy", "numpy"])


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, bytes]:
    """The bytes of one small module in every kind of file that can be read."""
    model = nn.Linear(2, 3)
    save(tmp_path / "own", model)
    torch.save(model.state_dict(), tmp_path / "zip")
    torch.save(model.state_dict(), tmp_path / "legacy", _use_new_zipfile_serialization=False)
    arrays = {key: value.numpy() for key, value in model.state_dict().items()}
    (tmp_path / "numpy").write_bytes(pickle.dumps({"model": arrays}, protocol=2))
    return {name: (tmp_path / name).read_bytes() for name in ("own", "zip", "legacy", "numpy")}


def test_a_missing_file_is_named() -> None:
    assert one_line(read_weights, "gone.safetensors") == "gone.safetensors: no such weights file"


def test_a_missing_file_is_named_when_a_training_starts_from_it() -> None:
    message = one_line(load_initial, nn.Linear(1, 1), settings("gone.safetensors"))
    assert message == "gone.safetensors: no such weights file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert one_line(read_weights, tmp_path) == f"{tmp_path}: no such weights file"


@pytest.mark.parametrize("content", [b"", b"\0", b"hello\n", b"\x80\x02", b"PK\x03\x04", b"\xff" * 1000, b"{}" * 50])
def test_any_other_file_is_no_weights_file(content: bytes) -> None:
    Path("a.bin").write_bytes(content)
    message = one_line(read_weights, "a.bin")
    assert message.startswith("a.bin: ")
    assert "weights file" in message


@KINDS
@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
def test_a_file_that_was_cut_off_is_damaged(kinds: dict[str, bytes], kind: str, quarters: int) -> None:
    content = kinds[kind]
    Path("cut").write_bytes(content[: len(content) * quarters // 4 - 1])
    assert one_line(read_weights, "cut").startswith("cut: ")


# Torch warns of a strange pickle protocol before it fails.
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@KINDS
def test_damaged_bytes_never_end_in_another_error(kinds: dict[str, bytes], kind: str) -> None:
    dice = random.Random(0)
    for _ in range(300):
        content = bytearray(kinds[kind])
        content[dice.randrange(min(len(content), 600))] = dice.randrange(256)
        Path("bad").write_bytes(content)
        with contextlib.suppress(WeightsError):  # a file may still be legible
            read_weights("bad")


def test_a_damaged_directory_of_a_zip_never_ends_in_another_error(kinds: dict[str, bytes]) -> None:
    # The last 98 bytes: its end record, and before it the same for archives beyond 4 GiB.
    for position in range(1, 99):
        content = bytearray(kinds["zip"])
        content[-position] ^= 0xFF
        Path("bad").write_bytes(content)
        with contextlib.suppress(WeightsError):
            read_weights("bad")


@pytest.mark.parametrize(
    "array",
    [np.array(["x"]), np.array(["2020-01-01"], np.datetime64), np.array([{}])],
    ids=["text", "dates", "objects"],
)
def test_arrays_that_are_no_tensors_are_refused(array: np.ndarray) -> None:
    Path("a.pkl").write_bytes(pickle.dumps({"a": array}))
    assert one_line(read_weights, "a.pkl").startswith("a.pkl: ")


def test_tensors_without_a_configuration_are_of_an_unknown_layout() -> None:
    save_file({"features.0.weight": torch.zeros(1)}, "vgg.safetensors")
    message = one_line(read_weights, "vgg.safetensors")
    assert message.startswith("vgg.safetensors: the layout of its 1 tensors ('features.0.weight', ...) is not known")


def test_a_list_of_tensors_has_no_names() -> None:
    torch.save([torch.zeros(1)], "list.pth")
    assert one_line(read_weights, "list.pth") == "list.pth: holds a list instead of named tensors"


def test_a_file_without_tensors_says_so() -> None:
    torch.save({"epoch": 3}, "epoch.pth")
    assert one_line(read_weights, "epoch.pth") == "epoch.pth: holds no tensors"


METADATA = {
    "format": "detector-weights-1",
    "config": "model: {}",
    "class_names": '["cat", "dog"]',
    "category_ids": "[1, 2]",
    "iteration": "5",
    "score_threshold": "null",
}


def test_metadata_of_the_tests_is_sound() -> None:
    save_file({"a": torch.zeros(1)}, "a.safetensors", METADATA)
    assert read_weights("a.safetensors").info == WeightsInfo("model: {}", ("cat", "dog"), (1, 2), 5, None)


@pytest.mark.parametrize("key", [key for key in METADATA if key != "format"])
def test_missing_metadata_is_damage(key: str) -> None:
    metadata = {name: value for name, value in METADATA.items() if name != key}
    save_file({"a": torch.zeros(1)}, "a.safetensors", metadata)
    assert "metadata is damaged" in one_line(read_weights, "a.safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("class_names", "cat", id="no JSON"),
        pytest.param("class_names", "7", id="no list of names"),
        pytest.param("class_names", '"cat"', id="one name instead of a list"),
        pytest.param("class_names", "[1, 2]", id="numbers for names"),
        pytest.param("class_names", '["cat"]', id="fewer names than ids"),
        pytest.param("category_ids", "null", id="no list of ids"),
        pytest.param("category_ids", "[" * 100_000, id="brackets without end"),
        pytest.param("iteration", "five", id="no number of iterations"),
        pytest.param("score_threshold", "high", id="threshold is no JSON"),
        pytest.param("score_threshold", '"high"', id="threshold is no number"),
        pytest.param("score_threshold", "NaN", id="threshold is NaN"),
    ],
)
def test_senseless_metadata_is_damage(key: str, value: str) -> None:
    save_file({"a": torch.zeros(1)}, "a.safetensors", METADATA | {key: value})
    assert "metadata is damaged" in one_line(read_weights, "a.safetensors")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_does_not_run(protocol: int) -> None:
    Path("hostile.pth").write_bytes(pickle.dumps({"conv1.weight": Hostile()}, protocol))
    one_line(read_weights, "hostile.pth")
    assert not Hostile.mark.exists()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_pickle_that_torch_saved_does_not_run(as_zip: bool) -> None:
    torch.save({"a": torch.zeros(1), "b": Hostile()}, "hostile.pth", _use_new_zipfile_serialization=as_zip)
    assert "holds more than tensors" in one_line(read_weights, "hostile.pth")
    assert not Hostile.mark.exists()


def test_a_pickle_inside_an_array_does_not_run() -> None:
    Path("hostile.pkl").write_bytes(pickle.dumps({"a": np.array([Hostile()], dtype=object)}))
    one_line(read_weights, "hostile.pkl")
    assert not Hostile.mark.exists()


def test_a_training_that_starts_from_a_pickle_does_not_run_it() -> None:
    torch.save({"conv1.weight": Hostile()}, "hostile.safetensors")
    one_line(load_initial, nn.Linear(1, 1), settings("hostile.safetensors"))
    assert not Hostile.mark.exists()


# Loading what must fit.


def load(model: nn.Module, tensors: Tensors) -> LoadReport:
    return fill(model, tiny_config().model, Weights("a.safetensors", OWN, dict(tensors)))


def test_tensors_that_fit_are_loaded() -> None:
    model, other = Small(), Small()
    load(model, other.state_dict())
    assert_same_state(model, other.state_dict())


def test_a_missing_tensor_is_named() -> None:
    message = one_line(load, nn.Linear(2, 3), {"weight": torch.zeros(3, 2)})
    assert message == "a.safetensors: does not fit the model: bias is missing"


def test_an_unexpected_tensor_is_named() -> None:
    tensors = nn.Linear(2, 3).state_dict() | {"more": torch.zeros(1)}
    assert one_line(load, nn.Linear(2, 3), tensors) == "a.safetensors: does not fit the model: more is unexpected"


def test_a_tensor_of_another_shape_is_named() -> None:
    message = one_line(load, nn.Linear(2, 3), nn.Linear(5, 3).state_dict())
    assert message.endswith("weight is (3, 5), the model wants (3, 2)")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(bad: float) -> None:
    tensors = nn.Linear(2, 3).state_dict() | {"bias": torch.tensor([0, bad, 0])}
    assert one_line(load, nn.Linear(2, 3), tensors) == "a.safetensors: bias holds NaN or infinity"


def test_many_problems_are_counted() -> None:
    message = one_line(load, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(2, 2)), {})
    assert message.endswith("0.weight is missing; 0.bias is missing; 1.weight is missing and 3 more")


@pytest.mark.parametrize(
    "tensors", [{"weight": torch.zeros(3, 2)}, {"weight": torch.zeros(3, 2), "bias": torch.ones(4)}]
)
def test_tensors_that_do_not_fit_leave_the_model_as_it_was(tensors: Tensors) -> None:
    model = nn.Linear(2, 3)
    before = copy.deepcopy(model.state_dict())
    one_line(load, model, tensors)
    assert_same_state(model, before)


# Starting from weights: ResNets in torchvision's layout.


def test_without_weights_the_model_stays_random() -> None:
    model = nn.Linear(2, 3)
    before = copy.deepcopy(model.state_dict())
    assert load_initial(model, settings(None)) is None
    assert_same_state(model, before)


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
def test_a_local_resnet_fills_conv1_to_conv5_x(pth: Path, resnet18: Tensors, norm: str) -> None:
    overrides = (*RESNET, f"model.backbone.norm={norm}")
    model = model_of(*overrides)
    load_initial(model, settings(pth, *overrides))
    state = model.state_dict()
    assert same(state["backbone.conv1.conv.weight"], resnet18["conv1.weight"])
    assert same(state["backbone.conv1.norm.running_var"], resnet18["bn1.running_var"])
    assert same(state["backbone.conv2_x.1.conv2.conv.weight"], resnet18["layer1.1.conv2.weight"])
    assert same(state["backbone.conv4_x.0.shortcut.norm.running_mean"], resnet18["layer3.0.downsample.1.running_mean"])
    assert same(state["roi_head.conv5_x.0.shortcut.conv.weight"], resnet18["layer4.0.downsample.0.weight"])


def test_what_a_resnet_lacks_stays_random(pth: Path) -> None:
    model = model_of(*RESNET)
    before = copy.deepcopy(model.state_dict())
    load_initial(model, settings(pth, *RESNET))
    changed = {key for key, value in model.state_dict().items() if not same(value, before[key])}
    resnet = {key for key in before if key.startswith(("backbone.", "roi_head.conv5_x."))}
    # The random norms of torchvision are ours, weight 1 and bias 0, but for the last of each block: ours begins at 0.2.
    weakened = {key for key in resnet if key.endswith((".0.conv2.norm.weight", ".1.conv2.norm.weight"))}
    constant = {key for key in resnet if key.endswith(("norm.weight", "norm.bias"))} - weakened
    assert len(weakened) == 8
    assert changed == resnet - constant


def test_the_report_names_what_was_taken_and_what_was_not(pth: Path) -> None:
    report = load_initial(model_of(*RESNET), settings(pth, *RESNET))
    assert report is not None
    # 20 convolutions, and 20 norms of four tensors.
    assert len(report.matched) == 100
    layers = {"rpn.conv", "rpn.objectness", "rpn.deltas", "roi_head.class_layer", "roi_head.box_layer"}
    assert set(report.missing) == {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert {name for name in report.unexpected if "num_batches" not in name} == {"fc.weight", "fc.bias"}
    assert report.wrong_shape == ()


def test_the_report_is_logged(pth: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    report = load_initial(model_of(*RESNET), settings(pth, *RESNET))
    assert report is not None
    assert f"{pth} (torchvision layout): 100 tensors matched, 10 missing" in report.lines()[0]
    assert all(line in caplog.text for line in report.lines())


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_weights_may_lie_inside_a_checkpoint(resnet18: Tensors, wrap: str) -> None:
    torch.save({wrap: resnet18, "epoch": 3}, "checkpoint.pth")
    assert_first_layer_is_taken("checkpoint.pth", resnet18)


def test_weights_may_be_of_the_time_before_zip_files(resnet18: Tensors) -> None:
    torch.save(resnet18, "old.pth", _use_new_zipfile_serialization=False)
    assert_first_layer_is_taken("old.pth", resnet18)


def test_a_resnet_may_be_a_safetensors_file(resnet18: Tensors) -> None:
    save_file(dict(resnet18), "resnet18.safetensors")
    assert_first_layer_is_taken("resnet18.safetensors", resnet18)


def assert_first_layer_is_taken(path: str, resnet18: Tensors) -> None:
    model = model_of(*RESNET)
    load_initial(model, settings(path, *RESNET))
    assert same(model.state_dict()["backbone.conv1.conv.weight"], resnet18["conv1.weight"])


def test_batch_norms_do_not_fit_group_norms(pth: Path) -> None:
    overrides = (*RESNET, "model.backbone.norm=group")
    message = one_line(load_initial, model_of(), settings(pth, *overrides))
    assert message == f"{pth}: model.backbone.norm is group, but these weights need frozen_batch or batch"


def test_a_shallower_resnet_is_refused(pth: Path) -> None:
    message = one_line(load_initial, model_of(*RESNET, DEPTH_34), settings(pth, *RESNET, DEPTH_34))
    assert message == f"{pth}: does not fit the model: model.backbone.depth is 34, the weights are of depth 18"


def test_a_deeper_resnet_is_refused() -> None:
    # A ResNet-34 holds all that a ResNet-18 wants, of the same shapes; so does a ResNet-101 what a ResNet-50 wants.
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.resnet34().state_dict().items()}
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}, "resnet34.pth")
    message = one_line(load_initial, model_of(*RESNET), settings("resnet34.pth", *RESNET))
    assert "model.backbone.depth is 18, the weights are of depth 34" in message


def test_a_tensor_of_a_resnet_of_another_shape_is_named(resnet18: Tensors) -> None:
    torch.save({**resnet18, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, "odd.pth")
    message = one_line(load_initial, model_of(*RESNET), settings("odd.pth", *RESNET))
    assert "backbone.conv2_x.0.conv1.conv.weight is (64, 64, 1, 1), the model wants (64, 64, 3, 3)" in message


def test_a_resnet_with_a_nan_is_refused(resnet18: Tensors) -> None:
    torch.save({**resnet18, "bn1.bias": torch.full((64,), float("nan"))}, "nan.pth")
    message = one_line(load_initial, model_of(*RESNET), settings("nan.pth", *RESNET))
    assert message == "nan.pth: backbone.conv1.norm.bias holds NaN or infinity"


def test_a_resnet_without_its_last_stage_leaves_the_model_as_it_was(resnet18: Tensors) -> None:
    torch.save({key: value for key, value in resnet18.items() if "layer4" not in key}, "cut.pth")
    model = model_of(*RESNET)
    before = copy.deepcopy(model.state_dict())
    message = one_line(load_initial, model, settings("cut.pth", *RESNET))
    assert "roi_head.conv5_x.0.conv1.conv.weight is missing" in message
    assert_same_state(model, before)


# Starting from weights: a file of our own.


def test_a_training_can_start_from_our_own_file(own: Path) -> None:
    model = model_of()
    load_initial(model, settings(own))
    assert_same_state(model, read_weights(own).tensors)


def test_class_layers_of_another_size_start_anew(own: Path) -> None:
    model = model_of(classes=NUM_CLASSES + 1)
    before = copy.deepcopy(model.state_dict())
    load_initial(model, settings(own))
    fresh = {key for key in before if key.startswith(("roi_head.class_layer.", "roi_head.box_layer."))}
    assert len(fresh) == 4
    assert_same_state(model, read_weights(own).tensors | {key: before[key] for key in fresh})


def test_class_layers_for_other_classes_start_anew(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "detector")
    model, weights = model_of(), read_weights(own)
    assert weights.info is not None
    before, names = copy.deepcopy(model.state_dict()), weights.info.class_names
    load_initial(model, settings(own), names[::-1])
    fresh = {key for key in before if key.startswith(("roi_head.class_layer.", "roi_head.box_layer."))}
    assert_same_state(model, weights.tensors | {key: before[key] for key in fresh})
    assert f"is for other classes ('{names[0]}, " in caplog.text


def test_a_file_that_lacks_its_class_layers_is_refused(own: Path) -> None:
    weights = read_weights(own)
    assert weights.info is not None
    kept = {key: value for key, value in weights.tensors.items() if not key.startswith("roi_head.class_layer.")}
    save_weights(Path("damaged.safetensors"), kept, weights.info)
    message = one_line(load_initial, model_of(), settings("damaged.safetensors"), weights.info.class_names)
    assert "roi_head.class_layer.weight is missing" in message


def test_class_layers_for_the_same_classes_are_taken(own: Path) -> None:
    model, weights = model_of(), read_weights(own)
    assert weights.info is not None
    load_initial(model, settings(own), weights.info.class_names)
    assert_same_state(model, weights.tensors)


def test_class_layers_that_start_anew_are_reported(own: Path) -> None:
    report = load_initial(model_of(classes=NUM_CLASSES + 1), settings(own))
    assert report is not None
    assert "roi_head.class_layer.weight is (7, 512), the model wants (8, 512)" in report.wrong_shape
    assert len(report.wrong_shape) == 4
    assert report.missing == ()


def test_class_layers_of_another_size_are_an_error_unless_training_starts(own: Path) -> None:
    model = model_of(classes=NUM_CLASSES + 1)
    message = one_line(fill, model, tiny_config().model, read_weights(own))
    assert "roi_head.class_layer.weight is (7, 512), the model wants (8, 512)" in message


def test_other_anchors_do_not_fit(own: Path) -> None:
    override = "model.anchors.sizes=[16]"
    message = one_line(load_initial, model_of(override), settings(own, override))
    assert "rpn.objectness.weight is (6, 256, 1, 1), the model wants (3, 256, 1, 1)" in message


def test_another_norm_does_not_fit(own: Path) -> None:
    message = one_line(load_initial, model_of(FROZEN), settings(own, FROZEN))
    assert message == f"{own}: model.backbone.norm is frozen_batch, but these weights need group"


def test_other_pixels_than_those_of_the_file_are_named(own: Path) -> None:
    message = one_line(load_initial, model_of(), settings(own, "model.pixel_order=bgr"))
    assert message == f"{own}: model.pixel_order is bgr, but these weights need rgb"


def test_a_shallower_file_of_our_own_is_refused(own: Path) -> None:
    message = one_line(load_initial, model_of(DEPTH_34), settings(own, DEPTH_34))
    assert message == f"{own}: does not fit the model: model.backbone.depth is 34, the weights are of depth 18"


def test_a_deeper_file_of_our_own_is_refused() -> None:
    save("deep.safetensors", model_of(DEPTH_34), DEPTH_34)
    message = one_line(load_initial, model_of(), settings("deep.safetensors"))
    assert message.endswith("model.backbone.depth is 18, the weights are of depth 34")


def test_trained_batch_norms_can_be_frozen() -> None:
    trained = model_of("model.backbone.norm=batch")
    nn.init.uniform_(trained.backbone.conv1.norm.running_mean)
    save("batch.safetensors", trained, "model.backbone.norm=batch")
    model = model_of(FROZEN)
    load_initial(model, settings("batch.safetensors", FROZEN))
    assert same(model.backbone.conv1.norm.running_mean, trained.backbone.conv1.norm.running_mean)


# Starting from weights: names of torchvision.


def start_from(name: str, *overrides: str) -> None:
    load_initial(nn.Linear(1, 1), settings(f"torchvision:{name}", *RESNET, *overrides))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("ResNet101_Weights.IMAGENET1K_V3", "ResNet101_Weights.IMAGENET1K_V"),
        ("ResNet50_Weight.IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"),
        ("resnet18_Weights.IMAGENET1K_V1", "ResNet18_Weights.IMAGENET1K_V1"),
    ],
)
def test_a_misspelt_name_suggests_the_near_one(name: str, near: str) -> None:
    assert f"'{name}'; did you mean {near}" in one_line(start_from, name)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["", "x", "....", "__class__.__init__"])
def test_a_name_like_no_other_lists_all(name: str) -> None:
    message = one_line(start_from, name)
    assert "ResNet18_Weights.IMAGENET1K_V1" in message
    assert "ResNet152_Weights.IMAGENET1K_V2" in message


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "name",
    [
        "VGG16_Weights.IMAGENET1K_V1",
        "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
        "ResNet50_QuantizedWeights.IMAGENET1K_FBGEMM_V1",
    ],
)
def test_weights_of_another_network_are_refused(name: str) -> None:
    assert f"torchvision has no ResNet weights '{name}'" in one_line(start_from, name)


def test_without_a_network_the_url_and_the_file_to_put_it_at_are_named(cache: Path) -> None:
    message = one_line(start_from, RESNET18)
    assert torchvision.models.get_weight(RESNET18).url in message
    assert f"put it at {cache / cached_name(RESNET18)}," in message
    assert "Name or service not known" in message


def test_a_file_put_where_the_error_says_is_taken(cache: Path, pth: Path, resnet18: Tensors) -> None:
    (cache / cached_name(RESNET18)).symlink_to(pth)
    assert_first_layer_is_taken(f"torchvision:{RESNET18}", resnet18)


def test_a_file_put_there_cannot_run_code(cache: Path) -> None:
    torch.save({"conv1.weight": Hostile()}, cache / cached_name(RESNET18))
    one_line(start_from, RESNET18)
    assert not Hostile.mark.exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04"])
def test_a_damaged_file_put_there_is_named(cache: Path, content: bytes) -> None:
    (cache / cached_name(RESNET18)).write_bytes(content)
    assert str(cache / cached_name(RESNET18)) in one_line(start_from, RESNET18)


CONTRADICTIONS = pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("model.pixel_order", "bgr", "rgb"),
        ("model.pixel_mean", "[103.53, 116.28, 123.675]", "[123.675, 116.28, 103.53]"),
        ("model.pixel_std", "[1.0, 1.0, 1.0]", "[58.395, 57.12, 57.375]"),
    ],
)


@CONTRADICTIONS
def test_a_setting_that_contradicts_the_weights_is_named(pth: Path, key: str, value: str, wanted: str) -> None:
    message = one_line(load_initial, nn.Linear(1, 1), settings(pth, *RESNET, f"{key}={value}"))
    assert message == f"{pth}: {key} is {value}, but these weights need {wanted}"


def test_every_contradiction_has_its_line(pth: Path) -> None:
    overrides = ("model.pixel_order=bgr", "model.pixel_std=[1, 1, 1]")
    with pytest.raises(WeightsError) as caught:
        load_initial(nn.Linear(1, 1), settings(pth, *RESNET, *overrides))
    assert [line.split()[1] for line in str(caught.value).splitlines()] == ["model.pixel_order", "model.pixel_std"]


@pytest.mark.usefixtures("cache")
@CONTRADICTIONS
def test_contradictions_are_found_before_anything_is_downloaded(key: str, value: str, wanted: str) -> None:
    message = one_line(start_from, RESNET18, f"{key}={value}")
    assert message == f"torchvision:{RESNET18}: {key} is {value}, but these weights need {wanted}"


def test_the_stride_of_bottlenecks_can_contradict_the_weights(pth: Path) -> None:
    overrides = (*RESNET, "model.backbone.depth=50", "model.backbone.stride_in_1x1=true")
    message = one_line(load_initial, nn.Linear(1, 1), settings(pth, *overrides))
    assert message == f"{pth}: model.backbone.stride_in_1x1 is true, but these weights need false"


def test_the_stride_of_basic_blocks_cannot_contradict_the_weights(pth: Path) -> None:
    overrides = (*RESNET, "model.backbone.stride_in_1x1=true")
    load_initial(model_of(*overrides), settings(pth, *overrides))
