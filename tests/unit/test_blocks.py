"""Blocks and stages: shortcuts of both options, blocks without any, pre-activation, frozen stages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from detector.config.schema import BackboneConfig, ClassifierConfig, EvaluationConfig, RoIHeadConfig
from detector.models.blocks import (
    NORMS,
    BasicBlock,
    Block,
    BlockShape,
    BlockStyle,
    Bottleneck,
    ConvNorm,
    PartlyFrozen,
    ZeroPadding,
    stage,
)
from detector.models.cifar_resnet import CifarResNet
from detector.models.preactivation import NormActivation, PreactivationBasic, PreactivationBottleneck
from detector.models.resnet import ResNetC4, conv5_x
from detector.models.roi_head import C4Head

BATCH = BlockStyle(NORMS["batch"])
PADDING = BlockStyle(NORMS["batch"], "padding")
PLAIN = BlockStyle(NORMS["batch"], None)
AFTER = (BasicBlock, Bottleneck)
BEFORE = (PreactivationBasic, PreactivationBottleneck)


def features(channels: int, side: int = 6) -> torch.Tensor:
    """Of both signs."""
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def same_shape(block: type[Block], style: BlockStyle) -> Block:
    """A block that the identity fits around."""
    return block(BlockShape(8 * block.expansion, 8), style)


@torch.no_grad()
def silence(block: Block) -> None:
    """Lets the residual of a block be zero."""
    if isinstance(block, BasicBlock | Bottleneck):
        (block.conv2 if isinstance(block, BasicBlock) else block.conv3).norm.weight.zero_()
    else:
        block.residual[-1].conv.weight.zero_()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_zero_padding_takes_every_second_place_and_adds_channels_of_zeros() -> None:
    found = ZeroPadding(2, 2)(torch.arange(9.0).view(1, 1, 3, 3))
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 2.0], [6.0, 8.0]], [[0.0] * 2] * 2, [[0.0] * 2] * 2]]))


@given(side=st.integers(1, 9), stride=st.integers(1, 2))
def test_zero_padding_has_the_size_of_the_convolution_beside_it(side: int, stride: int) -> None:
    wanted = nn.Conv2d(3, 5, 3, stride, padding=1, device="meta")(torch.empty(2, 3, side, side, device="meta"))
    assert ZeroPadding(2, stride)(torch.empty(2, 3, side, side, device="meta")).shape == wanted.shape


@pytest.mark.parametrize("block", [*AFTER, *BEFORE])
def test_zero_padding_has_as_many_weights_as_no_shortcut_at_all(block: type[Block]) -> None:
    padded = block(BlockShape(8, 16, 2), PADDING)
    beside = parameters(padded) - sum(parameters(part) for name, part in padded.named_children() if name != "shortcut")
    assert beside == 0
    assert parameters(block(BlockShape(8, 16, 2), BATCH)) > parameters(padded)


@pytest.mark.parametrize("block", AFTER)
@torch.no_grad()
def test_a_block_with_a_silent_residual_is_the_identity_and_its_relu(block: type[Block]) -> None:
    module = same_shape(block, BATCH)
    silence(module)
    before = features(8 * block.expansion)
    torch.testing.assert_close(module(before), before.relu(), rtol=0, atol=0)


@pytest.mark.parametrize("block", AFTER)
@torch.no_grad()
def test_a_silent_residual_leaves_every_second_place_and_zeros_under_option_a(block: type[Block]) -> None:
    module = block(BlockShape(8, 16, 2), PADDING)
    silence(module)
    before = features(8)
    wanted = torch.cat([before[:, :, ::2, ::2].relu(), torch.zeros(2, 16 * block.expansion - 8, 3, 3)], dim=1)
    torch.testing.assert_close(module(before), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("block", AFTER)
@torch.no_grad()
def test_a_plain_block_is_its_convolutions_alone(block: type[Block]) -> None:
    module = same_shape(block, PLAIN)
    wanted = before = features(8 * block.expansion)
    for layer in (part for part in module.children() if isinstance(part, ConvNorm)):
        wanted = layer(wanted).relu()
    torch.testing.assert_close(module(before), wanted)


@pytest.mark.parametrize("block", AFTER)
def test_a_plain_block_weighs_what_its_twin_under_option_a_weighs(block: type[Block]) -> None:
    assert parameters(block(BlockShape(8, 16, 2), PLAIN)) == parameters(block(BlockShape(8, 16, 2), PADDING))


@torch.no_grad()
def test_frozen_norms_without_weights_let_plain_blocks_through() -> None:
    style = BlockStyle(NORMS["frozen_batch"], None)
    torch.manual_seed(0)
    found = nn.Sequential(*stage(BasicBlock, BlockShape(16, 16), 20, style))(features(16))
    # At a fifth a block, as around shortcuts, they would be gone: 0.2 ** 20 is 1e-14.
    assert 1e-3 < found.abs().max() < 1e3


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (32, 32), (64, 32), (2048, 32)])
def test_there_are_32_groups_but_where_there_are_fewer_channels(channels: int, groups: int) -> None:
    norm = NORMS["group"](channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


@pytest.mark.parametrize("block", BEFORE)
@torch.no_grad()
def test_identities_carry_features_unchanged_through_preactivation_blocks(block: type[Block]) -> None:
    blocks = nn.Sequential(*(same_shape(block, BATCH) for _ in range(3)))
    for module in blocks:
        silence(module)
    before = features(8 * block.expansion)
    torch.testing.assert_close(blocks(before), before, rtol=0, atol=0)


@pytest.mark.parametrize("block", BEFORE)
def test_identities_carry_gradients_unchanged_through_preactivation_blocks(block: type[Block]) -> None:
    blocks = nn.Sequential(*(same_shape(block, BATCH) for _ in range(3)))
    for module in blocks:
        silence(module)
    before = features(8 * block.expansion).requires_grad_()
    blocks(before).sum().backward()
    torch.testing.assert_close(before.grad, torch.ones_like(before), rtol=0, atol=0)


@pytest.mark.parametrize("elu", [False, True])
@pytest.mark.parametrize("block", BEFORE)
@torch.no_grad()
def test_preactivation_blocks_give_values_of_both_signs(block: type[Block], elu: bool) -> None:
    found = block(BlockShape(8, 8, 2), BlockStyle(NORMS["batch"], elu=elu))(features(8))
    assert found.min() < -0.1
    assert found.max() > 0.1


@torch.no_grad()
def test_a_preactivation_block_is_norm_activation_convolution_twice_and_the_sum() -> None:
    module = PreactivationBasic(BlockShape(8, 8), BlockStyle(NORMS["batch"], elu=True))
    before = features(8)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(8)]
    hidden = module.residual[0](nn.functional.elu(norms[0](before)))
    wanted = before + module.residual[1].conv(nn.functional.elu(norms[1](hidden)))
    torch.testing.assert_close(module(before), wanted)


@torch.no_grad()
def test_a_projection_sees_what_the_residual_of_a_preactivation_block_sees() -> None:
    module = PreactivationBasic(BlockShape(8, 16, 2), BATCH)
    silence(module)
    before = features(8)
    torch.testing.assert_close(module(before), module.shortcut(nn.BatchNorm2d(8)(before).relu()))


@pytest.mark.parametrize("block", BEFORE)
def test_the_first_preactivation_block_leaves_norm_and_activation_to_conv1(block: type[Block]) -> None:
    assert isinstance(block(BlockShape(8, 8, first=True), BATCH).start, nn.Identity)
    assert isinstance(block(BlockShape(8, 8), BATCH).start, NormActivation)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_preactivation_network_ends_with_a_norm_and_an_activation(depth: int) -> None:
    variant = ClassifierConfig(block="preactivation", activation="elu")
    with torch.device("meta"):
        last = conv5_x(BackboneConfig(depth=depth, norm="batch"), variant)[-1]
    assert isinstance(last, NormActivation)
    assert isinstance(last.activation, nn.ELU)


@pytest.mark.parametrize("stride_in_1x1", [True, False])
def test_the_stride_of_a_preactivation_bottleneck_lies_where_the_setting_says(stride_in_1x1: bool) -> None:
    module = PreactivationBottleneck(BlockShape(8, 8, 2), BlockStyle(NORMS["batch"], stride_in_1x1=stride_in_1x1))
    strides = [layer.stride[0] for layer in module.residual.modules() if isinstance(layer, nn.Conv2d)]
    assert strides == ([2, 1, 1] if stride_in_1x1 else [1, 2, 1])


def random_head(config: BackboneConfig) -> PartlyFrozen:
    return C4Head(3, config, RoIHeadConfig(pooled_size=4), EvaluationConfig())


def test_a_frozen_conv5_x_of_a_detector_gets_no_gradients_but_passes_them_on() -> None:
    head = random_head(BackboneConfig(depth=18, norm="batch", frozen_stages=("conv5_x",))).train()
    maps = torch.randn(1, 256, 6, 8, requires_grad=True)
    logits, deltas = head(list(maps), [torch.tensor([[0.0, 0.0, 60.0, 60.0], [9.0, 9.0, 80.0, 70.0]])])
    (logits.sum() + deltas.sum()).backward()
    assert all(parameter.grad is None for parameter in head.conv5_x.parameters())
    assert head.class_layer.weight.grad is not None
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0


@pytest.mark.parametrize("frozen", [(), ("conv1", "conv4_x"), ("conv5_x",)])
def test_batch_norms_of_conv5_x_train_unless_it_is_frozen(frozen: tuple[str, ...]) -> None:
    head = random_head(BackboneConfig(depth=18, norm="batch", frozen_stages=frozen)).train()
    assert head.conv5_x[0].conv1.norm.training == ("conv5_x" not in frozen)


NETWORKS: dict[str, Callable[[BackboneConfig], PartlyFrozen]] = {
    "resnet": ResNetC4,
    "preactivation": lambda config: ResNetC4(config, ClassifierConfig(block="preactivation")),
    "cifar": lambda config: CifarResNet(config, ClassifierConfig(network="cifar", depth=8)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("frozen", [(), ("conv1",), ("conv1", "conv2_x"), ("conv3_x",), ("conv2_x", "conv4_x")])
def test_stages_frozen_by_name_have_no_gradients_and_still_norms(network: str, frozen: tuple[str, ...]) -> None:
    model = NETWORKS[network](BackboneConfig(depth=18, norm="batch", frozen_stages=frozen)).eval().train()
    for name in ("conv1", "conv2_x", "conv3_x", "conv4_x"):
        part = getattr(model, name)
        assert {parameter.requires_grad for parameter in part.parameters()} == {name not in frozen}
        assert {item.training for item in part.modules() if isinstance(item, nn.BatchNorm2d)} == {name not in frozen}
