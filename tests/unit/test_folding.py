"""Norms of fixed statistics folded into convolutions: the same numbers, and never those of other weights."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from detector.models import folding
from detector.models.blocks import ConvNorm
from detector.models.faster_rcnn import FasterRCNN
from detector.models.folding import folds
from detector.structures import ImageBatch
from tests.tiny import tiny_model

CHANNELS = 5
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "batch": nn.BatchNorm2d,
    "sync": nn.SyncBatchNorm,
    "batch without weights": lambda channels: nn.BatchNorm2d(channels, affine=False),
    "sync without weights": lambda channels: nn.SyncBatchNorm(channels, affine=False),
    "large eps": lambda channels: nn.BatchNorm2d(channels, eps=0.5),
}
ALL_NORMS = pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
WITH_WEIGHTS = pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Gives every norm in a module statistics and weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in module.modules():
            if isinstance(one, FrozenBatchNorm2d | nn.BatchNorm2d | nn.SyncBatchNorm):
                one.running_mean.normal_(generator=generator)
                one.running_var.uniform_(0.5, 2, generator=generator)
                if one.weight is not None:
                    one.weight.normal_(1, 0.3, generator=generator)
                    one.bias.normal_(generator=generator)


def layer_of(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, kernel: int = 3, stride: int = 1) -> ConvNorm:
    """A layer with a norm of random statistics, in evaluation mode."""
    torch.manual_seed(0)
    layer = ConvNorm(4, CHANNELS, kernel, stride, norm).eval()
    randomise(layer)
    return layer


def features_of(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 4, 7, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(layer: ConvNorm, features: torch.Tensor) -> torch.Tensor:
    """Convolution, then norm."""
    return layer.norm(layer.conv(features))


@torch.no_grad()
def assert_up_to_date(layer: ConvNorm) -> None:
    features = features_of(dtype=layer.conv.weight.dtype)
    torch.testing.assert_close(layer(features), plain(layer, features), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def used(layer: ConvNorm) -> ConvNorm:
    """The layer, whose folded weights have been made."""
    layer(features_of(dtype=layer.conv.weight.dtype))
    assert layer.conv in folding._kept
    return layer


# What folds.


@pytest.mark.parametrize(("norm", "expected"), [
    (FrozenBatchNorm2d(4), True),
    (nn.BatchNorm2d(4).eval(), True),
    (nn.SyncBatchNorm(4).eval(), True),
    (FrozenBatchNorm2d(4).train(), True),
    (nn.BatchNorm2d(4).train(), False),
    (nn.SyncBatchNorm(4).train(), False),
    (nn.BatchNorm2d(4, track_running_stats=False).eval(), False),
    (nn.GroupNorm(2, 4).eval(), False),
    (nn.Identity(), False),
])  # fmt: skip
def test_a_norm_folds_that_does_not_look_at_the_batch(norm: nn.Module, expected: bool) -> None:
    assert folds(norm) is expected


# The same numbers.


@ALL_NORMS
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_one_convolution_does_the_work_of_both(norm: Callable[[int], nn.Module], kernel: int, stride: int) -> None:
    layer, features = layer_of(norm, kernel, stride).double(), features_of(dtype=torch.float64)
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            torch.testing.assert_close(layer(features), plain(layer, features), rtol=0, atol=1e-12)


@ALL_NORMS
def test_linear_part_and_remainder_make_the_whole(norm: Callable[[int], nn.Module]) -> None:
    layer, features = layer_of(norm, kernel=1).double(), features_of(dtype=torch.float64)
    parts = layer.remainder(layer.linear_part(features))
    torch.testing.assert_close(parts, plain(layer, features), rtol=0, atol=1e-12)


@ALL_NORMS
def test_gradients_reach_the_raw_weights_the_norms_and_the_features(norm: Callable[[int], nn.Module]) -> None:
    gradients = []
    for accelerated in (True, False):
        layer, features = layer_of(norm).double(), features_of(dtype=torch.float64).requires_grad_()
        layer.accelerated = accelerated
        layer(features).square().sum().backward()
        gradients.append([features.grad, *(value.grad for value in layer.parameters())])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-9)


@WITH_WEIGHTS
def test_a_norm_alone_can_be_trained(norm: Callable[[int], nn.Module]) -> None:
    layer = layer_of(norm)
    layer.conv.requires_grad_(False)
    layer(features_of()).sum().backward()
    assert layer.conv.weight.grad is None
    assert layer.norm.weight.grad is not None
    assert layer.norm.bias.grad is not None


def test_a_batch_norm_in_training_looks_at_the_batch_and_learns_its_statistics() -> None:
    layer = layer_of().train()
    other = copy.deepcopy(layer)
    other.accelerated = False
    torch.testing.assert_close(layer(features_of()), other(features_of()))
    torch.testing.assert_close(layer.norm.running_mean, other.norm.running_mean)


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_under_autocast_the_folded_layer_computes_in_bfloat16(norm: Callable[[int], nn.Module]) -> None:
    layer = layer_of(norm)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = layer(features_of())
    assert found.dtype == torch.bfloat16
    exact = plain(layer, features_of())
    # 36 products of values with 8 bits; the sum itself is kept in more.
    assert (found.float() - exact).abs().max() <= exact.abs().max() / 50


def test_precisions_may_alternate() -> None:
    layer = layer_of()
    with torch.no_grad():
        expected = layer(features_of())
        with torch.autocast("cpu", torch.bfloat16):
            layer(features_of())
        torch.testing.assert_close(layer(features_of()), expected, rtol=0, atol=0)


def test_a_layer_runs_without_data() -> None:
    with torch.device("meta"):
        layer = ConvNorm(4, CHANNELS, 3, 1, FrozenBatchNorm2d)
    assert layer(torch.zeros(2, 4, 7, 9, device="meta")).shape == (2, CHANNELS, 7, 9)


# Kept weights follow their sources.


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9, foreach=False),
    "SGD foreach": lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9, foreach=True),
    "SGD fused": lambda values: torch.optim.SGD(values, lr=0.1, momentum=0.9, fused=True),
    "AdamW": lambda values: torch.optim.AdamW(values, lr=0.1, foreach=False),
    "AdamW foreach": lambda values: torch.optim.AdamW(values, lr=0.1, foreach=True),
    "AdamW fused": lambda values: torch.optim.AdamW(values, lr=0.1, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_an_update_of_the_weights_is_seen(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    layer = layer_of()
    stepping = optimizer(list(layer.parameters()))
    for _ in range(2):
        layer(features_of()).square().mean().backward()
        used(layer)
        stepping.step()
        assert_up_to_date(layer)


def _double(layer: ConvNorm) -> None:
    with torch.no_grad():
        layer.conv.weight.mul_(2)


def _reassign_twice(layer: ConvNorm) -> None:
    for _ in range(2):
        layer.conv.weight.data = layer.conv.weight.data * 2


def _to_float64(layer: ConvNorm) -> None:
    layer.to(torch.float64)


def _through_half_precision(layer: ConvNorm) -> None:
    layer.bfloat16().float()


def _load(layer: ConvNorm) -> None:
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()})


def _load_and_assign(layer: ConvNorm) -> None:
    layer.load_state_dict({name: value * 2 for name, value in layer.state_dict().items()}, assign=True)


def _new_parameter(layer: ConvNorm) -> None:
    layer.conv.weight = nn.Parameter(layer.conv.weight.detach() * 2)


def _write_in_inference_mode(layer: ConvNorm) -> None:
    with torch.inference_mode():
        layer.conv.weight.mul_(2)


def _write_through_a_view(layer: ConvNorm) -> None:
    layer.conv.weight.detach()[0].zero_()


def _new_statistics(layer: ConvNorm) -> None:
    layer.norm.running_mean = layer.norm.running_mean + 1


def _write_statistics(layer: ConvNorm) -> None:
    layer.norm.running_var.mul_(2)


def _train_the_statistics(layer: ConvNorm) -> None:
    layer.train()
    with torch.no_grad():
        layer(features_of() + 3)
    layer.eval()


def _reset_the_statistics(layer: ConvNorm) -> None:
    layer.norm.reset_running_stats()


def _another_eps(layer: ConvNorm) -> None:
    layer.norm.eps = 0.5


def _another_norm(layer: ConvNorm) -> None:
    layer.norm = FrozenBatchNorm2d(CHANNELS)


def _average(layer: ConvNorm) -> None:
    for value in layer.state_dict().values():
        if value.is_floating_point():
            value.lerp_(torch.ones_like(value), 0.5)


CHANGES = [
    _double, _reassign_twice, _to_float64, _through_half_precision, _load, _load_and_assign, _new_parameter,
    _write_in_inference_mode, _write_through_a_view, _new_statistics, _write_statistics,
    _train_the_statistics, _reset_the_statistics, _another_eps, _another_norm, _average,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_").replace("_", " "))
def test_a_change_of_the_sources_is_seen(change: Callable[[ConvNorm], None]) -> None:
    layer = used(layer_of())
    change(layer)
    assert_up_to_date(layer)


def test_new_data_at_the_address_of_the_old_is_seen() -> None:
    layer = used(layer_of())
    address = layer.conv.weight.data_ptr()
    for _ in range(200):
        layer.conv.weight.data = layer.conv.weight.data * 1.01
        if layer.conv.weight.data_ptr() == address:
            break
    assert_up_to_date(layer)


def test_weights_written_through_data_are_seen_after_a_change_of_mode() -> None:
    model = batch_model()
    detect(model)
    with torch.no_grad():
        model.backbone.conv1.conv.weight.data.mul_(-2)
    model.train().eval()
    assert_model_up_to_date(model)


def test_weights_that_do_not_change_are_folded_once() -> None:
    layer = used(layer_of())
    first = folding._kept[layer.conv]
    used(layer)
    assert folding._kept[layer.conv] is first


# Inference mode.


def test_weights_folded_in_inference_mode_serve_training_afterwards() -> None:
    layer = layer_of(FrozenBatchNorm2d)
    layer.conv.requires_grad_(False)
    with torch.inference_mode():
        layer(features_of())
    features = features_of().requires_grad_()
    layer(features).square().sum().backward()
    expected = features_of().requires_grad_()
    plain(layer, expected).square().sum().backward()
    torch.testing.assert_close(features.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_weights_folded_for_training_serve_inference_mode_afterwards() -> None:
    layer = used(layer_of())
    kept = folding._kept[layer.conv]
    with torch.inference_mode():
        found = layer(features_of())
    assert folding._kept[layer.conv] is kept
    torch.testing.assert_close(found.clone(), plain(layer, features_of()), rtol=1e-5, atol=1e-5)


def test_a_layer_made_in_inference_mode_follows_its_weights() -> None:
    with torch.inference_mode():
        layer = layer_of()
        for _ in range(2):
            assert_up_to_date(layer)
            layer.conv.weight.mul_(2)
        assert_up_to_date(layer)


# Nothing is left in or of a model.


def batch_model() -> FasterRCNN:
    model = tiny_model("model.backbone.norm=batch")
    randomise(model)
    return model


def batch() -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    return ImageBatch.of([torch.randint(0, 256, (3, 48, 64), generator=generator, dtype=torch.uint8)])


@torch.no_grad()
def detect(model: FasterRCNN) -> torch.Tensor:
    """C4 features, and detections thrown away."""
    model.detect(batch())
    return model.features(batch())[0][0]


def assert_model_up_to_date(model: FasterRCNN) -> None:
    fast = detect(model)
    other = copy.deepcopy(model)
    other.accelerate(False)
    slow = detect(other)
    assert (fast - slow).abs().max() <= slow.abs().max() * 1e-4


def kept_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if module in folding._kept]


def test_detection_keeps_folded_weights_and_training_frees_them() -> None:
    model = batch_model()
    detect(model)
    assert kept_of(model)
    model.train()
    assert not kept_of(model)
    model.eval()
    assert not kept_of(model)


def test_folded_weights_are_no_part_of_a_saved_model() -> None:
    model = batch_model()
    names, size = list(model.state_dict()), len(pickle.dumps(model))
    detect(model)
    assert list(model.state_dict()) == names
    assert len(pickle.dumps(model)) == size
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert not kept_of(loaded)
    torch.testing.assert_close(detect(loaded), detect(model), rtol=0, atol=0)


def test_a_copy_has_folded_weights_of_its_own() -> None:
    model = batch_model()
    before = detect(model)
    other = copy.deepcopy(model)
    assert not kept_of(other)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.9)
    assert_model_up_to_date(other)
    torch.testing.assert_close(detect(model), before, rtol=0, atol=0)


def test_folded_weights_die_with_their_model() -> None:
    model = batch_model()
    detect(model)
    weights = [weakref.ref(folding._kept[module].weight) for module in kept_of(model)]
    parameters = [weakref.ref(value) for value in model.parameters()]
    assert weights
    del model
    gc.collect()
    assert not any(reference() is not None for reference in weights + parameters)


def test_a_mode_may_change_between_detections() -> None:
    model = batch_model()
    expected = detect(model)
    model.train()
    model.eval()
    torch.testing.assert_close(detect(model), expected, rtol=0, atol=0)


def test_two_threads_may_detect_with_one_model() -> None:
    model = batch_model()
    expected = detect(model)
    model.train().eval()
    start, found = threading.Barrier(2), []

    def work() -> None:
        start.wait()
        found.extend(detect(model) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    for features in found:
        torch.testing.assert_close(features, expected, rtol=0, atol=0)
