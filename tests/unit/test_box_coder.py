from __future__ import annotations

import math

import pytest
import torch

from detector.ops.box_coder import MAX_LOG_SCALE, decode_boxes, encode_boxes

# 10 wide, 20 high, centred on (15, 30).
REFERENCE = torch.tensor([10.0, 20.0, 20.0, 40.0])


def test_a_box_equal_to_its_reference_has_no_deltas() -> None:
    assert encode_boxes(REFERENCE, REFERENCE).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_shift_is_measured_in_widths_and_heights_of_the_reference() -> None:
    shifted = REFERENCE + torch.tensor([5.0, -5.0, 5.0, -5.0])
    assert encode_boxes(shifted, REFERENCE).tolist() == [0.5, -0.25, 0.0, 0.0]


def test_a_change_in_size_is_a_logarithm() -> None:
    twice_as_wide_half_as_high = torch.tensor([5.0, 25.0, 25.0, 35.0])
    deltas = encode_boxes(twice_as_wide_half_as_high, REFERENCE)
    torch.testing.assert_close(deltas, torch.tensor([0.0, 0.0, math.log(2), -math.log(2)]))


def test_weights_multiply_the_deltas() -> None:
    box = torch.tensor([15.0, 15.0, 25.0, 35.0])
    assert encode_boxes(box, REFERENCE, (10.0, 10.0, 5.0, 5.0)).tolist() == [5.0, -2.5, 0.0, 0.0]


def test_zero_deltas_give_the_reference() -> None:
    assert decode_boxes(torch.zeros(4), REFERENCE).tolist() == REFERENCE.tolist()


def test_deltas_shift_the_centre_and_scale_the_size() -> None:
    deltas = torch.tensor([0.5, -0.25, math.log(2), math.log(0.5)])
    # The centre goes to (20, 25), the size to 20 x 10.
    torch.testing.assert_close(decode_boxes(deltas, REFERENCE), torch.tensor([10.0, 20.0, 30.0, 30.0]))


def test_weights_divide_the_deltas() -> None:
    box = decode_boxes(torch.tensor([5.0, -2.5, 0.0, 0.0]), REFERENCE, (10.0, 10.0, 5.0, 5.0))
    assert box.tolist() == [15.0, 15.0, 25.0, 35.0]


def test_the_cap_on_growth_is_1000_over_16() -> None:
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(62.5)


def test_a_box_grows_at_most_by_the_cap() -> None:
    x1, y1, x2, y2 = decode_boxes(torch.tensor([0.0, 0.0, 50.0, 50.0]), REFERENCE).tolist()
    assert x2 - x1 == pytest.approx(10 * 62.5)
    assert y2 - y1 == pytest.approx(20 * 62.5)


def test_the_cap_applies_after_the_weights() -> None:
    x1, _, x2, _ = decode_boxes(torch.tensor([0.0, 0.0, 5.0, 0.0]), REFERENCE, (1.0, 1.0, 5.0, 5.0)).tolist()
    assert x2 - x1 == pytest.approx(10 * math.e)


def test_shrinking_is_not_capped() -> None:
    x1, _, x2, _ = decode_boxes(torch.tensor([0.0, 0.0, math.log(1e-3), 0.0]), REFERENCE).tolist()
    assert x2 - x1 == pytest.approx(0.01, rel=1e-3)


def test_references_are_broadcast_over_classes() -> None:
    deltas = torch.zeros(2, 3, 4)
    deltas[1, 2, 0] = 1
    boxes = decode_boxes(deltas, REFERENCE.expand(2, 1, 4))
    assert boxes[1, 2].tolist() == [20.0, 20.0, 30.0, 40.0]
    assert boxes[1, 1].tolist() == REFERENCE.tolist()


def test_no_boxes_have_no_deltas() -> None:
    assert encode_boxes(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_no_deltas_give_no_boxes() -> None:
    assert decode_boxes(torch.zeros(0, 3, 4), torch.zeros(0, 1, 4)).shape == (0, 3, 4)
