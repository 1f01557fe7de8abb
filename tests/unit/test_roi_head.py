from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from detector.config.schema import BackboneConfig, EvaluationConfig, RoIHeadConfig
from detector.models.roi_head import C4Head, Regions
from detector.structures import Detections, Size, Target

NAN, INF = math.nan, math.inf
K = 3
BACKBONE = BackboneConfig(depth=18, norm="group", frozen_stages=0)
FEATURES = [torch.zeros(256, 4, 5)]
IMAGE = Size(height=64, width=80)
APART = [[20.0 * n, 0.0, 20.0 * n + 10, 10.0] for n in range(4)]


def head_of(**settings: object) -> C4Head:
    torch.manual_seed(0)
    return C4Head(K, BACKBONE, RoIHeadConfig(pooled_size=2, **settings), EvaluationConfig()).eval()


class Told(C4Head):
    """A head that answers what it is told instead of looking."""

    def __init__(self, logits: torch.Tensor, deltas: torch.Tensor | None = None, **settings: object) -> None:
        with torch.device("meta"):
            super().__init__(K, BACKBONE, RoIHeadConfig(**settings), EvaluationConfig())
        self.logits = logits
        self.deltas = torch.zeros(len(logits), K, 4) if deltas is None else deltas

    def forward(
        self, features: Sequence[torch.Tensor], regions: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        assert sum(len(boxes) for boxes in regions) == len(self.logits)
        return self.logits, self.deltas


def logits_of(*probabilities: tuple[float, ...]) -> torch.Tensor:
    """Logits of K probabilities a region; background has the rest."""
    scores = torch.tensor(probabilities, dtype=torch.float64).reshape(-1, K)
    return torch.cat([scores, 1 - scores.sum(dim=1, keepdim=True)], dim=1).log().float()


def target_of(boxes: list[list[float]], labels: list[int], seed: int | None = 0) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.int64), seed)


def regions_of(boxes: list[list[float]], labels: list[int], truth: list[list[float]] | None = None) -> Regions:
    found, foreground = torch.tensor(boxes).reshape(-1, 4), sum(label < K for label in labels)
    wanted = found if truth is None else torch.tensor(truth).reshape(-1, 4)
    return Regions(found, torch.tensor(labels, dtype=torch.int64), wanted, foreground)


def detect(head: C4Head, proposals: list[list[float]], size: Size = IMAGE) -> Detections:
    return head.detect(FEATURES, [torch.tensor(proposals).reshape(-1, 4)], [size])[0]


# Layers.


def test_a_region_has_k_plus_1_logits_and_4_deltas_a_class() -> None:
    logits, deltas = head_of()(FEATURES, [torch.tensor(APART)])
    assert logits.shape == (4, K + 1)
    assert deltas.shape == (4, K, 4)


def test_no_regions_have_no_logits_and_no_deltas() -> None:
    logits, deltas = head_of()(FEATURES, [torch.zeros(0, 4)])
    assert logits.shape == (0, K + 1)
    assert deltas.shape == (0, K, 4)


def test_the_class_layer_starts_a_hundredth_and_the_box_layer_a_thousandth_wide() -> None:
    head = head_of()
    assert head.class_layer.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert head.box_layer.weight.std().item() == pytest.approx(0.001, rel=0.2)
    assert head.class_layer.bias.count_nonzero() == head.box_layer.bias.count_nonzero() == 0


def test_deltas_of_a_class_are_four_neighbouring_outputs() -> None:
    head = head_of()
    with torch.no_grad():
        head.box_layer.weight.zero_()
        head.box_layer.bias.copy_(torch.arange(float(4 * K)))
    _, deltas = head(FEATURES, [torch.tensor(APART[:1])])
    assert deltas.tolist() == [[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]]


# Sampling.


def test_a_region_takes_label_and_box_of_the_truth_that_it_overlaps() -> None:
    truth = [[1.0, 0.0, 11.0, 10.0], [41.0, 0.0, 51.0, 10.0]]
    head = head_of(regions_per_image=20, foreground_fraction=0.5)
    regions = head.sample(torch.tensor(APART), target_of(truth, [2, 1]))
    # Candidates 0 and 2, then the two truths themselves, then the background.
    assert regions.boxes.tolist() == [APART[0], APART[2], *truth, APART[1], APART[3]]
    assert regions.labels.tolist() == [2, 1, 2, 1, K, K]
    assert regions.truth[:4].tolist() == [truth[0], truth[1], truth[0], truth[1]]


def test_the_truth_is_a_candidate_where_nothing_is_proposed() -> None:
    regions = head_of().sample(torch.zeros(0, 4), target_of([APART[1]], [0]))
    assert regions.boxes.tolist() == [APART[1]]
    assert regions.labels.tolist() == [0]


def test_an_iou_of_a_half_is_foreground() -> None:
    half = [[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.9]]
    regions = head_of(foreground_fraction=1.0).sample(torch.tensor(half), target_of([APART[0]], [1]))
    assert regions.labels.tolist() == [1, 1, K]
    assert regions.boxes.tolist()[0] == half[0]


def test_an_image_without_objects_gives_background_only() -> None:
    regions = head_of().sample(torch.tensor(APART), target_of([], []))
    assert regions.labels.tolist() == [K] * 4


def test_nothing_proposed_and_no_objects_give_no_regions() -> None:
    regions = head_of().sample(torch.zeros(0, 4), target_of([], []))
    assert regions.boxes.shape == regions.truth.shape == (0, 4)
    assert regions.labels.shape == (0,)


def test_at_most_a_quarter_is_foreground() -> None:
    proposals = torch.tensor([APART[0]] * 20 + [APART[3]] * 20)
    regions = head_of(regions_per_image=8).sample(proposals, target_of([APART[0]], [1]))
    assert regions.labels.tolist() == [1] * 2 + [K] * 6


def test_the_seed_of_the_target_chooses_the_regions() -> None:
    proposals = torch.tensor([[float(n), 0.0, n + 1.0, 1.0] for n in range(50)])
    head = head_of(regions_per_image=8)
    drawn = [head.sample(proposals, target_of([], [], seed)).boxes.tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


# Losses.


def test_an_undecided_head_costs_ln_of_the_number_of_logits() -> None:
    regions = regions_of(APART, [0, 1, 2, K])
    losses = Told(torch.zeros(4, K + 1)).losses(FEATURES, [regions])
    assert losses["loss_class"].item() == pytest.approx(math.log(K + 1))


def test_the_box_loss_is_divided_by_all_regions() -> None:
    # 1 of 10 pixels to the right, times the weight of 10, is 1; there are 4 regions and 1 of them is foreground.
    regions = regions_of(APART, [1, K, K, K], [[1.0, 0.0, 11.0, 10.0], *APART[1:]])
    losses = Told(torch.zeros(4, K + 1)).losses(FEATURES, [regions])
    assert losses["loss_box"].item() == pytest.approx(1 / 4)


def test_the_box_loss_sums_the_four_deltas() -> None:
    deltas = torch.full((4, K, 4), 0.5)
    losses = Told(torch.zeros(4, K + 1), deltas).losses(FEATURES, [regions_of(APART, [1, K, K, K])])
    assert losses["loss_box"].item() == pytest.approx(4 * 0.5 / 4)


def test_the_box_loss_looks_at_the_deltas_of_the_true_class_only() -> None:
    deltas = torch.full((4, K, 4), 100.0)
    deltas[0, 1] = 0
    deltas[1, 2] = 0
    losses = Told(torch.zeros(4, K + 1), deltas).losses(FEATURES, [regions_of(APART, [1, 2, K, K])])
    assert losses["loss_box"].item() == 0


def test_background_has_no_box_loss() -> None:
    deltas = torch.full((4, K, 4), 100.0)
    losses = Told(torch.zeros(4, K + 1), deltas).losses(FEATURES, [regions_of(APART, [K] * 4)])
    assert losses["loss_box"].item() == 0


def test_every_image_counts_the_same_however_many_regions_it_has() -> None:
    sure_of_first = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
    head = Told(torch.cat([sure_of_first, torch.zeros(3, K + 1)]))
    images = [regions_of(APART[:1], [0]), regions_of(APART[1:], [K] * 3)]
    assert head.losses(FEATURES * 2, images)["loss_class"].item() == pytest.approx((0 + math.log(4)) / 2)


def test_an_image_without_regions_counts_as_zero() -> None:
    head = Told(torch.zeros(2, K + 1))
    losses = head.losses(FEATURES * 2, [regions_of(APART[:2], [0, K]), regions_of([], [])])
    assert losses["loss_class"].item() == pytest.approx(math.log(4) / 2)


def test_no_regions_at_all_cost_nothing_and_can_be_learnt_from() -> None:
    head = head_of().train()
    losses = head.losses(FEATURES, [head.sample(torch.zeros(0, 4), target_of([], []))])
    assert {name: loss.item() for name, loss in losses.items()} == {"loss_class": 0, "loss_box": 0}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


# Detections.


@pytest.mark.parametrize("label", range(K))
def test_every_class_can_be_detected(label: int) -> None:
    probabilities = tuple(0.9 if label == other else 0.01 for other in range(K))
    found = detect(Told(logits_of(probabilities)), APART[:1])
    assert found.labels.tolist() == [label]
    assert found.boxes.tolist() == APART[:1]
    torch.testing.assert_close(found.scores, torch.tensor([0.9]))


def test_background_is_never_detected() -> None:
    assert len(detect(Told(logits_of((0.01, 0.01, 0.01)), score_threshold=0.02), APART[:1])) == 0


def test_detections_must_exceed_the_score_threshold() -> None:
    # Equal logits make each probability exactly a quarter.
    assert len(detect(Told(torch.zeros(1, K + 1), score_threshold=0.25), APART[:1])) == 0
    assert len(detect(Told(torch.zeros(1, K + 1), score_threshold=0.24), APART[:1])) == K


def test_a_region_can_be_detected_as_several_classes() -> None:
    found = detect(Told(logits_of((0.3, 0.01, 0.6))), APART[:1])
    assert found.labels.tolist() == [2, 0]


def test_detections_of_one_class_suppress_each_other() -> None:
    proposals = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]]
    found = detect(Told(logits_of((0.5, 0.0, 0.0), (0.9, 0.0, 0.0))), proposals)
    assert found.boxes.tolist() == [proposals[1]]


def test_detections_of_different_classes_do_not_suppress_each_other() -> None:
    proposals = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]]
    found = detect(Told(logits_of((0.5, 0.0, 0.0), (0.0, 0.9, 0.0))), proposals)
    assert found.labels.tolist() == [1, 0]


def test_detections_that_overlap_little_do_not_suppress_each_other() -> None:
    proposals = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.9]]
    assert len(detect(Told(logits_of((0.5, 0.0, 0.0), (0.9, 0.0, 0.0)), nms_iou=0.5), proposals)) == 2


def test_the_best_detections_of_all_classes_together_are_kept() -> None:
    logits = logits_of((0.3, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.5), (0.7, 0.0, 0.0))
    found = detect(Told(logits, detections_per_image=2), APART)
    assert found.boxes.tolist() == [APART[1], APART[3]]


def test_detections_are_sorted_best_first() -> None:
    logits = logits_of((0.3, 0.0, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.5), (0.7, 0.0, 0.0))
    torch.testing.assert_close(detect(Told(logits), APART).scores, torch.tensor([0.9, 0.7, 0.5, 0.3]))


def test_deltas_are_divided_by_the_box_weights() -> None:
    deltas = torch.zeros(1, K, 4)
    deltas[0, 0] = torch.tensor([5.0, 10.0, 5 * math.log(2), 0.0])
    # The centre (25, 5) moves by half a width and a whole height; the width doubles.
    found = detect(Told(logits_of((0.9, 0.0, 0.0)), deltas), [APART[1]])
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 10.0, 40.0, 20.0]]))


def test_every_class_has_its_own_box() -> None:
    deltas = torch.zeros(1, K, 4)
    deltas[0, 2, 0] = 10
    found = detect(Told(logits_of((0.5, 0.0, 0.4)), deltas), APART[:1])
    assert found.boxes.tolist() == [[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0]]


def test_detections_are_cut_to_the_image() -> None:
    found = detect(Told(logits_of((0.9, 0.0, 0.0))), [[-5.0, -5.0, 100.0, 100.0]], Size(height=64, width=80))
    assert found.boxes.tolist() == [[0.0, 0.0, 80.0, 64.0]]


def test_no_proposals_give_no_detections() -> None:
    found = detect(head_of(), [])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_every_image_gets_its_own_detections() -> None:
    head = Told(logits_of((0.9, 0.0, 0.0), (0.0, 0.8, 0.0), (0.0, 0.0, 0.7)))
    proposals = [torch.tensor(APART[:1]), torch.zeros(0, 4), torch.tensor(APART[1:3])]
    found = head.detect(FEATURES * 3, proposals, [IMAGE] * 3)
    assert [image.labels.tolist() for image in found] == [[0], [], [1, 2]]


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_region_with_bad_logits_is_not_detected(bad: float) -> None:
    logits = logits_of((0.9, 0.0, 0.0), (0.0, 0.8, 0.0))
    logits[0, 1] = bad
    assert detect(Told(logits), APART[:2]).boxes.tolist() == [APART[1]]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_region_with_bad_deltas_is_not_detected(bad: float) -> None:
    deltas = torch.zeros(2, K, 4)
    deltas[0, 0, 1] = bad
    found = detect(Told(logits_of((0.9, 0.0, 0.0), (0.0, 0.8, 0.0)), deltas), APART[:2])
    assert found.boxes.tolist() == [APART[1]]


def test_a_detection_outside_the_image_is_dropped() -> None:
    deltas = torch.zeros(2, K, 4)
    deltas[0, 0, 0] = 1000
    found = detect(Told(logits_of((0.9, 0.0, 0.0), (0.0, 0.8, 0.0)), deltas), APART[:2])
    assert found.boxes.tolist() == [APART[1]]
