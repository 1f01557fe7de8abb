"""Each way to lose an object, made by hand, is told by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from detector.data.shapes import ShapesDataset
from detector.data.transforms import to_pixels
from detector.engine.stages import STAGES, find_lost
from detector.errors import DatasetError, DetectorError, ImageError
from detector.evaluation.matching import COCO_RULES, Rules, match_all
from detector.models.faster_rcnn import FasterRCNN
from detector.models.rpn import RPNOutput
from detector.ops.box_coder import encode_boxes
from detector.structures import DetectionTable, ImageBatch, ImageInfo, Sample, Size
from tests.tiny import NUM_CLASSES, tiny_config, tiny_model

CPU = torch.device("cpu")
Corners = list[float]
# As large as the network wants it, so that nothing is resized.
SIZE = Size(height=64, width=80)
OBJECT, FAR = [0.0, 0.0, 20.0, 20.0], [50.0, 30.0, 70.0, 50.0]
# Their IoU with OBJECT is 2/3, 1/2, 1/3 and 1/4; NEAR and THIRD overlap by 0.54, which the final NMS does not suffer.
NEAR, HALF = [4.0, 0.0, 24.0, 20.0], [0.0, 0.0, 20.0, 10.0]
THIRD, QUARTER = [10.0, 0.0, 30.0, 20.0], [0.0, 0.0, 10.0, 10.0]
# Overlaps NEAR by 0.79, which the NMS of proposals does not suffer, and NARROW by less than one half.
BESIDE, NARROW = [6.0, 0.0, 26.8, 20.0], [0.0, 0.0, 18.0, 20.0]
CIRCLE, SQUARE = 0, 1
Scores = dict[int, float]


class Pictures:
    """Images of one size with circles in the given boxes."""

    def __init__(self, *images: Sequence[Corners], crowd: bool = False) -> None:
        self.images = images
        self.crowd = crowd

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        boxes = np.array(self.images[index], dtype=np.float32).reshape(-1, 4)
        labels = np.full(len(boxes), CIRCLE, dtype=np.int64)
        crowd = np.full(len(boxes), self.crowd)
        pixels = np.zeros((*SIZE, 3), dtype=np.uint8)
        return Sample(pixels, boxes, labels, crowd, np.zeros_like(crowd), ImageInfo(index, "drawn", SIZE))


def told_model(
    anchors: Sequence[Corners],
    scores: Sequence[Scores] = (),
    became: Sequence[Corners] | None = None,
    refined: Sequence[Corners] | None = None,
    **limits: Any,
) -> FasterRCNN:
    """A network that says what it is told, best first.

    Args:
        anchors: of the image.
        scores: of the proposals, by class; background has the rest.
        became: what the RPN makes of each anchor; None leaves them as they are.
        refined: what the head makes of each proposal, for every class; None leaves them as they are.
        limits: of the head.
    """
    with torch.device("meta"):
        model = tiny_model(*(f"model.roi_head.{name}={value}" for name, value in limits.items()))
    boxes = torch.tensor(anchors)
    deltas = torch.zeros_like(boxes) if became is None else encode_boxes(torch.tensor(became), boxes)
    output = RPNOutput(torch.arange(len(boxes), 0, -1.0), deltas, boxes, SIZE)

    def features(images: ImageBatch) -> tuple[list[torch.Tensor], list[RPNOutput]]:
        assert images.sizes == (SIZE,)
        return [torch.zeros(1, 4, 5)], [output]

    def head(features: Sequence[torch.Tensor], regions: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        (proposals,) = regions
        table = torch.full((len(proposals), NUM_CLASSES + 1), 1e-6)
        for row, of_class in zip(table, scores, strict=True):
            for label, value in of_class.items():
                row[label] = value
            row[-1] = 1 - row[:-1].sum()
        moved = proposals if refined is None else torch.tensor(refined)
        deltas = encode_boxes(moved, proposals, model.roi_head.config.box_weights)
        return table.log(), deltas[:, None].expand(-1, NUM_CLASSES, -1)

    model.features = features  # type: ignore[method-assign]
    model.roi_head.forward = head  # type: ignore[method-assign, assignment]
    return model


def lost(model: FasterRCNN, pictures: Pictures | None = None) -> dict[str, int]:
    """The stages that lost something."""
    pictures = pictures or Pictures([OBJECT])
    found = find_lost(model, pictures, range(len(pictures)), tiny_config(), CPU)  # type: ignore[arg-type]
    assert found["missed"] == sum(found["lost"].values())
    return {stage: count for stage, count in found["lost"].items() if count}


def test_a_found_object_is_not_lost() -> None:
    assert lost(told_model([NEAR], [{CIRCLE: 0.9}])) == {}


def test_an_iou_of_exactly_one_half_is_enough() -> None:
    assert lost(told_model([HALF], [{CIRCLE: 0.9}])) == {}


TEN = [[2.0 * number, 30.0, 2.0 * number + 2, 60.0] for number in range(10)]
# Stage, objects, anchors, scores of the proposals, and what else the network is told.
LOSSES: list[tuple[str, list[Corners], list[Corners], list[Scores], dict[str, Any]]] = [
    ("no anchor fits", [OBJECT], [FAR], [{}], {}),
    ("no anchor fits", [OBJECT], [QUARTER], [{CIRCLE: 0.9}], {}),
    ("RPN did not propose it", [OBJECT], [THIRD], [{CIRCLE: 0.9}], {}),
    ("RPN did not propose it", [OBJECT], [OBJECT], [{}], {"became": [FAR]}),
    ("cut by proposal NMS or the limit of proposals", [NARROW], [BESIDE, NEAR], [{CIRCLE: 0.9}], {}),
    ("cut by proposal NMS or the limit of proposals", [OBJECT], [*TEN, OBJECT], [{}] * 10, {}),
    ("taken for background", [OBJECT], [NEAR], [{CIRCLE: 0.01}], {}),
    ("taken for another class", [OBJECT], [NEAR], [{SQUARE: 0.9}], {}),
    ("box too far off", [OBJECT], [NEAR], [{CIRCLE: 0.9}], {"refined": [THIRD]}),
    ("removed by the final NMS", [OBJECT], [THIRD, NEAR], [{CIRCLE: 0.9}, {CIRCLE: 0.8}], {}),
    (
        "beyond the limit of detections", [OBJECT], [FAR, NEAR], [{SQUARE: 0.9}, {CIRCLE: 0.8}],
        {"detections_per_image": 1},
    ),
    ("given to a neighbour", [OBJECT, [6.0, 0.0, 26.0, 20.0]], [NEAR], [{CIRCLE: 0.9}], {}),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "objects", "anchors", "scores", "told"), LOSSES)
def test_an_object_is_lost_at_the_stage_that_lost_it(
    stage: str, objects: list[Corners], anchors: list[Corners], scores: list[Scores], told: dict[str, Any]
) -> None:
    assert lost(told_model(anchors, scores, **told), Pictures(objects)) == {stage: 1}


def test_every_stage_is_among_the_cases() -> None:
    assert {stage for stage, *_ in LOSSES} == set(STAGES)


def test_a_poor_anchor_that_the_rpn_improves_is_no_loss() -> None:
    assert lost(told_model([QUARTER], [{CIRCLE: 0.9}], became=[NEAR])) == {}


def test_what_is_missed_is_what_the_detector_misses() -> None:
    many = ["evaluation.proposals=200", "model.rpn.test_candidates=500", "model.roi_head.detections_per_image=300"]
    model = tiny_model(*many, "model.roi_head.score_threshold=0.01")
    config, dataset = tiny_config(), ShapesDataset(6, 1, SIZE, hard=False)
    detections = [model.detect(ImageBatch.of([to_pixels(dataset[index].image)]))[0] for index in range(len(dataset))]
    rules = Rules(np.array([0.5]), COCO_RULES.areas[:1], (300,))
    hits = int((match_all(dataset.annotations, DetectionTable.of(detections), rules).truth >= 0).sum())
    found = find_lost(model, dataset, range(len(dataset)), config, CPU)
    assert hits > 0
    assert found["missed"] == found["objects"] - hits > 0


# What is counted


def counts_of(model: FasterRCNN, pictures: Pictures) -> dict[str, Any]:
    return find_lost(model, pictures, range(len(pictures)), tiny_config(), CPU)  # type: ignore[arg-type]


def test_crowds_are_not_looked_at() -> None:
    found = counts_of(told_model([FAR], [{}]), Pictures([OBJECT], crowd=True))
    assert (found["images"], found["objects"], found["missed"]) == (1, 0, 0)


def test_images_without_objects_are_counted_as_images() -> None:
    found = counts_of(told_model([FAR], [{}]), Pictures([], [OBJECT], []))
    assert (found["images"], found["objects"], found["missed"]) == (3, 1, 1)


def test_without_any_object_the_recall_of_proposals_is_0() -> None:
    found = counts_of(told_model([FAR], [{}]), Pictures([]))
    assert found["proposal_recall"] == {"100": 0, "300": 0, "1000": 0}


def test_the_recall_of_proposals_is_the_share_of_covered_objects() -> None:
    found = counts_of(told_model([NEAR], [{}]), Pictures([OBJECT, FAR]))
    assert found["proposal_recall"] == {"100": 0.5, "300": 0.5, "1000": 0.5}


def test_only_the_asked_images_are_followed() -> None:
    found = find_lost(told_model([FAR], [{}]), Pictures([OBJECT], [OBJECT], [FAR]), [2], tiny_config(), CPU)  # type: ignore[arg-type]
    assert (found["images"], found["objects"]) == (1, 1)


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_of_the_network_is_put_back(training: bool) -> None:
    model = told_model([FAR], [{}]).train(training)
    lost(model)
    assert model.training is training


def test_an_object_is_followed_in_the_pixels_of_the_resized_image() -> None:
    model = told_model([[0.0, 0.0, 10.0, 10.0]], [{CIRCLE: 0.9}])
    config = tiny_config("data.resize.test_short_side=32")
    size = Size(32, 40)
    inner = model.features

    def features(images: ImageBatch) -> Any:
        assert images.sizes == (size,)
        return inner(ImageBatch(images.pixels, (SIZE,)))

    model.features = features  # type: ignore[method-assign]
    assert find_lost(model, Pictures([OBJECT]), [0], config, CPU)["missed"] == 0  # type: ignore[arg-type]


def test_a_network_without_any_proposal_loses_all_and_does_not_stumble() -> None:
    empty = [10.0, 10.0, 10.0, 10.0]
    assert lost(told_model([empty], []), Pictures([OBJECT, FAR])) == {"no anchor fits": 2}


@pytest.mark.parametrize("error", [ImageError, DatasetError])
def test_an_image_that_cannot_be_read_is_passed_over_where_that_is_allowed(error: type[DetectorError]) -> None:
    class Spoilt(Pictures):
        def __getitem__(self, index: int) -> Sample:
            if index == 0:
                raise error("0.png: not an image")
            return super().__getitem__(index)

    model, pictures = told_model([FAR], [{}]), Spoilt([OBJECT], [OBJECT])
    config = tiny_config("data.on_bad_sample=skip")
    assert find_lost(model, pictures, range(2), config, CPU)["objects"] == 1  # type: ignore[arg-type]
    with pytest.raises(error):
        find_lost(model, pictures, range(2), tiny_config(), CPU)  # type: ignore[arg-type]
