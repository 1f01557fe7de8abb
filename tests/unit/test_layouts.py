from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detector.config import Config
from detector.errors import WeightsError
from detector.models.build import build_model
from detector.models.faster_rcnn import FasterRCNN
from detector.weights.initial import load_initial
from detector.weights.layouts import (
    CAFFE,
    DETECTRON2,
    DETECTRON2_BACKBONE,
    LAYOUTS,
    MMDETECTION,
    TORCHVISION,
    Layout,
    depth_of,
    from_layout,
    recognise,
    to_layout,
)  # fmt: skip
from detector.weights.load import Weights, adopt_conventions, contradictions, fill, read_weights
from tests.tiny import NUM_CLASSES, tiny_config

FROZEN = ("model.backbone.norm=frozen_batch", "model.backbone.depth=50")
FOREIGN = [layout for layout in LAYOUTS if layout.rules]


def _model(seed: int, *overrides: str) -> tuple[FasterRCNN, Config]:
    config = tiny_config(*FROZEN, *overrides)
    torch.manual_seed(seed)
    model = build_model(config.model, NUM_CLASSES, config.evaluation)
    for key, value in model.state_dict().items():
        if "norm.running" in key:
            value.copy_(torch.rand_like(value) + 0.5)
    return model, config


@pytest.mark.parametrize("layout", FOREIGN, ids=lambda layout: layout.name)
def test_there_and_back_is_bit_equal_and_recognised(layout: Layout) -> None:
    model, config = _model(0)
    own = model.state_dict()
    there = to_layout(layout, own, config.model.anchors)
    assert recognise(there) is layout
    assert depth_of(there) == 50
    back, unexpected = from_layout(layout, there, own, config.model.anchors)
    if not layout.affine_norms:
        assert unexpected == []
    for key in back:
        if not (layout.affine_norms and "running" in key):
            torch.testing.assert_close(back[key], own[key], rtol=0, atol=0)
    missing = set(own) - set(back)
    assert not missing if layout.whole else all(key.startswith(("rpn.", "roi_head.c", "roi_head.b")) for key in missing)


# Names as they stand in published files, written down by hand.
PUBLISHED = {
    DETECTRON2: {
        "backbone.conv1.norm.running_var": "backbone.stem.conv1.norm.running_var",
        "backbone.conv2_x.0.shortcut.conv.weight": "backbone.res2.0.shortcut.weight",
        "backbone.conv4_x.5.conv3.norm.bias": "backbone.res4.5.conv3.norm.bias",
        "roi_head.conv5_x.2.conv2.conv.weight": "roi_heads.res5.2.conv2.weight",
        "roi_head.box_layer.bias": "roi_heads.box_predictor.bbox_pred.bias",
        "rpn.objectness.weight": "proposal_generator.rpn_head.objectness_logits.weight",
    },
    MMDETECTION: {
        "backbone.conv1.conv.weight": "backbone.conv1.weight",
        "backbone.conv1.norm.bias": "backbone.bn1.bias",
        "backbone.conv3_x.0.shortcut.norm.weight": "backbone.layer2.0.downsample.1.weight",
        "roi_head.conv5_x.0.conv1.conv.weight": "roi_head.shared_head.layer4.0.conv1.weight",
        "roi_head.class_layer.weight": "roi_head.bbox_head.fc_cls.weight",
        "rpn.deltas.bias": "rpn_head.rpn_reg.bias",
    },
    TORCHVISION: {
        "backbone.conv1.norm.running_mean": "bn1.running_mean",
        "backbone.conv2_x.0.shortcut.conv.weight": "layer1.0.downsample.0.weight",
        "roi_head.conv5_x.2.conv3.norm.weight": "layer4.2.bn3.weight",
    },
    DETECTRON2_BACKBONE: {
        "backbone.conv1.conv.weight": "stem.conv1.weight",
        "roi_head.conv5_x.0.shortcut.norm.bias": "res5.0.shortcut.norm.bias",
    },
    CAFFE: {
        "backbone.conv1.norm.weight": "res_conv1_bn_s",
        "backbone.conv2_x.0.conv2.conv.weight": "res2_0_branch2b_w",
        "backbone.conv4_x.3.conv3.norm.bias": "res4_3_branch2c_bn_b",
        "roi_head.conv5_x.0.shortcut.norm.weight": "res5_0_branch1_bn_s",
    },
}


@pytest.mark.parametrize("layout", PUBLISHED, ids=lambda layout: layout.name)
def test_names_are_those_of_published_files(layout: Layout) -> None:
    names = layout.names(_model(0)[0].state_dict())
    assert {key: names[key] for key in PUBLISHED[layout]} == PUBLISHED[layout]


def test_affine_norms_of_caffe_scale_and_shift_alone() -> None:
    model, config = _model(0)
    tensors = to_layout(CAFFE, model.state_dict(), config.model.anchors)
    tensors = {name: value for name, value in tensors.items() if "running" not in name}
    other, _ = _model(1)
    fill(other, config.model, Weights("R-50.pkl", CAFFE, tensors))
    norm = other.backbone.conv3_x[1].conv2.norm
    features = torch.randn(2, 128, 3, 3)
    expected = features * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(features), expected)


def test_channels_of_mmdetections_rpn_are_put_in_our_order() -> None:
    """There the first channels are all sizes of the first ratio, here all ratios of the first size."""
    _, config = _model(0)
    sizes, ratios = len(config.model.anchors.sizes), len(config.model.anchors.aspect_ratios)
    theirs = torch.tensor([10.0 * ratio + size for ratio in range(ratios) for size in range(sizes)])
    own, _ = from_layout(MMDETECTION, {"rpn_head.rpn_cls.bias": theirs}, ["rpn.objectness.bias"], config.model.anchors)
    ours = [10.0 * ratio + size for size in range(sizes) for ratio in range(ratios)]
    assert own["rpn.objectness.bias"].tolist() == ours


def _file(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.write_bytes(pickle.dumps({"model": {name: value.numpy() for name, value in tensors.items()}}))
    return path


def test_a_contradicting_setting_is_named_before_training(tmp_path: Path) -> None:
    model, config = _model(0, "model.pixel_order=rgb", "model.backbone.stride_in_1x1=false")
    path = _file(tmp_path / "model.pkl", to_layout(DETECTRON2, model.state_dict(), config.model.anchors))
    wanted = config.model.model_copy(update={"weights": str(path)})
    with pytest.raises(WeightsError) as caught:
        load_initial(model, wanted)
    message = str(caught.value)
    assert "model.pixel_order is rgb, but these weights need bgr" in message
    assert "model.backbone.stride_in_1x1 is false, but these weights need true" in message


def test_adopted_conventions_contradict_nothing(tmp_path: Path) -> None:
    model, config = _model(0)
    path = _file(tmp_path / "model.pkl", to_layout(DETECTRON2, model.state_dict(), config.model.anchors))
    weights = read_weights(path)
    assert contradictions(adopt_conventions(config.model, weights), weights) == []


def test_pixels_written_in_the_file_count_more_than_the_layouts(tmp_path: Path) -> None:
    model, config = _model(0)
    tensors = to_layout(DETECTRON2, model.state_dict(), config.model.anchors)
    tensors["pixel_mean"] = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
    tensors["pixel_std"] = torch.tensor([58.395, 57.12, 57.375])[:, None, None]
    adopted = adopt_conventions(config.model, read_weights(_file(tmp_path / "model.pkl", tensors)))
    assert (adopted.pixel_order, adopted.pixel_mean) == ("rgb", (123.675, 116.28, 103.53))
    assert not adopted.backbone.stride_in_1x1


def test_the_report_names_every_tensor() -> None:
    model, config = _model(0)
    tensors = to_layout(TORCHVISION, model.state_dict(), config.model.anchors) | {"fc.weight": torch.zeros(10, 2048)}
    report = fill(_model(1)[0], config.model, Weights("resnet50.pth", TORCHVISION, tensors))
    assert report.unexpected == ("fc.weight",)
    assert "rpn.conv.weight" in report.missing
    text = "\n".join(report.lines())
    assert "unexpected: fc.weight" in text
    assert "roi_head.class_layer.bias" in text


def test_another_depth_is_named(tmp_path: Path) -> None:
    model, config = _model(0)
    weights = Weights("x.pkl", TORCHVISION, to_layout(TORCHVISION, model.state_dict(), config.model.anchors))
    other, other_config = _model(0, "model.backbone.depth=18")
    with pytest.raises(WeightsError, match=r"model\.backbone\.depth is 18, the weights are of depth 50"):
        fill(other, other_config.model, weights)


def test_class_layers_of_another_size_are_an_error_unless_renewed() -> None:
    model, config = _model(0)
    torch.manual_seed(1)
    other = build_model(config.model, NUM_CLASSES + 1, config.evaluation)
    weights = Weights("x", DETECTRON2, to_layout(DETECTRON2, model.state_dict(), config.model.anchors))
    with pytest.raises(WeightsError, match=r"class_layer\.weight is \(7, 2048\), the model wants \(8, 2048\)"):
        fill(other, config.model, weights)
    report = fill(other, config.model, weights, renew_classes=True)
    assert any("class_layer.weight" in line for line in report.wrong_shape)


@pytest.mark.parametrize("key", ["backbone.bottom_up.stem.conv1.weight", "neck.lateral_convs.0.conv.weight"])
def test_a_pyramid_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(WeightsError, match="feature pyramid"):
        read_weights(_file(tmp_path / "fpn.pkl", {key: torch.zeros(1)}))
