"""Several views of an image in evaluation, box refinement and voting (He et al. 2015, appendix B)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from detector import Detector
from detector.data.shapes import CLASS_NAMES, ShapesDataset
from detector.data.transforms import test_views as views_of
from detector.ops.voting import vote_boxes
from detector.structures import Size
from tests.tiny import NUM_CLASSES, tiny_config, tiny_model

IMAGE = ShapesDataset(1, 3, Size(64, 80), hard=False)[0].image


def _detector(*overrides: str) -> Detector:
    config = tiny_config("model.roi_head.score_threshold=0.1", *overrides)
    return Detector(tiny_model(*overrides), config, CLASS_NAMES, range(1, NUM_CLASSES + 1), torch.device("cpu"))


def test_a_vote_is_the_mean_weighted_by_score() -> None:
    voters = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10], [50.0, 50, 60, 60]])
    scores, labels = torch.tensor([0.75, 0.25, 1.0]), torch.tensor([1, 1, 1])
    moved = vote_boxes(voters[:1], labels[:1], voters, scores, labels)
    assert_close(moved, torch.tensor([[0.5, 0, 10.5, 10]]))


def test_other_classes_have_no_vote() -> None:
    voters = torch.tensor([[0.0, 0, 10, 10], [2.0, 0, 12, 10]])
    moved = vote_boxes(voters[:1], torch.tensor([1]), voters, torch.tensor([0.5, 0.5]), torch.tensor([1, 2]))
    assert_close(moved, voters[:1])


def test_views_are_every_size_plain_and_mirrored() -> None:
    config = tiny_config("evaluation.short_sides=[64, 128]", "evaluation.flip=true")
    views = views_of(IMAGE, config.data.resize, config.evaluation)
    assert [(tuple(pixels.shape), mirrored) for pixels, mirrored in views] == [
        ((3, 64, 80), False), ((3, 64, 80), True), ((3, 128, 160), False), ((3, 128, 160), True),
    ]  # fmt: skip
    assert_close(views[0][0].flip(2), views[1][0])


@pytest.mark.parametrize(
    "overrides",
    [
        ("evaluation.flip=true",),
        ("evaluation.short_sides=[48, 64, 96]",),
        ("evaluation.box_refinement=true",),
        ("evaluation.box_voting=true",),
        ("evaluation.flip=true", "evaluation.box_refinement=true", "evaluation.box_voting=true"),
    ],
)
def test_boxes_stay_inside_and_scores_fall(overrides: tuple[str, ...]) -> None:
    found = _detector(*overrides).predict(IMAGE, score_threshold=0.0)
    assert (found.scores.diff() <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([80.0, 64, 80, 64])).all()
    assert len(found) <= 20


def test_a_mirrored_view_finds_its_objects_where_they_are() -> None:
    """In the mirror alone, detections are those of the mirrored image, mirrored back."""
    plain = _detector()
    mirrored = plain.predict(IMAGE[:, ::-1].copy(), score_threshold=0.0)
    both = _detector("evaluation.flip=true", "model.roi_head.nms_iou=1.0", "model.roi_head.detections_per_image=1000")
    found = both.predict(IMAGE, score_threshold=0.0)
    x1, y1, x2, y2 = mirrored.boxes.unbind(1)
    back = torch.stack([80 - x2, y1, 80 - x1, y2], dim=1)
    for box in back:
        assert ((found.boxes - box).abs() < 1e-3).all(dim=1).any()


def test_refinement_changes_detections_only_when_asked() -> None:
    plain, refined = _detector(), _detector("evaluation.box_refinement=true")
    one, other = (detector.predict(IMAGE, score_threshold=0.0) for detector in (plain, refined))
    assert len(one) != len(other) or not torch.equal(one.boxes, other.boxes)
