"""torchvision's classes around our layers find what we find."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import box_iou

from detector.engine.benchmark.peer import Peer
from detector.engine.benchmark.variants import Variant, make_run
from detector.engine.benchmark.workload import Work, make_batch, make_images, make_model
from detector.ops.matching import Role, match_boxes
from detector.structures import Size
from tests.tiny import tiny_config

CPU = torch.device("cpu")
NETWORKS = {
    "18": (),
    "50, stride in the 1x1": ("model.backbone.depth=50", "model.backbone.stride_in_1x1=true"),
    "frozen norms, bgr": ("model.backbone.norm=frozen_batch", "model.pixel_order=bgr"),
}


def work_of(*overrides: str, batch: int = 2) -> Work:
    return Work(tiny_config(*overrides), None, 6, Size(64, 96), batch, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_detections_agree(name: str) -> None:
    work = work_of(*NETWORKS[name])
    model = make_model(work, CPU)
    ours, theirs = (make_run(model, work, Variant("inference", way, "fp32"), CPU)() for way in ("plain", "torchvision"))
    assert [len(found) for found in ours] == [20, 20]
    for one, other in zip(ours, theirs, strict=True):
        assert one.labels.tolist() == other.labels.tolist()
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)


def test_the_objectness_loss_agrees_where_all_anchors_are_sampled() -> None:
    asked = 100_000
    work = work_of(f"model.rpn.anchors_per_image={asked}", batch=1)
    model = make_model(work, CPU)
    batch = make_batch(work)
    theirs = Peer(model, work.config.model, work.size).train()(batch.images, batch.targets)
    ours = model.train()(batch.images, batch.targets)
    assert set(theirs) == set(ours)
    # Ours is divided by the number asked for, theirs by the number found.
    anchors = model.features(batch.images)[1][0].anchors
    roles = match_boxes(box_iou(batch.targets[0].boxes, anchors), 0.7, 0.3, claim_best=True).role
    found = int((roles != Role.IGNORED).sum())
    torch.testing.assert_close(ours["loss_objectness"] * asked, theirs["loss_objectness"] * found)


def test_the_peer_learns_from_copies() -> None:
    work = work_of("training.learning_rate=1.0")
    model = make_model(work, CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_run(model, work, Variant("training", "torchvision", "fp32"), CPU)()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_images_are_not_resized() -> None:
    work = work_of()
    peer = Peer(make_model(work, CPU).eval(), work.config.model, work.size).eval()
    seen: list[torch.Size] = []
    peer.network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        peer.detect(make_images(work))
    assert seen == [torch.Size((2, 3, 64, 96))]
