from __future__ import annotations

import math

import pytest
import torch

from detector.ops.boxes import clip_boxes, rescale_boxes, usable_boxes
from detector.structures import Size


def test_a_box_that_sticks_out_is_cut_to_width_and_height() -> None:
    box = torch.tensor([[-5.0, -6.0, 300.0, 400.0]])
    assert clip_boxes(box, Size(height=100, width=200)).tolist() == [[0.0, 0.0, 200.0, 100.0]]


def test_a_box_inside_stays() -> None:
    box = torch.tensor([[1.5, 2.5, 199.5, 99.5]])
    assert clip_boxes(box, Size(height=100, width=200)).tolist() == box.tolist()


def test_the_far_edge_belongs_to_the_image() -> None:
    box = torch.tensor([[0.0, 0.0, 200.0, 100.0]])
    assert clip_boxes(box, Size(height=100, width=200)).tolist() == box.tolist()


def test_a_box_outside_becomes_empty() -> None:
    clipped = clip_boxes(torch.tensor([[300.0, 10.0, 400.0, 20.0]]), Size(height=100, width=200))
    assert clipped.tolist() == [[200.0, 10.0, 200.0, 20.0]]


def test_boxes_of_all_classes_are_clipped_at_once() -> None:
    assert clip_boxes(torch.full((2, 3, 4), 50.0), Size(10, 20))[1, 2].tolist() == [20.0, 10.0, 20.0, 10.0]


def test_clipping_leaves_its_argument_alone() -> None:
    box = torch.tensor([[-5.0, -5.0, 5.0, 5.0]])
    clip_boxes(box, Size(10, 10))
    assert box.tolist() == [[-5.0, -5.0, 5.0, 5.0]]


def test_rescaling_keeps_x_and_y_apart() -> None:
    boxes = torch.tensor([[10.0, 10.0, 20.0, 30.0]])
    rescaled = rescale_boxes(boxes, old=Size(height=100, width=100), new=Size(height=300, width=200))
    assert rescaled.tolist() == [[20.0, 30.0, 40.0, 90.0]]


def test_the_whole_image_stays_the_whole_image() -> None:
    whole = rescale_boxes(torch.tensor([[0.0, 0.0, 37.0, 53.0]]), old=Size(53, 37), new=Size(800, 559))
    torch.testing.assert_close(whole, torch.tensor([[0.0, 0.0, 559.0, 800.0]]))


def test_no_boxes_are_rescaled_to_no_boxes() -> None:
    assert rescale_boxes(torch.zeros(0, 4), Size(1, 1), Size(2, 2)).shape == (0, 4)


@pytest.mark.parametrize(
    ("box", "usable"),
    [
        ([0.0, 0.0, 1.0, 1.0], True),
        ([-5.0, -5.0, 0.1, 0.1], True),
        ([3.0, 0.0, 3.0, 1.0], False),
        ([0.0, 3.0, 1.0, 3.0], False),
        ([4.0, 0.0, 3.0, 1.0], False),
        ([0.0, 4.0, 1.0, 3.0], False),
        ([math.nan, 0.0, 1.0, 1.0], False),
        ([0.0, 0.0, 1.0, math.nan], False),
        ([0.0, 0.0, math.inf, 1.0], False),
        ([-math.inf, 0.0, 1.0, 1.0], False),
    ],
)
def test_usable_is_finite_and_of_positive_size(box: list[float], usable: bool) -> None:
    assert usable_boxes(torch.tensor([box])).tolist() == [usable]


def test_no_boxes_give_an_empty_mask() -> None:
    mask = usable_boxes(torch.zeros(0, 4))
    assert mask.shape == (0,)
    assert mask.dtype == torch.bool
