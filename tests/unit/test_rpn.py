from __future__ import annotations

import math

import pytest
import torch

from detector.config.schema import AnchorConfig, RPNConfig
from detector.models.rpn import RegionProposalNetwork, RPNOutput
from detector.ops.anchors import grid_anchors
from detector.structures import Size, Target

NAN, INF = math.nan, math.inf
ANCHORS = AnchorConfig(sizes=(16.0, 32.0), aspect_ratios=(0.5, 1.0, 2.0))
LN2 = math.log(2)
IMAGE = Size(100, 100)


def network(
    test_proposals: int = 5, channels: int = 6, anchors: AnchorConfig = ANCHORS, **settings: float
) -> RegionProposalNetwork:
    torch.manual_seed(0)
    return RegionProposalNetwork(channels, 16, anchors, RPNConfig(**settings), test_proposals).eval()


def transparent_network() -> RegionProposalNetwork:
    """Objectness of anchor a is channel a of the features; deltas are zero."""
    rpn = network()
    for parameter in rpn.parameters():
        parameter.requires_grad_(False).zero_()
    rpn.conv.weight[:, :, 1, 1] = torch.eye(6)
    rpn.objectness.weight[:, :, 0, 0] = torch.eye(6)
    return rpn


def output_of(boxes: list[list[float]], objectness: list[float] | None = None, size: Size = IMAGE) -> RPNOutput:
    """An output whose proposals are the given boxes, best first unless told otherwise."""
    anchors = torch.tensor(boxes).reshape(-1, 4)
    scores = torch.tensor(objectness) if objectness is not None else -torch.arange(float(len(boxes)))
    return RPNOutput(scores, torch.zeros_like(anchors), anchors, size)


def target_of(boxes: list[list[float]], seed: int | None = 0) -> Target:
    return Target(torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes), dtype=torch.int64), seed)


CELLS = pytest.mark.parametrize(("y", "x", "anchor"), [(0, 0, 0), (0, 3, 2), (1, 2, 5), (2, 0, 1), (2, 3, 5)])


@CELLS
def test_objectness_stands_in_the_order_of_the_anchors(y: int, x: int, anchor: int) -> None:
    rpn = transparent_network()
    features = torch.zeros(1, 6, 3, 4)
    features[0, anchor, y, x] = 1
    (output,) = rpn(features, Size(48, 64))
    fired = torch.nonzero(output.objectness).flatten()
    assert fired.tolist() == [(y * 4 + x) * 6 + anchor]
    expected = rpn.cell[anchor] + 16 * torch.tensor([x, y, x, y])
    assert output.anchors[fired[0]].tolist() == expected.tolist()


@CELLS
def test_deltas_stand_in_the_order_of_the_anchors(y: int, x: int, anchor: int) -> None:
    rpn = transparent_network()
    for delta in range(4):
        rpn.deltas.weight[anchor * 4 + delta, anchor] = delta + 1
    features = torch.zeros(1, 6, 3, 4)
    features[0, anchor, y, x] = 1
    (output,) = rpn(features, Size(48, 64))
    row = (y * 4 + x) * 6 + anchor
    assert output.deltas[row].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert torch.nonzero(output.deltas).unique(dim=0)[:, 0].unique().tolist() == [row]


def test_each_image_has_its_own_output() -> None:
    features = torch.zeros(2, 6, 3, 4)
    features[1, 0, 0, 0] = 1
    first, second = transparent_network()(features, Size(48, 64))
    assert (int(first.objectness.count_nonzero()), int(second.objectness.count_nonzero())) == (0, 1)


def test_anchors_are_those_of_the_grid() -> None:
    rpn = network()
    (output,) = rpn(torch.zeros(1, 6, 3, 4), Size(48, 64))
    assert torch.equal(output.anchors, grid_anchors(rpn.cell, Size(3, 4), 16))


def test_layers_start_from_a_normal_distribution_of_width_a_hundredth() -> None:
    rpn = network(channels=64)
    for layer in (rpn.conv, rpn.objectness, rpn.deltas):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.2)
        assert layer.bias.count_nonzero() == 0


def test_proposals_are_the_anchors_where_deltas_are_zero() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 70.0]]
    assert network().propose(output_of(boxes)).tolist() == boxes


def test_proposals_are_sorted_best_first() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 10.0], [60.0, 0.0, 70.0, 10.0]]
    proposals = network().propose(output_of(boxes, objectness=[0.0, 2.0, 1.0]))
    assert proposals.tolist() == [boxes[1], boxes[2], boxes[0]]


def test_deltas_move_proposals() -> None:
    output = output_of([[0.0, 0.0, 10.0, 10.0]])
    output.deltas[0, 0] = 0.5
    assert network().propose(output).tolist() == [[5.0, 0.0, 15.0, 10.0]]


def test_proposals_are_cut_to_the_image() -> None:
    proposals = network().propose(output_of([[-5.0, -5.0, 200.0, 200.0]], size=Size(height=50, width=80)))
    assert proposals.tolist() == [[0.0, 0.0, 80.0, 50.0]]


def test_what_lies_outside_the_image_is_no_proposal() -> None:
    assert network().propose(output_of([[-20.0, 0.0, -5.0, 10.0], [120.0, 0.0, 130.0, 10.0]])).shape == (0, 4)


def test_overlapping_proposals_are_suppressed_by_the_better_one() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [0.0, 0.0, 10.0, 6.0]]
    # IoU with the first is 0.8 and 0.6.
    assert network(nms_iou=0.7).propose(output_of(boxes)).tolist() == [boxes[0], boxes[2]]


def test_outside_training_as_many_proposals_are_kept_as_the_evaluation_wants() -> None:
    boxes = [[12.0 * n, 0.0, 12.0 * n + 10, 10.0] for n in range(8)]
    assert network(test_proposals=3, train_proposals=6).propose(output_of(boxes)).tolist() == boxes[:3]


def test_in_training_as_many_proposals_are_kept_as_the_training_wants() -> None:
    boxes = [[12.0 * n, 0.0, 12.0 * n + 10, 10.0] for n in range(8)]
    rpn = network(test_proposals=3, train_proposals=6).train()
    assert rpn.propose(output_of(boxes)).tolist() == boxes[:6]


@pytest.mark.parametrize(("training", "expected"), [(True, 4), (False, 2)])
def test_only_the_best_candidates_enter_suppression(training: bool, expected: int) -> None:
    boxes = [[12.0 * n, 0.0, 12.0 * n + 10, 10.0] for n in range(8)]
    rpn = network(test_proposals=8, train_candidates=4, test_candidates=2).train(training)
    assert rpn.propose(output_of(boxes)).tolist() == boxes[:expected]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_box_with_a_bad_shift_is_no_proposal(bad: float) -> None:
    output = output_of([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    output.deltas[0, 1] = bad
    assert network().propose(output).tolist() == [[20.0, 0.0, 30.0, 10.0]]


def test_a_box_with_a_nan_size_is_no_proposal() -> None:
    output = output_of([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    output.deltas[0, 2] = NAN
    assert network().propose(output).tolist() == [[20.0, 0.0, 30.0, 10.0]]


def test_a_box_with_a_nan_objectness_is_no_proposal() -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]]
    assert network().propose(output_of(boxes, objectness=[NAN, 0.0])).tolist() == [boxes[1]]


def test_a_box_that_shrinks_to_nothing_is_no_proposal() -> None:
    output = output_of([[0.0, 0.0, 10.0, 10.0]])
    output.deltas[0, 2] = -1000
    assert network().propose(output).shape == (0, 4)


def test_proposals_carry_no_gradient() -> None:
    (output,) = network()(torch.randn(1, 6, 3, 4), Size(48, 64))
    assert output.deltas.requires_grad
    assert not network().propose(output).requires_grad


SPREAD = [[20.0 * n, 0.0, 20.0 * n + 10, 10.0] for n in range(20)]


def test_the_objectness_of_an_undecided_network_costs_ln_2_an_anchor() -> None:
    output = output_of(SPREAD, objectness=[0.0] * 20)
    losses = network(anchors_per_image=8).losses([output], [target_of([])])
    assert losses["loss_objectness"].item() == pytest.approx(LN2)


def test_losses_are_divided_by_the_anchors_asked_for_not_by_those_found() -> None:
    output = output_of(SPREAD[:4], objectness=[0.0] * 4)
    losses = network(anchors_per_image=8).losses([output], [target_of([])])
    assert losses["loss_objectness"].item() == pytest.approx(LN2 * 4 / 8)


def test_losses_are_divided_by_the_number_of_images() -> None:
    outputs = [output_of(SPREAD, objectness=[0.0] * 20), output_of(SPREAD[:4], objectness=[0.0] * 4)]
    losses = network(anchors_per_image=8).losses(outputs, [target_of([]), target_of([])])
    assert losses["loss_objectness"].item() == pytest.approx((LN2 + LN2 / 2) / 2)


def test_foreground_anchors_shall_have_high_and_background_low_objectness() -> None:
    output = output_of(SPREAD, objectness=[50.0, *[-50.0] * 19])
    losses = network(anchors_per_image=8).losses([output], [target_of([SPREAD[0]])])
    assert losses["loss_objectness"].item() == pytest.approx(0, abs=1e-6)


def test_the_box_loss_is_the_sum_of_absolute_errors_over_the_anchors_asked_for() -> None:
    # 1 of 10 pixels to the right and 2 down: dx is 0.1, dy is 0.2; the IoU of 0.56 claims the anchor as its best.
    truth = [1.0, 2.0, 11.0, 12.0]
    losses = network(anchors_per_image=8).losses([output_of(SPREAD)], [target_of([truth])])
    assert losses["loss_rpn_box"].item() == pytest.approx((0.1 + 0.2) / 8)


def test_the_box_loss_measures_from_the_predicted_deltas() -> None:
    output = output_of(SPREAD)
    output.deltas[0] = torch.tensor([0.1, 0.2, 0.0, 0.0])
    losses = network(anchors_per_image=8).losses([output], [target_of([[1.0, 2.0, 11.0, 12.0]])])
    assert losses["loss_rpn_box"].item() == pytest.approx(0, abs=1e-6)


def test_the_box_loss_is_linear_far_out() -> None:
    output = output_of(SPREAD)
    output.deltas[0, 0] = 100
    losses = network(anchors_per_image=8).losses([output], [target_of([SPREAD[0]])])
    assert losses["loss_rpn_box"].item() == pytest.approx(100 / 8)


def test_the_box_loss_looks_at_foreground_only() -> None:
    output = output_of(SPREAD)
    output.deltas[1:] = 100
    assert network().losses([output], [target_of([SPREAD[0]])])["loss_rpn_box"].item() == 0


def test_half_of_the_anchors_at_most_are_foreground() -> None:
    # All 20 anchors are the truth itself; each of the 4 that may be drawn is 1 off.
    output = output_of([SPREAD[0]] * 20)
    output.deltas[:, 0] = 1
    losses = network(anchors_per_image=8).losses([output], [target_of([SPREAD[0]])])
    assert losses["loss_rpn_box"].item() == pytest.approx(4 / 8)


def test_an_image_without_objects_has_no_box_loss() -> None:
    losses = network().losses([output_of(SPREAD)], [target_of([])])
    assert losses["loss_rpn_box"].item() == 0


def test_a_truth_that_overlaps_no_anchor_has_no_box_loss() -> None:
    losses = network().losses([output_of(SPREAD)], [target_of([[0.0, 500.0, 10.0, 510.0]])])
    assert losses["loss_rpn_box"].item() == 0


def test_all_layers_learn_from_an_image_without_objects() -> None:
    rpn = network().train()
    sum(rpn.losses(rpn(torch.randn(1, 6, 3, 4), Size(48, 64)), [target_of([])]).values()).backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in rpn.parameters())


def test_the_seed_of_the_target_chooses_the_anchors() -> None:
    rpn = network(anchors_per_image=4)
    output = output_of(SPREAD, objectness=[float(n) for n in range(20)])
    found = [rpn.losses([output], [target_of([], seed)])["loss_objectness"].item() for seed in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]
