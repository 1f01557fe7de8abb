"""Classifiers: against torchvision and the papers' tables, their input, loss, frozen stages, and what they refuse."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from detector.config.schema import ClassifierConfig, ModelConfig
from detector.errors import ConfigError
from detector.models.classifier import ClassificationNetwork, build_classifier, smallest_side
from detector.structures import ImageBatch, Size, Target
from detector.weights.layouts import TORCHVISION

DEPTHS = (18, 34, 50, 101, 152)
SLOW = pytest.mark.slow
FOREIGN = (
    pytest.param("torchvision:alexnet", marks=SLOW),
    pytest.param("torchvision:vgg16", marks=SLOW),
    "torchvision:googlenet",
    pytest.param("torchvision:inception_v3", marks=SLOW),
)
BLOCKS = (
    {"block": "residual"},
    {"block": "residual", "shortcut": "padding"},
    {"block": "residual", "shortcut": "projection"},
    {"block": "plain"},
    {"block": "preactivation"},
    {"block": "preactivation", "activation": "elu", "shortcut": "padding"},
)


def settings(network: str = "resnet", backbone: dict[str, Any] | None = None, **classifier: Any) -> ModelConfig:
    return ModelConfig.model_validate(
        {
            "backbone": {"depth": 18, "norm": "batch", "frozen_stages": 0, "stride_in_1x1": False} | (backbone or {}),
            "classifier": {"network": network, **classifier},
            "pixel_mean": (120.0, 120.0, 120.0),
            "pixel_std": (60.0, 60.0, 60.0),
        }
    )


def skeleton(model: ModelConfig, num_classes: int = 10) -> ClassificationNetwork:
    """The modules without their numbers."""
    with torch.device("meta"):
        return build_classifier(model, num_classes)


def built(model: ModelConfig, num_classes: int = 4) -> ClassificationNetwork:
    torch.manual_seed(0)
    return build_classifier(model, num_classes)


def images(side: int, count: int = 4) -> ImageBatch:
    generator = torch.Generator().manual_seed(0)
    return ImageBatch(
        torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator),
        (Size(side, side),) * count,
    )


def targets(*labels: int) -> list[Target]:
    return [Target(torch.zeros(1, 4), torch.tensor([label])) for label in labels]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(model: ModelConfig, side: int) -> int:
    """Of one image and 1000 classes."""
    network = skeleton(model, 1000).eval()
    features = torch.empty(1, 3, side, side, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for part in network.body:
            features = part(features)
        network.class_layer(features.mean(dim=(2, 3)))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("depth", DEPTHS)
@torch.no_grad()
def test_logits_are_those_of_torchvision_from_the_same_weights(depth: int) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.get_model(f"resnet{depth}", num_classes=10)
    theirs.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(depth)
    for name, value in theirs.state_dict().items():
        if value.ndim == 4:
            nn.init.kaiming_uniform_(value, nonlinearity="relu", generator=generator)
        elif value.ndim:
            low, high = (0.3, 0.7) if name.endswith(("weight", "running_var")) else (-0.5, 0.5)
            value.uniform_(low, high, generator=generator)
    ours = skeleton(settings(backbone={"depth": depth})).eval()
    # In a detector, conv5_x is a part of the head.
    names = {key: f"roi_head.{key}" if key.startswith("conv5_x") else key for key in ours.state_dict()}
    rules = TORCHVISION.names([name for name in names.values() if not name.startswith("class_layer")])
    table = {key: rules.get(name, key.replace("class_layer", "fc")) for key, name in names.items()}
    weights = theirs.state_dict()
    ours.load_state_dict({key: weights[name] for key, name in table.items()}, assign=True)
    pixels = torch.randn(1, 3, 32, 48, generator=generator)
    wanted, found = theirs(pixels), ours.logits(pixels)
    largest = wanted.abs().max()
    assert 1e-3 < largest < 1e6, "the comparison would say little"
    torch.testing.assert_close(found / largest, wanted / largest, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_a_resnet_of_1000_classes_has_the_parameters_of_torchvisions(depth: int, count: int) -> None:
    assert parameters(skeleton(settings(backbone={"depth": depth}), 1000)) == count


@pytest.mark.parametrize(("depth", "billions"), [(18, 1.8), (34, 3.6), (50, 3.8), (101, 7.6), (152, 11.3)])
def test_multiply_adds_are_those_of_table_1(depth: int, billions: float) -> None:
    # The table has the stride in the first 1x1 convolution, and two digits.
    found = multiply_adds(settings(backbone={"depth": depth, "stride_in_1x1": True}), 224)
    assert found / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_networks_for_small_images_have_the_parameters_of_table_6(depth: int, millions: float) -> None:
    count = parameters(skeleton(settings("cifar", depth=depth)))
    assert round(count / 1e6, 2 if millions < 1 else 1) == millions


@pytest.mark.parametrize("depth", [20, 56])
def test_plain_networks_have_exactly_the_parameters_of_their_residual_twins(depth: int) -> None:
    plain, residual = (skeleton(settings("cifar", depth=depth, block=block)) for block in ("plain", "residual"))
    assert parameters(plain) == parameters(residual)


@pytest.mark.parametrize("depth", [18, 50])
def test_plain_large_networks_have_exactly_the_parameters_of_option_a(depth: int) -> None:
    plain = skeleton(settings(backbone={"depth": depth}, block="plain"))
    padded = skeleton(settings(backbone={"depth": depth}, shortcut="padding"))
    assert parameters(plain) == parameters(padded) < parameters(skeleton(settings(backbone={"depth": depth})))


def test_depth_of_a_network_for_small_images_counts_its_convolutions_and_the_class_layer() -> None:
    network = skeleton(settings("cifar", depth=56, shortcut="padding"))
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == 56


@pytest.mark.parametrize("shape", [BLOCKS[1], *BLOCKS[3:]], ids=lambda shape: "-".join(shape.values()))
@pytest.mark.parametrize(
    ("depth", "changed"),
    [
        (8, {"network": "cifar", "depth": 8}),
        (20, {"network": "cifar", "depth": 20}),
        (18, {"backbone": {"depth": 18}}),
        (50, {"backbone": {"depth": 50}}),
    ],
    ids=["cifar-8", "cifar-20", "resnet-18", "resnet-50"],
)
def test_each_layer_but_the_last_has_one_norm_and_one_activation_of_the_kind_asked_for(
    depth: int, changed: dict[str, Any], shape: dict[str, str]
) -> None:
    model = skeleton(settings(**changed, **shape))
    seen: Counter[str] = Counter()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.ReLU | nn.ELU):
            module.register_forward_hook(lambda module, *_: seen.update([type(module).__name__]))
    features = torch.empty(2, 3, 32, 32, device="meta")
    for part in model.body:
        features = part(features)
    activation = "ELU" if shape.get("activation") == "elu" else "ReLU"
    assert seen == {"BatchNorm2d": depth - 1, activation: depth - 1}


@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize("network", ["cifar", "resnet"])
@torch.no_grad()
def test_the_class_layer_of_a_preactivation_network_sees_activated_features(network: str, activation: str) -> None:
    model = built(settings(network, block="preactivation", activation=activation))
    features = model.normalize(images(32).pixels)
    for part in model.body:
        features = part(features)
    # Normalised, about half of them are negative before the activation: ReLU makes zeros of these, ELU -1 .. 0.
    assert 0.2 < (features <= 0).float().mean() < 0.8
    least = features.min()
    assert least == 0 if activation == "relu" else -1 <= least < 0


def test_lenet_has_the_parameters_of_the_classic_one() -> None:
    assert parameters(skeleton(settings("lenet", channels=1))) == 61_706


@torch.no_grad()
def test_lenet_halves_twice_at_32_pixels() -> None:
    network = built(settings("lenet", channels=1))
    lenet = network.backbone
    halves = nn.AvgPool2d(2)
    pixels = torch.randn(2, 1, 32, 32)
    maps = halves(lenet.conv2(halves(lenet.conv1(pixels).relu())).relu())
    wanted = lenet.linear2(lenet.linear1(maps.flatten(1)).relu()).relu()
    torch.testing.assert_close(lenet(pixels), wanted)


def test_the_default_is_the_network_of_the_detector() -> None:
    with torch.device("meta"):
        names = set(build_classifier(ModelConfig(), 3).state_dict())
    assert {"backbone.conv1.conv.weight", "conv5_x.2.conv3.norm.running_var", "class_layer.bias"} <= names
    assert {name.split(".")[0] for name in names} == {"backbone", "conv5_x", "class_layer"}


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        ("cifar", {"backbone", "class_layer"}),
        ("lenet", {"backbone", "class_layer"}),
        ("torchvision:vgg16", {"network"}),
    ],
)
def test_names_begin_with_the_part_that_they_belong_to(network: str, parts: set[str]) -> None:
    assert {name.split(".")[0] for name in skeleton(settings(network)).state_dict()} == parts


@pytest.mark.parametrize(
    "network", ["resnet", "cifar", "lenet", *(f"torchvision:{name}" for name in ("alexnet", "vgg16", "googlenet"))]
)
def test_the_body_is_all_but_the_class_layer(network: str) -> None:
    model = skeleton(settings(network), 7)
    body = {parameter for module in model.body for parameter in module.parameters()}
    rest = [parameter.shape for parameter in model.parameters() if parameter not in body]
    assert [shape[0] for shape in rest] == [7, 7]


@pytest.mark.parametrize("network", ["resnet", "cifar", "lenet", "torchvision:googlenet"])
def test_a_new_class_layer_favours_no_class(network: str) -> None:
    model = built(settings(network), 50)
    weight, bias = list(model.parameters())[-2:]
    assert not bias.any()
    assert weight.std().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("shape", BLOCKS, ids=lambda shape: "-".join(shape.values()))
@pytest.mark.parametrize("network", ["resnet", "cifar"])
def test_a_step_of_training_lowers_the_loss(network: str, shape: dict[str, str]) -> None:
    assert_learns(settings(network, depth=8, **shape), 24)


@pytest.mark.parametrize("network", ["lenet", *FOREIGN])
def test_a_step_of_training_changes_the_loss_of_classic_networks(network: str) -> None:
    model = settings(network)
    assert model.classifier is not None
    assert_learns(model, max(32, smallest_side(model.classifier)), lowers=False)


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
@pytest.mark.parametrize("block", ["residual", "plain", "preactivation"])
def test_a_step_of_training_lowers_the_loss_with_other_norms(block: str, norm: str) -> None:
    assert_learns(settings("cifar", {"norm": norm}, depth=8, block=block), 24)


def assert_learns(model: ModelConfig, side: int, lowers: bool = True) -> None:
    """One small step against the gradient."""
    network = built(model).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two losses shall differ by the step alone
    batch, truth = images(side), targets(0, 1, 2, 3)
    first = network(batch, truth)["loss_class"]
    first.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    norm = torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad / norm)
        second = network(batch, truth)["loss_class"]
    assert torch.isfinite(second)
    assert second < first if lowers else second != first


def test_random_frozen_norms_do_not_blow_a_deep_preactivation_network_up() -> None:
    torch.manual_seed(0)
    backbone = {"depth": 101, "norm": "frozen_batch"}
    with torch.no_grad():
        logits = build_classifier(settings(backbone=backbone, block="preactivation"), 4).eval().classify(images(64, 1))
    assert logits.abs().max() < 1000


def test_the_loss_is_the_cross_entropy_with_label_smoothing() -> None:
    network = built(settings("lenet", label_smoothing=0.2)).eval()
    logs = network.classify(images(32)).log_softmax(dim=1)
    labels = torch.tensor([3, 1, 0, 3])
    wanted = -(0.8 * logs[range(4), labels] + 0.2 * logs.mean(dim=1)).mean()
    torch.testing.assert_close(network(images(32), targets(3, 1, 0, 3))["loss_class"], wanted)


def test_the_error_is_the_share_of_wrong_classes() -> None:
    network = built(settings("lenet")).eval()
    best = network.classify(images(32)).argmax(dim=1).tolist()
    found = network(images(32), targets(best[0], (best[1] + 1) % 4, best[2], best[3]))
    assert found["error"].item() == 0.25
    assert not found["error"].requires_grad
    assert found.keys() == {*network.losses, *network.measures}


@torch.no_grad()
def test_images_of_different_sizes_keep_their_places() -> None:
    network = built(settings("cifar", depth=8)).eval()
    sizes = ((32, 32), (24, 40), (32, 32))
    generator = torch.Generator().manual_seed(0)
    alone = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    wanted = torch.cat([network.classify(ImageBatch.of([image])) for image in alone])
    torch.testing.assert_close(network.classify(ImageBatch.of(alone)), wanted)


@torch.no_grad()
def test_no_images_have_no_logits() -> None:
    assert built(settings("lenet")).eval().classify(ImageBatch.of([])).shape == (0, 4)


@pytest.mark.parametrize("network", ["resnet", "cifar", "torchvision:googlenet"])
def test_logits_and_loss_are_float32_under_autocast(network: str) -> None:
    model = built(settings(network, depth=8)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model.classify(images(32))
        loss = model(images(32), targets(0, 1, 2, 3))["loss_class"]
    assert logits.dtype == loss.dtype == torch.float32


@pytest.mark.parametrize("network", ["resnet", "cifar", "lenet", "torchvision:googlenet"])
@torch.no_grad()
def test_gray_is_as_good_as_three_equal_channels(network: str) -> None:
    colour, gray = (built(settings(network, depth=8, channels=channels)).eval() for channels in (3, 1))
    weights = colour.state_dict()
    for name, value in gray.state_dict().items():
        if value.ndim == 4 and value.shape[1] == 1 != weights[name].shape[1]:
            weights[name] = weights[name].sum(dim=1, keepdim=True)
    gray.load_state_dict(weights)
    alike = images(32).pixels[:, :1].expand(-1, 3, -1, -1)
    batch = ImageBatch(alike, images(32).sizes)
    torch.testing.assert_close(gray.classify(batch), colour.classify(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_gray_is_the_luma_of_the_colours_with_the_luma_of_mean_and_std(order: str) -> None:
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    forward = 1 if order == "rgb" else -1
    changed = {"pixel_order": order, "pixel_mean": mean[::forward], "pixel_std": std[::forward]}
    network = built(settings("lenet", channels=1).model_copy(update=changed))
    colours = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None]
    # 0.299 red, 0.587 green and 0.114 blue: of the colours 124.2, of the means 108.15, of the stds 58.15.
    torch.testing.assert_close(network.normalize(colours), torch.full((1, 1, 1, 1), (124.2 - 108.15) / 58.15))


@pytest.mark.parametrize(
    ("network", "frozen"), [("resnet", ("conv1", "conv5_x")), ("resnet", 4), ("cifar", ("conv2_x",)), ("cifar", 4)]
)
def test_frozen_stages_get_no_gradients_and_keep_their_statistics(network: str, frozen: Any) -> None:
    config = settings(network, {"frozen_stages": frozen}, depth=8)
    model = built(config).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(images(24), targets(0, 1, 2, 3))["loss_class"].backward()
    trained = {stage_of(name) for name, parameter in model.named_parameters() if parameter.grad is not None}
    changed = {stage_of(name) for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    stages = {"conv1", "conv2_x", "conv3_x", "conv4_x", *(["conv5_x"] if network == "resnet" else [])}
    assert changed == stages - set(config.backbone.frozen)
    assert trained == changed | {"class_layer"}


def stage_of(name: str) -> str:
    return name.removeprefix("backbone.").split(".")[0]


def test_a_frozen_batch_norm_stays_frozen_in_a_network_for_small_images() -> None:
    model = built(settings("cifar", {"norm": "frozen_batch"}, depth=8)).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(images(32), targets(0, 1, 2, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert {stage_of(name) for name, parameter in model.named_parameters() if parameter.ndim == 1} == {"class_layer"}


@pytest.mark.parametrize(
    ("network", "frozen", "message"),
    [
        ("cifar", ("conv5_x",), "network cifar has no stage conv5_x; leave it out or set it to 0"),
        ("lenet", 2, "network lenet has no such stage; set it to 0"),
        ("torchvision:vgg16", ("conv1",), "network torchvision:vgg16 has no such stage; set it to 0"),
    ],
)
def test_a_stage_that_a_network_lacks_cannot_be_frozen(network: str, frozen: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_classifier(settings(network, {"frozen_stages": frozen}), 4)
    assert str(caught.value) == f"model.backbone.frozen_stages: {message}"


LEAST = {
    "resnet": 1,
    "cifar": 1,
    "lenet": 14,
    "torchvision:alexnet": 63,
    "torchvision:vgg16": 32,
    "torchvision:googlenet": 15,
    "torchvision:inception_v3": 75,
}


@pytest.mark.parametrize(("network", "least"), LEAST.items())
@torch.no_grad()
def test_the_smallest_image_passes_the_convolutions_and_a_smaller_one_does_not(network: str, least: int) -> None:
    assert smallest_side(ClassifierConfig.model_validate({"network": network})) == least
    model = skeleton(settings(network)).eval()
    if not network.startswith("torchvision"):
        model = model.to_empty(device="cpu")
    device = model.pixel_mean.device
    assert model.logits(torch.zeros(1, 3, least, least, device=device)).shape == (1, 10)
    if least > 1:
        with pytest.raises((RuntimeError, ValueError)):
            model.logits(torch.zeros(1, 3, least - 1, least - 1, device=device))


def test_an_image_that_is_too_small_is_refused_by_the_name_of_the_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        built(settings("lenet")).classify(ImageBatch.of([torch.zeros(3, 14, 13)]))
    assert str(caught.value) == (
        "data.crop.size: network lenet needs images of at least 14 x 14 pixels, got a side of 13; "
        "raise data.crop.size to 14 or more"
    )
