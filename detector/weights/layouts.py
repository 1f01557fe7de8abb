"""How other toolkits name the tensors of this network, and what comes with their weights.

A layout is recognised by its keys. Each has a table of rules that turn a key of ours into the name it has there; one
table serves both directions. A key of ours is a detector's; the stages of a classifier go by the same keys, and its
class layer is ``class_layer``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.config.schema import AnchorConfig, ModelConfig

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_BATCH_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Conventions:
    """What weights were trained with and must meet again.

    Attributes:
        pixel_order: "rgb" or "bgr".
        pixel_mean: subtracted, in that order.
        pixel_std: divided by.
        stride_in_1x1: of a stage's first bottleneck; in the 3x3 otherwise.
        batch_norm: norms are batch norms, not group norms.
    """

    pixel_order: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    stride_in_1x1: bool
    batch_norm: bool = True

    @classmethod
    def of(cls, model: ModelConfig) -> Conventions:
        """Those of a configuration."""
        backbone = model.backbone
        return cls(
            model.pixel_order, model.pixel_mean, model.pixel_std, backbone.stride_in_1x1, backbone.norm != "group"
        )


_CAFFE = Conventions("bgr", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), stride_in_1x1=True)
_TORCHVISION = Conventions("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), stride_in_1x1=False)


@dataclass(frozen=True)
class Layout:
    """One way of naming.

    Attributes:
        name: for messages.
        marks: keys that a file of this layout holds, all of them.
        rules: regular expressions with replacements, applied in order to each key of ours.
        conventions: what published weights of this layout were trained with; None where the file itself says.
        whole: holds all of the network, the RPN and the class layers, too, not the ResNet alone.
        ratio_major: the RPN's channels are ordered by aspect ratio, then size; ours by size, then ratio.
        affine_norms: norms have a scale and a shift alone, their statistics are folded in.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    conventions: Conventions | None = None
    whole: bool = True
    ratio_major: bool = False
    affine_norms: bool = False

    @property
    def ours(self) -> bool:
        """Of this toolkit."""
        return self.conventions is None

    def names(self, keys: Iterable[str]) -> dict[str, str]:
        """Each key of ours that this layout knows, with its name there."""
        found = {}
        for key in keys:
            name, known = key, not self.rules
            for pattern, replacement in self.rules:
                name, count = re.subn(pattern, replacement, name)
                known = known or bool(count)
            if known:
                found[key] = name
        return found


def detector_key(key: str) -> str:
    """A key of a network of ours, detector or classifier, as a detector has it."""
    return re.sub(r"^conv5_x\.", "roi_head.conv5_x.", key)


def _stage_as_layer(match: re.Match[str]) -> str:
    return f"layer{int(match[1]) - 1}."


def _branch(match: re.Match[str]) -> str:
    return f"_branch2{'abc'[int(match[1]) - 1]}."


# convJ.conv -> convJ, convJ.norm -> bnJ, shortcut -> downsample, as torchvision has them inside a block.
_TORCHVISION_BLOCK: tuple[Rule, ...] = (
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.norm\.", r".bn\1."),
)

OWN = Layout("detector", ("backbone.conv1.conv.weight", "rpn.conv.weight", "roi_head.class_layer.weight"), ())

# Not among LAYOUTS: the settings in the file say that it is one.
OWN_CLASSIFIER = Layout(
    "classifier",
    (),
    (
        (r"^roi_head\.conv5_x\.", "conv5_x."),
        (r"^(backbone|class_layer|network)\.", r"\1."),
    ),
    whole=False,
)

TORCHVISION = Layout(
    "torchvision",
    ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
    (
        (r"^backbone\.conv1\.conv\.", "conv1."),
        (r"^backbone\.conv1\.norm\.", "bn1."),
        (r"^(?:backbone|roi_head)\.conv([2345])_x\.", _stage_as_layer),
        (r"^class_layer\.", "fc."),
        *_TORCHVISION_BLOCK,
    ),
    _TORCHVISION,
    whole=False,
)

DETECTRON2 = Layout(
    "detectron2",
    (
        "backbone.stem.conv1.weight",
        "proposal_generator.rpn_head.conv.weight",
        "roi_heads.box_predictor.cls_score.weight",
    ),
    (
        (r"^backbone\.conv1\.", "backbone.stem.conv1."),
        (r"^backbone\.conv([234])_x\.", r"backbone.res\1."),
        (r"^roi_head\.conv5_x\.", "roi_heads.res5."),
        (r"^roi_head\.class_layer\.", "roi_heads.box_predictor.cls_score."),
        (r"^roi_head\.box_layer\.", "roi_heads.box_predictor.bbox_pred."),
        (r"^rpn\.conv\.", "proposal_generator.rpn_head.conv."),
        (r"^rpn\.objectness\.", "proposal_generator.rpn_head.objectness_logits."),
        (r"^rpn\.deltas\.", "proposal_generator.rpn_head.anchor_deltas."),
        (r"^(backbone|roi_heads)(.*)\.conv\.weight$", r"\1\2.weight"),
    ),
    _CAFFE,
)

DETECTRON2_BACKBONE = Layout(
    "detectron2 backbone",
    ("stem.conv1.weight", "res2.0.conv1.weight"),
    (
        (r"^backbone\.conv1\.", "stem.conv1."),
        (r"^(?:backbone|roi_head)\.conv([2345])_x\.", r"res\1."),
        (r"^(stem|res)(.*)\.conv\.weight$", r"\1\2.weight"),
    ),
    _TORCHVISION,
    whole=False,
)

MMDETECTION = Layout(
    "mmdetection",
    ("backbone.layer1.0.conv1.weight", "rpn_head.rpn_conv.weight", "roi_head.shared_head.layer4.0.conv1.weight"),
    (
        (r"^backbone\.conv1\.conv\.", "backbone.conv1."),
        (r"^backbone\.conv1\.norm\.", "backbone.bn1."),
        (r"^backbone\.conv([234])_x\.", lambda match: "backbone." + _stage_as_layer(match)),
        (r"^roi_head\.conv5_x\.", "roi_head.shared_head.layer4."),
        (r"^roi_head\.class_layer\.", "roi_head.bbox_head.fc_cls."),
        (r"^roi_head\.box_layer\.", "roi_head.bbox_head.fc_reg."),
        (r"^rpn\.conv\.", "rpn_head.rpn_conv."),
        (r"^rpn\.objectness\.", "rpn_head.rpn_cls."),
        (r"^rpn\.deltas\.", "rpn_head.rpn_reg."),
        *_TORCHVISION_BLOCK,
    ),
    _CAFFE,
    ratio_major=True,
)

CAFFE = Layout(
    "caffe",
    ("conv1_w", "res_conv1_bn_s", "res2_0_branch2a_w"),
    (
        (r"^backbone\.conv1\.conv\.weight$", "conv1_w"),
        (r"^backbone\.conv1\.norm\.weight$", "res_conv1_bn_s"),
        (r"^backbone\.conv1\.norm\.bias$", "res_conv1_bn_b"),
        (r"^(?:backbone|roi_head)\.conv([2345])_x\.(\d+)\.", r"res\1_\2."),
        (r"\.shortcut\.", "_branch1."),
        (r"\.conv([123])\.", _branch),
        (r"\.conv\.weight$", "_w"),
        (r"\.norm\.weight$", "_bn_s"),
        (r"\.norm\.bias$", "_bn_b"),
    ),
    _CAFFE,
    whole=False,
    affine_norms=True,
)

LAYOUTS = (OWN, DETECTRON2, MMDETECTION, DETECTRON2_BACKBONE, TORCHVISION, CAFFE)


def recognise(keys: Iterable[str], layouts: Iterable[Layout] = LAYOUTS) -> Layout | None:
    """The layout that a file with these keys is in; None if it is none of the given ones."""
    present = set(keys)
    return next((layout for layout in layouts if present.issuperset(layout.marks)), None)


def from_layout(
    layout: Layout, tensors: Mapping[str, Tensor], own_keys: Iterable[str], anchors: AnchorConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Renames and reorders what a file holds.

    Args:
        layout: of the file.
        tensors: its contents.
        own_keys: the keys of the model that shall be filled.
        anchors: for the order of the RPN's channels.

    Returns:
        Tensors by our keys, and the names of the file that have no place in the model.
    """
    keys = list(own_keys)
    names = layout.names(keys)
    own = {key: tensors[name] for key, name in names.items() if name in tensors}
    unexpected = sorted(set(tensors) - set(names.values()))
    if layout.affine_norms:
        own |= _identity_statistics(own, keys)
    if layout.ratio_major:
        own |= {key: _reorder(own[key], anchors, to_ours=True) for key in own if key.startswith(_ANCHOR_LAYERS)}
    return own, unexpected


def to_layout(layout: Layout, own: Mapping[str, Tensor], anchors: AnchorConfig) -> dict[str, Tensor]:
    """Our tensors under the names and in the order of another layout; the inverse of ``from_layout``."""
    tensors = {}
    for key, name in layout.names(own).items():
        reordered = layout.ratio_major and key.startswith(_ANCHOR_LAYERS)
        tensors[name] = _reorder(own[key], anchors, to_ours=False) if reordered else own[key]
    return tensors


_ANCHOR_LAYERS = ("rpn.objectness.", "rpn.deltas.")


def _reorder(tensor: Tensor, anchors: AnchorConfig, to_ours: bool) -> Tensor:
    """Swaps (ratio, size) and (size, ratio) in the output channels of an RPN layer."""
    sizes, ratios = len(anchors.sizes), len(anchors.aspect_ratios)
    if tensor.shape[0] % (sizes * ratios):
        return tensor  # of another number of anchors; the comparison of shapes will say so
    grid = (ratios, sizes) if to_ours else (sizes, ratios)
    return tensor.reshape(*grid, -1, *tensor.shape[1:]).transpose(0, 1).flatten(0, 2).contiguous()


def _identity_statistics(own: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """Statistics with which a batch norm is nothing but its scale and shift."""
    statistics = {}
    for key in keys:
        weight = own.get(re.sub(r"running_(mean|var)$", "weight", key))
        if key.endswith("running_mean") and weight is not None:
            statistics[key] = torch.zeros_like(weight)
        elif key.endswith("running_var") and weight is not None:
            statistics[key] = torch.full_like(weight, 1 - _BATCH_NORM_EPSILON)
    return statistics


def depth_of(names: Iterable[str]) -> int | None:
    """The depth of the ResNet in a file of any layout, from the blocks of its fourth stage; None if it has none."""
    found = [match for name in names if (match := _FOURTH_STAGE.search(name))]
    blocks = {match[1] for match in found}
    deep = any(match[2] in "3c" for match in found)
    return {(2, False): 18, (6, False): 34, (6, True): 50, (23, True): 101, (36, True): 152}.get((len(blocks), deep))


_FOURTH_STAGE = re.compile(r"(?:conv4_x\.|res4\.|layer3\.|res4_)(\d+)(?:\.conv|_branch2)([123abc])")
