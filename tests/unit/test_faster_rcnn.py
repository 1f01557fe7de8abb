from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import pytest
import torch

import detector.models.region_vectors
import detector.ops.roi_align
from detector.models.faster_rcnn import FasterRCNN
from detector.structures import Detections, ImageBatch, Size, Target
from tests.tiny import NUM_CLASSES, tiny_model

NAN, INF = math.nan, math.inf
LOSSES = {"loss_objectness", "loss_rpn_box", "loss_class", "loss_box"}
MIXED = ((48, 64), (64, 48), (48, 64), (33, 57))
ODD = pytest.mark.parametrize("size", [(1, 1), (20, 400), (400, 20), (17, 16)])


@lru_cache(maxsize=1)
def built(*overrides: str) -> FasterRCNN:
    return tiny_model(*overrides)


def model_of(*overrides: str) -> FasterRCNN:
    """A tiny model of one's own; drawing its weights takes longer than copying them."""
    return copy.deepcopy(built(*overrides))


def image_of(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def images_of(sizes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    return [image_of(size, seed) for seed, size in enumerate(sizes)]


def target_of(boxes: list[list[float]], seed: int = 0) -> Target:
    labels = torch.arange(len(boxes)) % NUM_CLASSES
    return Target(torch.tensor(boxes).reshape(-1, 4), labels, seed)


def decided_model(*overrides: str) -> FasterRCNN:
    """A model whose scores lie far enough apart that rounding does not change their order."""
    model = model_of(*overrides)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.rpn.objectness.weight.normal_(std=0.5, generator=generator)
        model.roi_head.class_layer.weight.normal_(std=0.05, generator=generator)
        model.roi_head.box_layer.weight.normal_(std=0.05, generator=generator)
    return model


def assert_same(found: Detections, expected: Detections) -> None:
    assert len(expected), "the comparison would say nothing"
    assert found.labels.tolist() == expected.labels.tolist()
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)


# Pixels.


def test_pixels_lose_the_mean_and_are_divided_by_the_deviation() -> None:
    model = model_of("model.pixel_mean=[10, 20, 30]", "model.pixel_std=[2, 4, 8]")
    pixels = torch.tensor([10, 24, 46], dtype=torch.uint8).view(1, 3, 1, 1)
    assert model.normalize(pixels).flatten().tolist() == [0.0, 1.0, 2.0]


def test_bgr_turns_the_channels_round_before_the_mean() -> None:
    model = model_of("model.pixel_order=bgr", "model.pixel_mean=[10, 20, 30]", "model.pixel_std=[2, 4, 8]")
    red_green_blue = torch.tensor([46, 24, 10], dtype=torch.uint8).view(1, 3, 1, 1)
    assert model.normalize(red_green_blue).flatten().tolist() == [0.0, 1.0, 2.0]


def test_normalised_pixels_are_float32() -> None:
    assert model_of().normalize(image_of((4, 5))[None]).dtype == torch.float32


def test_the_mean_is_no_part_of_the_weights() -> None:
    assert not [key for key in model_of().state_dict() if "pixel" in key or "cell" in key]


def test_bytes_and_floats_of_equal_value_are_the_same_image() -> None:
    model = decided_model()
    image = image_of((48, 64))
    (from_bytes,) = model.detect(ImageBatch.of([image]))
    (from_floats,) = model.detect(ImageBatch.of([image.float()]))
    assert_same(from_floats, from_bytes)


# Training.


def test_there_are_four_losses() -> None:
    images = ImageBatch.of([image_of((48, 64))])
    losses = model_of().train()(images, [target_of([[8.0, 8.0, 40.0, 40.0]])])
    assert set(losses) == LOSSES
    assert all(loss.shape == () and loss > 0 for loss in losses.values())


def test_every_layer_learns() -> None:
    model = model_of().train()
    losses = model(ImageBatch.of([image_of((48, 64))]), [target_of([[8.0, 8.0, 40.0, 40.0]])])
    sum(losses.values()).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert silent == []


def test_images_without_objects_have_no_box_losses() -> None:
    images = ImageBatch.of(images_of(MIXED[:2]))
    losses = model_of().train()(images, [target_of([]), target_of([])])
    assert losses["loss_rpn_box"].item() == losses["loss_box"].item() == 0
    assert losses["loss_objectness"] > 0
    assert losses["loss_class"] > 0


def test_images_without_objects_can_be_learnt_from() -> None:
    model = model_of().train()
    sum(model(ImageBatch.of(images_of(MIXED[:2])), [target_of([]), target_of([])]).values()).backward()
    # Also the box layers have a gradient, of zeros: training on several processes waits for one from each layer.
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


@torch.no_grad()
def test_an_image_with_objects_may_share_a_batch_with_one_without() -> None:
    model = model_of().train()
    losses = model(ImageBatch.of(images_of(MIXED[:2])), [target_of([[8.0, 8.0, 40.0, 40.0]]), target_of([])])
    assert all(torch.isfinite(loss) and loss > 0 for loss in losses.values())


@pytest.mark.parametrize("sizes", [MIXED[:2], MIXED[::2]], ids=["different sizes", "one size"])
@torch.no_grad()
def test_losses_of_a_batch_are_the_mean_of_the_losses_of_its_images(sizes: Sequence[tuple[int, int]]) -> None:
    model = decided_model().train()
    images = images_of(sizes)
    targets = [target_of([[8.0, 8.0, 40.0, 40.0], [2.0, 3.0, 20.0, 30.0]], seed=1), target_of([[5.0, 5.0, 30.0, 45.0]])]
    together = model(ImageBatch.of(images), targets)
    alone = [model(ImageBatch.of([image]), [target]) for image, target in zip(images, targets, strict=True)]
    expected = {name: (alone[0][name] + alone[1][name]) / 2 for name in LOSSES}
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


@ODD
@pytest.mark.parametrize("objects", [0, 1])
def test_images_of_odd_sizes_can_be_learnt_from(size: tuple[int, int], objects: int) -> None:
    model = model_of().train()
    target = target_of([[0.0, 0.0, float(size[1]), float(size[0])]][:objects])
    losses = model(ImageBatch.of([image_of(size)]), [target])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_a_network_that_proposes_nothing_learns_from_the_truth() -> None:
    model = model_of().train()
    propose_outside(model)
    losses = model(ImageBatch.of([image_of((48, 64))]), [target_of([[8.0, 8.0, 40.0, 40.0]])])
    sum(losses.values()).backward()
    assert losses["loss_class"] > 0
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_a_network_that_proposes_nothing_learns_without_objects() -> None:
    model = model_of().train()
    propose_outside(model)
    losses = model(ImageBatch.of([image_of((48, 64))]), [target_of([])])
    sum(losses.values()).backward()
    assert losses["loss_class"].item() == losses["loss_box"].item() == 0
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def propose_outside(model: FasterRCNN) -> None:
    """Makes the RPN move every box a thousand widths to the right."""
    with torch.no_grad():
        model.rpn.deltas.bias[0::4] = 1000


# Detection.


def test_detections_do_not_depend_on_the_other_images() -> None:
    model = decided_model()
    images = images_of(MIXED)
    together = model.detect(ImageBatch.of(images))
    for image, found in zip(images, together, strict=True):
        (alone,) = model.detect(ImageBatch.of([image]))
        assert_same(found, alone)


def test_detections_come_in_the_order_of_the_images() -> None:
    model = decided_model()
    images = images_of(MIXED)
    there = model.detect(ImageBatch.of(images))
    back = model.detect(ImageBatch.of(images[::-1]))
    for found, expected in zip(back[::-1], there, strict=True):
        assert_same(found, expected)


def test_padding_never_reaches_the_network() -> None:
    model = decided_model()
    batch = ImageBatch.of(images_of(MIXED[:2]))
    dirty = batch.pixels.clone()
    for row, size in zip(dirty, batch.sizes, strict=True):
        row[:, size.height :], row[:, :, size.width :] = 255, 255
    assert not torch.equal(dirty, batch.pixels)
    for found, expected in zip(model.detect(ImageBatch(dirty, batch.sizes)), model.detect(batch), strict=True):
        assert_same(found, expected)


def test_detections_are_sorted_best_first() -> None:
    (found,) = decided_model().detect(ImageBatch.of([image_of((48, 64))]))
    assert len(set(found.scores.tolist())) > 5
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_detections_lie_inside_their_own_image() -> None:
    for (height, width), found in zip(MIXED, decided_model().detect(ImageBatch.of(images_of(MIXED))), strict=True):
        x1, y1, x2, y2 = found.boxes.unbind(dim=1)
        assert ((x1 >= 0) & (x1 <= x2) & (x2 <= width)).all()
        assert ((y1 >= 0) & (y1 <= y2) & (y2 <= height)).all()


def test_there_are_at_most_as_many_detections_as_asked_for() -> None:
    (all_found,) = decided_model().detect(ImageBatch.of([image_of((48, 64))]))
    (best,) = decided_model("model.roi_head.detections_per_image=3").detect(ImageBatch.of([image_of((48, 64))]))
    assert_same(best, all_found.keep(torch.arange(3)))


def test_a_higher_score_threshold_leaves_the_higher_scores() -> None:
    (all_found,) = decided_model().detect(ImageBatch.of([image_of((48, 64))]))
    threshold = all_found.scores[2:4].mean().item()
    (best,) = decided_model(f"model.roi_head.score_threshold={threshold}").detect(ImageBatch.of([image_of((48, 64))]))
    assert_same(best, all_found.keep(all_found.scores > threshold))
    assert len(best) == 3


@pytest.mark.parametrize("label", range(NUM_CLASSES))
def test_every_class_can_be_detected(label: int) -> None:
    model = model_of()
    with torch.no_grad():
        model.roi_head.class_layer.weight.zero_()
        model.roi_head.class_layer.bias[label] = 10
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    assert len(found)
    assert set(found.labels.tolist()) == {label}


def test_background_is_the_last_logit_and_never_detected() -> None:
    model = model_of()
    with torch.no_grad():
        model.roi_head.class_layer.weight.zero_()
        model.roi_head.class_layer.bias[NUM_CLASSES] = 10
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    assert len(found) == 0


def test_every_class_can_be_learnt() -> None:
    model = model_of().train()
    for label in range(NUM_CLASSES):
        target = Target(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([label]), seed=0)
        model.zero_grad()
        sum(model(ImageBatch.of([image_of((48, 64))]), [target]).values()).backward()
        gradient = model.roi_head.class_layer.bias.grad
        assert gradient is not None
        assert int(gradient[:NUM_CLASSES].argmin()) == label


@ODD
def test_images_of_odd_sizes_can_be_looked_at(size: tuple[int, int]) -> None:
    (found,) = decided_model("model.roi_head.score_threshold=0.0").detect(ImageBatch.of([image_of(size)]))
    assert len(found)
    assert torch.isfinite(found.boxes).all()


def test_a_network_that_proposes_nothing_detects_nothing() -> None:
    model = model_of()
    propose_outside(model)
    assert [len(found) for found in model.detect(ImageBatch.of(images_of(MIXED)))] == [0, 0, 0, 0]


def test_one_image_may_have_no_proposals() -> None:
    model = decided_model()
    propose = model.rpn.propose
    model.rpn.propose = lambda output: propose(output)[: 0 if output.size == Size(33, 57) else None]
    found = model.detect(ImageBatch.of(images_of(MIXED)))
    assert [len(image) > 0 for image in found] == [True, True, True, False]


def test_detection_leaves_no_gradients_behind() -> None:
    (found,) = decided_model().detect(ImageBatch.of([image_of((48, 64))]))
    assert not found.boxes.requires_grad
    assert not found.scores.requires_grad


# What is not finite.


@pytest.fixture(params=[False, True], ids=["plain", "fast"])
def accelerated(request: pytest.FixtureRequest) -> bool:
    """The way that a model computes."""
    return bool(request.param)


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The boxes that are pooled, plainly or fast, which must be finite: a NaN crashes torchvision's kernel."""
    boxes: list[torch.Tensor] = []

    def watched(original: Callable[..., object], boxes_of: Callable[..., list[torch.Tensor]]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            boxes.extend(boxes_of(*arguments))
            assert all(torch.isfinite(region).all() for region in boxes)
            return original(*arguments, **options)

        return call

    roi_align, bin_taps = detector.ops.roi_align.roi_align, detector.models.region_vectors.bin_taps
    plain = watched(roi_align, lambda _, regions, *rest: regions)
    monkeypatch.setattr(detector.ops.roi_align, "roi_align", plain)
    fast = watched(bin_taps, lambda regions, *rest: [regions])
    monkeypatch.setattr(detector.models.region_vectors, "bin_taps", fast)
    return boxes


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("delta", range(4))
def test_bad_deltas_never_reach_roi_align(
    pooled: list[torch.Tensor], accelerated: bool, bad: float, delta: int
) -> None:
    model = decided_model()
    model.accelerate(accelerated)
    with torch.no_grad():
        model.rpn.deltas.bias[delta] = bad
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    model.train()(ImageBatch.of([image_of((48, 64))]), [target_of([[8.0, 8.0, 40.0, 40.0]])])
    assert len(pooled) == 2
    assert all(len(regions) for regions in pooled)
    assert torch.isfinite(found.boxes).all()


def test_bad_objectness_never_reaches_roi_align(pooled: list[torch.Tensor], accelerated: bool) -> None:
    model = decided_model()
    model.accelerate(accelerated)
    with torch.no_grad():
        model.rpn.objectness.bias.fill_(NAN)
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    assert [len(regions) for regions in pooled] == [0]
    assert len(found) == 0


def test_a_diverged_network_detects_nothing(pooled: list[torch.Tensor], accelerated: bool) -> None:
    model = decided_model()
    model.accelerate(accelerated)
    with torch.no_grad():
        model.backbone.conv1.conv.weight.fill_(NAN)
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    assert len(found) == 0
    assert len(pooled) == 1


def test_a_diverged_network_says_so_in_its_losses(pooled: list[torch.Tensor], accelerated: bool) -> None:
    model = decided_model().train()
    model.accelerate(accelerated)
    with torch.no_grad():
        model.backbone.conv1.conv.weight.fill_(NAN)
    losses = model(ImageBatch.of([image_of((48, 64))]), [target_of([[8.0, 8.0, 40.0, 40.0]])])
    assert any(not torch.isfinite(loss) for loss in losses.values())
    assert len(pooled) == 1


def test_bad_class_logits_are_not_detected() -> None:
    model = decided_model()
    with torch.no_grad():
        model.roi_head.class_layer.bias[2] = NAN
    (found,) = model.detect(ImageBatch.of([image_of((48, 64))]))
    assert len(found) == 0
