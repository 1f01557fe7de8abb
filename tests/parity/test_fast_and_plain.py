"""The fast way of computing against the plain one, which defines the numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from detector.models import region_vectors
from detector.models.blocks import BasicBlock, BlockShape, BlockStyle, Bottleneck, ConvNorm
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Detections, ImageBatch, Size, Target
from tests.tiny import NUM_CLASSES, tiny_model

SIZE = (96, 128)
MIXED = (SIZE, (128, 96), (75, 101))
NORMS = ("frozen_batch", "batch", "group")
DEEP = [pytest.param(depth, marks=pytest.mark.slow) for depth in (101, 152)]
BOXES = [[8.0, 8.0, 70.0, 60.0], [0.0, 0.0, 128.0, 96.0], [100.0, 50.0, 128.0, 96.0], [40.0, 30.0, 44.0, 90.0]]


@lru_cache(maxsize=1)
def built(depth: int, stride_in_1x1: bool, norm: str, *overrides: str) -> FasterRCNN:
    model = tiny_model(
        f"model.backbone.depth={depth}",
        f"model.backbone.stride_in_1x1={str(stride_in_1x1).lower()}",
        f"model.backbone.norm={norm}",
        "model.roi_head.score_threshold=0.1",
        *overrides,
    )
    randomise(model)
    return model


def model_of(
    depth: int = 50, stride_in_1x1: bool = False, norm: str = "frozen_batch", overrides: Sequence[str] = ()
) -> FasterRCNN:
    """A model of one's own, in evaluation mode, with random norms and scores that lie apart."""
    return copy.deepcopy(built(depth, stride_in_1x1, norm, *overrides))


@torch.no_grad()
def randomise(model: FasterRCNN) -> None:
    """Random statistics and weights for the norms, weak enough at the end of a block that nothing explodes."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d | nn.GroupNorm):
            module.weight.uniform_(0.7, 1.3, generator=generator)
            module.bias.normal_(std=0.3, generator=generator)
    for module in model.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            (module.conv3 if isinstance(module, Bottleneck) else module.conv2).norm.weight.mul_(0.2)
    (features,), _ = model.features(ImageBatch.of([image_of(SIZE)]))
    hidden = F.relu(model.rpn.conv(features[None]))
    # Logits of a deviation of 2, so that rounding does not change their order.
    model.rpn.objectness.weight.normal_(std=2 / float(hidden.square().sum(dim=1).mean().sqrt()), generator=generator)
    vectors = model.roi_head.conv5_x(features[None]).mean(dim=(0, 2, 3))
    model.roi_head.class_layer.weight.normal_(std=2 / float(vectors.norm()), generator=generator)
    model.roi_head.box_layer.weight.normal_(std=1 / float(vectors.norm()), generator=generator)


def image_of(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """Noise on large and small squares: neither flat nor all alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5, 6, generator=generator)
    fine = torch.rand(1, 3, *size, generator=generator)
    return ((F.interpolate(coarse, size, mode="nearest") * 0.7 + fine * 0.3) * 255)[0].to(torch.uint8)


def batch_of(sizes: Sequence[tuple[int, int]] = (SIZE,)) -> ImageBatch:
    return ImageBatch.of([image_of(size, seed) for seed, size in enumerate(sizes)])


def target_of(boxes: list[list[float]], seed: int = 0) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.arange(len(boxes)) % NUM_CLASSES, seed)


def both(model: FasterRCNN) -> tuple[FasterRCNN, FasterRCNN]:
    """The model computing fast, and a copy of it computing plainly."""
    plain = copy.deepcopy(model)
    plain.accelerate(False)
    return model, plain


def assert_close(found: torch.Tensor, expected: torch.Tensor, share: float = 1e-4) -> None:
    """Equal up to a share of the largest."""
    assert found.shape == expected.shape
    if expected.numel():
        assert expected.abs().max() > 0, "the comparison would say nothing"
        assert (found - expected).abs().max() <= expected.abs().max() * share


def assert_same(found: Detections, expected: Detections) -> None:
    """Equal up to the order of scores that are nearly equal: each expected one is found once."""
    assert len(found) == len(expected) > 2
    left = list(range(len(found)))
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        fitting = (found.labels == label) & ((found.scores - score).abs() < 1e-3)
        fitting &= ((found.boxes - box).abs() < 0.05).all(dim=1)
        rows = [row for row in left if fitting[row]]
        assert rows, f"no detection of class {label} at {box.tolist()}"
        left.remove(rows[0])


def fix_proposals(model: FasterRCNN, boxes: torch.Tensor) -> None:
    model.rpn.propose = lambda output: boxes.to(output.deltas.dtype)


def random_boxes(count: int) -> torch.Tensor:
    """Inside images of the usual size, also in those that are a little smaller."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    return (corners * torch.tensor([90.0, 60.0])).flatten(1) + torch.tensor([0.0, 0.0, 8.0, 8.0])


ALL_MODELS = [
    pytest.mark.parametrize("norm", NORMS),
    pytest.mark.parametrize("stride_in_1x1", [False, True], ids=["stride in 3x3", "stride in 1x1"]),
]


def every_model(*depths: object) -> object:
    """Parametrises over depth, norm and place of the stride."""

    def decorate(test: object) -> object:
        for mark in (*ALL_MODELS, pytest.mark.parametrize("depth", depths)):
            test = mark(test)
        return test

    return decorate


# Forward.


@every_model(18, 34, 50, *DEEP)
@torch.no_grad()
def test_all_stages_agree(depth: int, stride_in_1x1: bool, norm: str) -> None:
    fast, plain = both(model_of(depth, stride_in_1x1, norm))
    images = batch_of(MIXED[:2])
    (features, outputs), (expected, wanted) = fast.features(images), plain.features(images)
    for found, right in zip(features, expected, strict=True):
        assert_close(found, right)
    for output, right in zip(outputs, wanted, strict=True):
        assert_close(output.objectness, right.objectness)
        assert_close(output.deltas, right.deltas)
    regions = [torch.tensor(BOXES), random_boxes(5)]
    for found, right in zip(fast.roi_head(expected, regions), plain.roi_head(expected, regions), strict=True):
        assert_close(found, right)
    for found, right in zip(fast.detect(images), plain.detect(images), strict=True):
        assert_same(found, right)


def test_the_fast_way_is_the_default_and_another_way() -> None:
    fast, plain = both(model_of())
    images = batch_of()
    with torch.no_grad():
        assert not torch.equal(fast.features(images)[0][0], plain.features(images)[0][0])


def test_refined_boxes_agree() -> None:
    model = model_of(overrides=["evaluation.box_refinement=true", "evaluation.box_voting=true"])
    fast, plain = both(model)
    for found, expected in zip(fast.detect(batch_of(MIXED)), plain.detect(batch_of(MIXED)), strict=True):
        assert_same(found, expected)


def test_images_without_proposals_agree() -> None:
    fast, plain = both(model_of())
    for model in (fast, plain):
        propose = model.rpn.propose
        model.rpn.propose = lambda output, propose=propose: propose(output)[: 0 if output.size == Size(*SIZE) else None]
    found, expected = fast.detect(batch_of(MIXED)), plain.detect(batch_of(MIXED))
    assert len(found[0]) == len(expected[0]) == 0
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert_same(one, other)


def test_no_proposals_at_all_give_no_detections() -> None:
    model = model_of()
    fix_proposals(model, torch.zeros(0, 4))
    assert [len(found) for found in model.detect(batch_of(MIXED))] == [0, 0, 0]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of these models' regions, with 4 x 4 bins, 64 are computed at once."""
    monkeypatch.setattr(region_vectors, "_BINS", 64 * 4**2)


@pytest.mark.usefixtures("small_parts")
@torch.no_grad()
def test_many_regions_are_computed_in_parts_and_agree() -> None:
    fast, plain = both(model_of())
    features, _ = plain.features(batch_of())
    regions = [random_boxes(150)]
    for found, expected in zip(fast.roi_head(features, regions), plain.roi_head(features, regions), strict=True):
        assert_close(found, expected)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("depth", [18, 50])
@torch.no_grad()
def test_a_batch_norm_in_training_looks_at_all_regions_also_without_gradients(depth: int) -> None:
    fast, plain = both(model_of(depth, norm="batch"))
    features, _ = plain.features(batch_of())
    regions = [random_boxes(70)]
    results = [model.train().roi_head(features, regions) for model in (fast, plain)]
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)
    for found, expected in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_detections_do_not_depend_on_the_other_images() -> None:
    model = model_of()
    together = model.detect(batch_of(MIXED))
    for seed, (size, found) in enumerate(zip(MIXED, together, strict=True)):
        (alone,) = model.detect(ImageBatch.of([image_of(size, seed)]))
        assert_same(found, alone)


# Gradients, in float64: there only a mistake makes a difference.


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the network computes in float32 whatever its weights, it now computes in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    built.cache_clear()


def gradients_of(model: FasterRCNN, images: ImageBatch, targets: list[Target]) -> dict[str, torch.Tensor | None]:
    sum(model(images, targets).values()).backward()
    return {name: value.grad for name, value in model.named_parameters()}


def assert_same_gradients(model: FasterRCNN, boxes: torch.Tensor, targets: list[Target], share: float = 1e-4) -> None:
    images = batch_of(MIXED[: len(targets)])
    doubled = [Target(target.boxes.double(), target.labels, target.seed) for target in targets]
    results = []
    for one in both(model.double().train()):
        fix_proposals(one, boxes)
        results.append(gradients_of(one, images, doubled))
        assert all(value is None or value.isfinite().all() for value in results[-1].values())
    for name, expected in results[1].items():
        found = results[0][name]
        assert (found is None) == (expected is None), name
        if found is not None and expected is not None:
            assert (found - expected).norm() <= expected.norm() * share, name


@every_model(18, 50)
@pytest.mark.usefixtures("in_float64")
def test_all_gradients_agree(depth: int, stride_in_1x1: bool, norm: str) -> None:
    targets = [target_of(BOXES), target_of([])]
    assert_same_gradients(model_of(depth, stride_in_1x1, norm), random_boxes(20), targets, 1e-9)


@pytest.mark.parametrize("norm", ["frozen_batch", "group"])
@pytest.mark.usefixtures("in_float64")
def test_gradients_agree_where_there_are_no_regions(norm: str) -> None:
    assert_same_gradients(model_of(norm=norm), torch.zeros(0, 4), [target_of([]), target_of([])], 1e-9)


@pytest.mark.usefixtures("in_float64")
def test_gradients_agree_where_stages_are_frozen() -> None:
    model = model_of(norm="batch", overrides=["model.backbone.frozen_stages=3"])
    assert_same_gradients(model, random_boxes(20), [target_of(BOXES)], 1e-9)


def test_gradients_agree_in_float32() -> None:
    results = []
    for model in both(model_of().train()):
        fix_proposals(model, random_boxes(20))
        results.append(gradients_of(model, batch_of(), [target_of(BOXES)]))
    for name, expected in results[1].items():
        assert (results[0][name] - expected).norm() <= expected.norm() * 1e-4, name


# Training and detection in turns.


@pytest.mark.parametrize("norm", NORMS)
def test_detections_between_updates_are_those_of_the_weights(norm: str) -> None:
    model = model_of(norm=norm)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for _ in range(2):
        fast, plain = both(model.eval())
        assert_same(fast.detect(batch_of())[0], plain.detect(batch_of())[0])
        sum(model.train()(batch_of(), [target_of(BOXES)]).values()).backward()
        optimizer.step()
    fast, plain = both(model.eval())
    assert_same(fast.detect(batch_of())[0], plain.detect(batch_of())[0])


def test_turning_the_fast_way_off_and_on_changes_nothing() -> None:
    model = model_of()
    names, before = list(model.state_dict()), model.detect(batch_of())[0]
    weights = copy.deepcopy(model.state_dict())
    for accelerated in (False, True, False, True):
        model.accelerate(accelerated)
        model.detect(batch_of())
    assert list(model.state_dict()) == names
    torch.testing.assert_close(dict(model.state_dict()), dict(weights), rtol=0, atol=0)
    torch.testing.assert_close(model.detect(batch_of())[0].boxes, before.boxes, rtol=0, atol=0)


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_deterministic")
def test_deterministic_algorithms_train_and_detect_twice_the_same() -> None:
    results = []
    for _ in range(2):
        model = model_of()
        found = model.detect(batch_of(MIXED[:2]))
        gradients = gradients_of(model.train(), batch_of(MIXED[:2]), [target_of(BOXES), target_of([])])
        results.append([found[0].boxes, found[0].scores, *gradients.values()])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


# Precision.


def _error(found: Sequence[torch.Tensor], exact: Sequence[torch.Tensor]) -> float:
    return max(float((one - other).norm() / other.norm()) for one, other in zip(found, exact, strict=True))


@pytest.mark.parametrize("norm", NORMS)
@torch.no_grad()
def test_in_bfloat16_the_fast_way_is_not_less_exact_than_the_plain_one(norm: str) -> None:
    fast, plain = both(model_of(norm=norm))
    regions = [random_boxes(20)]

    def results(model: FasterRCNN) -> list[torch.Tensor]:
        features, (output,) = model.features(batch_of())
        return [features[0].float(), output.objectness, output.deltas, *model.roi_head(features, regions)]

    exact = results(plain)
    with torch.autocast("cpu", torch.bfloat16):
        of_fast, of_plain = _error(results(fast), exact), _error(results(plain), exact)
    assert of_fast <= 1.5 * of_plain + 0.005
    assert of_fast < 0.1


@pytest.mark.parametrize("norm", ["frozen_batch", "group"])
def test_gradients_in_bfloat16_point_where_those_of_float32_do(norm: str) -> None:
    model = model_of(norm=norm).train()
    fix_proposals(model, random_boxes(20))
    exact = gradients_of(copy.deepcopy(model), batch_of(), [target_of(BOXES)])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch_of(), [target_of(BOXES)])
    sum(losses.values()).backward()
    found, expected = (
        torch.cat([gradient.flatten() for gradient in gradients])
        for gradients in ([value.grad for value in model.parameters()], exact.values())
    )
    # Four to eight percent are measured: each of the 53 layers rounds to 8 bits, there and back.
    assert (found - expected).norm() <= expected.norm() * 0.15


# Networks of one's own.


class Scale(nn.Module):
    """A norm that is none of torch's: a scale, learnt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.3, 0.6, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.weight[:, None, None]


class OneMore(FrozenBatchNorm2d):
    """A frozen batch norm whose weight is kept as the difference from one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x


class Own(nn.BatchNorm2d):
    """A batch norm that cuts off what is large."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).clamp(-0.5, 0.5)


def assert_own_agrees(model: FasterRCNN) -> None:
    """In float64, where only a mistake makes a difference."""
    fast, plain = both(model.double().eval())
    with torch.no_grad():
        features, expected = fast.features(batch_of())[0], plain.features(batch_of())[0]
        assert_close(features[0], expected[0], 1e-9)
        regions = [random_boxes(20)]
        for found, right in zip(fast.roi_head(expected, regions), plain.roi_head(expected, regions), strict=True):
            assert_close(found, right, 1e-9)
    assert_same_gradients(fast, random_boxes(20), [target_of(BOXES)], 1e-9)


@pytest.mark.parametrize("norm", [Scale, OneMore, Own, nn.InstanceNorm2d, lambda channels: nn.Identity()])
@pytest.mark.usefixtures("in_float64")
def test_norms_of_ones_own_work(norm: type[nn.Module]) -> None:
    model = model_of()
    for module in model.roi_head.conv5_x.modules():
        if isinstance(module, ConvNorm):
            module.norm = norm(module.conv.out_channels)
    for module in model.backbone.conv4_x[0].modules():
        if isinstance(module, ConvNorm):
            module.norm = norm(module.conv.out_channels)
    assert_own_agrees(model)


@pytest.mark.parametrize("norm", [nn.Identity, None], ids=["without norm", "with norm"])
@pytest.mark.usefixtures("in_float64")
def test_convolutions_with_a_bias_keep_it(norm: type[nn.Module] | None) -> None:
    model = model_of()
    for module in model.modules():
        if isinstance(module, ConvNorm):
            module.conv.bias = nn.Parameter(torch.linspace(-1, 1, module.conv.out_channels))
            module.norm = module.norm if norm is None else norm()
    assert_own_agrees(model)


@pytest.mark.usefixtures("in_float64")
def test_dilated_convolutions_stay_dilated() -> None:
    model = model_of()
    for block in model.roi_head.conv5_x:
        block.conv2.conv.dilation = block.conv2.conv.padding = (2, 2)
    assert_own_agrees(model)


@pytest.mark.usefixtures("in_float64")
def test_a_last_stage_of_plain_convolutions_works() -> None:
    model = model_of()
    torch.manual_seed(0)
    model.roi_head.conv5_x = nn.Sequential(nn.Conv2d(1024, 8, 3), nn.ReLU(), nn.Conv2d(8, 2048, 1), nn.ReLU())
    assert_own_agrees(model)


@pytest.mark.usefixtures("in_float64")
def test_a_last_stage_of_basic_blocks_works() -> None:
    model = model_of()
    block = BasicBlock(BlockShape(1024, 32, 2), BlockStyle(FrozenBatchNorm2d))
    model.roi_head.conv5_x = nn.Sequential(block, nn.Conv2d(32, 2048, 1))
    assert_own_agrees(model)


@pytest.mark.usefixtures("in_float64")
def test_a_last_stage_without_a_projection_works() -> None:
    model = model_of()
    block = Bottleneck(BlockShape(1024, 256), BlockStyle(FrozenBatchNorm2d, stride_in_1x1=False))
    model.roi_head.conv5_x = nn.Sequential(block, nn.Conv2d(1024, 2048, 1))
    assert_own_agrees(model)
