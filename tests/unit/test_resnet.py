from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from detector.config.schema import BackboneConfig
from detector.models.blocks import BasicBlock, Bottleneck, ConvNorm
from detector.models.resnet import ResNetC4, conv5_x, stage_channels
from detector.structures import Size
from detector.weights.layouts import TORCHVISION

DEPTHS = (18, 34, 50, 101, 152)
STAGES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")


class Whole(nn.Module):
    """conv1 to conv5_x under the names that they have in the detector."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.backbone = ResNetC4(config)
        self.roi_head = nn.Module()
        self.roi_head.conv5_x = conv5_x(config)

    def stages(self) -> dict[str, nn.Module]:
        backbone = self.backbone
        stem = nn.Sequential(backbone.conv1, nn.ReLU(), backbone.pool)
        parts = (stem, backbone.conv2_x, backbone.conv3_x, backbone.conv4_x, self.roi_head.conv5_x)
        return dict(zip(("conv1", *STAGES), parts, strict=True))


def config_of(
    depth: int, norm: str = "frozen_batch", frozen_stages: int = 0, stride_in_1x1: bool = False
) -> BackboneConfig:
    return BackboneConfig(depth=depth, norm=norm, frozen_stages=frozen_stages, stride_in_1x1=stride_in_1x1)


def skeleton(config: BackboneConfig) -> Whole:
    """The modules without their numbers, which take long to draw."""
    with torch.device("meta"):
        return Whole(config)


def pixels(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=DEPTHS)
def theirs(request: pytest.FixtureRequest) -> tuple[int, nn.Module]:
    """A ResNet of torchvision with random weights and statistics, and its depth."""
    with torch.device("meta"):
        model = getattr(torchvision.models, f"resnet{request.param}")()
    model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(request.param)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.7, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            nn.init.uniform_(module.running_mean, -0.5, 0.5, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 1.5, generator=generator)
    return request.param, model


@pytest.mark.parametrize("norm", ["frozen_batch", "batch"])
@torch.no_grad()
def test_every_stage_computes_what_torchvision_computes(theirs: tuple[int, nn.Module], norm: str) -> None:
    depth, model = theirs
    ours = skeleton(config_of(depth, norm)).eval()
    weights = model.state_dict()
    ours.load_state_dict(
        {own: weights[name] for own, name in TORCHVISION.names(ours.state_dict()).items()}, assign=True
    )
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
    layers = (stem, model.layer1, model.layer2, model.layer3, model.layer4)
    wanted = found = pixels(32, 48)
    all_wanted, all_found = {}, {}
    for (name, stage), layer in zip(ours.stages().items(), layers, strict=True):
        wanted, found = layer(wanted), stage(found)
        largest = wanted.abs().max()
        assert 1e-3 < largest < 1e6, "the comparison would say little"
        all_wanted[name], all_found[name] = wanted / largest, found / largest
    # Rounding adds up over as many as 152 layers: a hundred-thousandth of the largest value.
    torch.testing.assert_close(all_found, all_wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_names_of_torchvision_are_all_taken_but_the_classifier(depth: int) -> None:
    with torch.device("meta"):
        known = set(getattr(torchvision.models, f"resnet{depth}")().state_dict())
    assert set(TORCHVISION.names(skeleton(config_of(depth, "batch")).state_dict()).values()) == known - {
        "fc.weight",
        "fc.bias",
    }


@pytest.mark.parametrize(
    ("depth", "counts", "kind"),
    [
        (18, [2, 2, 2, 2], BasicBlock),
        (34, [3, 4, 6, 3], BasicBlock),
        (50, [3, 4, 6, 3], Bottleneck),
        (101, [3, 4, 23, 3], Bottleneck),
        (152, [3, 8, 36, 3], Bottleneck),
    ],
)
def test_stages_hold_the_blocks_of_the_papers_table(depth: int, counts: list[int], kind: type[nn.Module]) -> None:
    stages = skeleton(config_of(depth)).stages()
    assert [len(stages[name]) for name in STAGES] == counts
    assert all(isinstance(block, kind) for name in STAGES for block in stages[name])


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_the_convolutions_and_the_classifier(depth: int) -> None:
    named = skeleton(config_of(depth)).named_modules()
    convolutions = [name for name, module in named if isinstance(module, ConvNorm) and "shortcut" not in name]
    assert len(convolutions) + 1 == depth


@pytest.mark.parametrize("depth", DEPTHS)
def test_only_the_first_block_of_a_stage_projects_its_shortcut(depth: int) -> None:
    stages = skeleton(config_of(depth)).stages()
    projected = {
        name: [index for index, block in enumerate(stages[name]) if isinstance(block.shortcut, ConvNorm)]
        for name in STAGES
    }
    # In conv2_x of a basic network the shapes agree already: 64 channels and no stride.
    assert projected == {"conv2_x": [0] if depth >= 50 else [], "conv3_x": [0], "conv4_x": [0], "conv5_x": [0]}


@pytest.mark.parametrize(("depth", "channels"), [(18, 256), (34, 256), (50, 1024), (101, 1024), (152, 1024)])
def test_c4_features_have_the_channels_of_conv4_x(depth: int, channels: int) -> None:
    assert skeleton(config_of(depth)).backbone.out_channels == channels


@pytest.mark.parametrize(("depth", "channels"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)])
def test_conv5_x_doubles_the_channels(depth: int, channels: int) -> None:
    assert stage_channels(depth, 5) == channels
    with torch.device("meta"):
        regions = torch.empty(2, channels // 2, 14, 14)
    assert conv5_x(config_of(depth)).to("meta")(regions).shape == (2, channels, 7, 7)


@pytest.mark.parametrize("stage", ["conv3_x", "conv4_x", "conv5_x"])
@pytest.mark.parametrize(("stride_in_1x1", "strides"), [(True, [2, 1, 1]), (False, [1, 2, 1])])
def test_the_stride_of_a_stage_lies_where_the_setting_says(stage: str, stride_in_1x1: bool, strides: list[int]) -> None:
    first = skeleton(config_of(50, stride_in_1x1=stride_in_1x1)).stages()[stage][0]
    assert [layer.conv.stride for layer in (first.conv1, first.conv2, first.conv3)] == [(s, s) for s in strides]
    assert first.shortcut.conv.stride == (2, 2)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_later_blocks_and_conv2_x_have_no_stride(stride_in_1x1: bool) -> None:
    stages = skeleton(config_of(50, stride_in_1x1=stride_in_1x1)).stages()
    blocks = [*stages["conv2_x"], *(block for name in STAGES[1:] for block in stages[name][1:])]
    layers = [layer for block in blocks for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.stride for layer in layers} == {(1, 1)}


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_a_basic_block_has_its_stride_in_the_first_convolution(stride_in_1x1: bool) -> None:
    first = skeleton(config_of(18, stride_in_1x1=stride_in_1x1)).stages()["conv3_x"][0]
    assert (first.conv1.conv.stride, first.conv2.conv.stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (15, 16), (17, 31), (32, 33), (65, 47), (20, 400)])
def test_c4_features_have_a_sixteenth_of_the_size_rounded_up(size: tuple[int, int]) -> None:
    height, width = size
    features = skeleton(config_of(18)).backbone(torch.empty(1, 3, height, width, device="meta"))
    assert Size(*features.shape[-2:]) == Size(-(-height // 16), -(-width // 16))


@torch.no_grad()
def test_an_image_of_one_pixel_has_finite_features() -> None:
    features = ResNetC4(config_of(18)).eval()(pixels(1, 1))
    assert features.shape == (1, 256, 1, 1)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize(("side", "expected"), [(14, 7), (7, 4), (2, 1), (1, 1)])
def test_conv5_x_halves_the_side_rounded_up(side: int, expected: int) -> None:
    regions = torch.empty(1, 256, side, side, device="meta")
    assert conv5_x(config_of(18)).to("meta")(regions).shape[-2:] == (expected, expected)


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 3, 4])
def test_frozen_stages_get_no_gradients_and_the_others_do(frozen_stages: int) -> None:
    backbone = ResNetC4(config_of(18, "batch", frozen_stages)).train()
    backbone(pixels(32, 48).requires_grad_()).sum().backward()
    stages = (backbone.conv1, backbone.conv2_x, backbone.conv3_x, backbone.conv4_x)
    for number, stage in enumerate(stages):
        for parameter in stage.parameters():
            assert (parameter.grad is not None) == (number >= frozen_stages)


@pytest.mark.parametrize("frozen_stages", [0, 1, 2, 3, 4])
@torch.no_grad()
def test_batch_norms_of_frozen_stages_keep_their_running_statistics(frozen_stages: int) -> None:
    backbone = ResNetC4(config_of(18, "batch", frozen_stages)).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(pixels(32, 48))
    changed = {name.split(".")[0] for name, value in backbone.named_buffers() if not torch.equal(value, before[name])}
    assert changed == set(("conv1", "conv2_x", "conv3_x", "conv4_x")[frozen_stages:])


def test_frozen_stages_stay_frozen_after_evaluation() -> None:
    backbone = ResNetC4(config_of(18, "batch", 2)).train().eval().train()
    assert not backbone.conv2_x[0].conv1.norm.training
    assert backbone.conv3_x[0].conv1.norm.training


@torch.no_grad()
def test_frozen_batch_norms_change_nothing_and_are_not_trained() -> None:
    backbone = ResNetC4(config_of(18, "frozen_batch")).train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(pixels(32, 48))
    for name, value in backbone.named_buffers():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert {parameter.ndim for parameter in backbone.parameters()} == {4}


def test_a_network_with_group_norm_trains() -> None:
    backbone = ResNetC4(config_of(18, "group")).train()
    backbone(pixels(32, 48)).mean().backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in backbone.parameters()
    )


@torch.no_grad()
def test_group_norm_treats_each_image_alone() -> None:
    backbone = ResNetC4(config_of(18, "group")).train()
    both = pixels(32, 48, batch=2)
    torch.testing.assert_close(backbone(both)[:1], backbone(both[:1]), rtol=1e-4, atol=1e-5)


def test_group_norm_has_32_groups() -> None:
    norms = [module for module in skeleton(config_of(50, "group")).modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}
    assert {norm.num_channels for norm in norms} == {64, 128, 256, 512, 1024, 2048}


def test_random_frozen_norms_do_not_blow_features_up() -> None:
    backbone = BackboneConfig(depth=101, norm="frozen_batch")
    torch.manual_seed(0)
    with torch.no_grad():
        features = ResNetC4(backbone)(torch.randn(1, 3, 64, 64) * 58)
    assert features.abs().max() < 1000
