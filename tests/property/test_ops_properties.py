from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ops.anchors import cell_anchors, grid_anchors
from detector.ops.box_coder import decode_boxes, encode_boxes
from detector.ops.boxes import clip_boxes, rescale_boxes, usable_boxes
from detector.ops.matching import Role, match_boxes, sample_roles
from detector.structures import Size

QUICK = settings(deadline=None, max_examples=40)

POSITION = st.floats(-500, 1500, width=32)
# The largest ratio of two lengths is 50, below the cap of 62.5 on growth.
LENGTH = st.floats(10, 500, width=32)
SIDE = st.integers(1, 2000)
SIZE = st.builds(Size, SIDE, SIDE)
WEIGHTS = st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
ROLES = st.lists(st.sampled_from(list(Role)), max_size=60)


@st.composite
def box_tensors(draw: st.DrawFn, count: int) -> torch.Tensor:
    """``(count, 4)`` boxes of positive size, in float64 so that rounding hides nothing."""
    rows = [[draw(POSITION), draw(POSITION), draw(LENGTH), draw(LENGTH)] for _ in range(count)]
    boxes = torch.tensor(rows, dtype=torch.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


@QUICK
@given(boxes=box_tensors(3), references=box_tensors(3), weights=WEIGHTS)
def test_decoding_undoes_encoding(boxes: torch.Tensor, references: torch.Tensor, weights: tuple[float, ...]) -> None:
    decoded = decode_boxes(encode_boxes(boxes, references, weights), references, weights)
    torch.testing.assert_close(decoded, boxes, rtol=0, atol=1e-9)


@QUICK
@given(boxes=box_tensors(3), references=box_tensors(3), weights=WEIGHTS)
def test_decoding_undoes_encoding_in_float32(
    boxes: torch.Tensor, references: torch.Tensor, weights: tuple[float, ...]
) -> None:
    boxes, references = boxes.float(), references.float()
    decoded = decode_boxes(encode_boxes(boxes, references, weights), references, weights)
    # A hundredth of a pixel: float32 keeps seven digits, and boxes lie within a few thousand pixels.
    torch.testing.assert_close(decoded, boxes, rtol=0, atol=0.01)


@QUICK
@given(boxes=box_tensors(2), references=box_tensors(2), shift=st.integers(-200, 200))
def test_deltas_do_not_depend_on_where_both_boxes_lie(
    boxes: torch.Tensor, references: torch.Tensor, shift: int
) -> None:
    moved = encode_boxes(boxes + shift, references + shift)
    torch.testing.assert_close(moved, encode_boxes(boxes, references), rtol=0, atol=1e-9)


@QUICK
@given(boxes=box_tensors(4), size=SIZE)
def test_clipping_twice_is_clipping_once(boxes: torch.Tensor, size: Size) -> None:
    once = clip_boxes(boxes, size)
    torch.testing.assert_close(clip_boxes(once, size), once, rtol=0, atol=0)


@QUICK
@given(boxes=box_tensors(4), size=SIZE)
def test_clipped_boxes_lie_inside_and_stay_ordered(boxes: torch.Tensor, size: Size) -> None:
    x1, y1, x2, y2 = clip_boxes(boxes, size).unbind(dim=1)
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= size.width)).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= size.height)).all()


@QUICK
@given(boxes=box_tensors(3), old=SIZE, new=SIZE)
def test_rescaling_there_and_back_changes_nothing(boxes: torch.Tensor, old: Size, new: Size) -> None:
    there_and_back = rescale_boxes(rescale_boxes(boxes, old, new), new, old)
    torch.testing.assert_close(there_and_back, boxes, rtol=1e-12, atol=1e-12)


@QUICK
@given(boxes=box_tensors(3), old=SIZE, new=SIZE)
def test_clipping_and_rescaling_can_be_swapped(boxes: torch.Tensor, old: Size, new: Size) -> None:
    clipped_first = rescale_boxes(clip_boxes(boxes, old), old, new)
    torch.testing.assert_close(clipped_first, clip_boxes(rescale_boxes(boxes, old, new), new), rtol=1e-9, atol=1e-9)


@QUICK
@given(boxes=box_tensors(3))
def test_boxes_of_positive_size_are_usable_and_turned_ones_are_not(boxes: torch.Tensor) -> None:
    assert usable_boxes(boxes).all()
    assert not usable_boxes(boxes[:, [2, 1, 0, 3]]).any()


@QUICK
@given(height=st.integers(1, 6), width=st.integers(1, 6), stride=st.sampled_from([8, 16]))
def test_an_anchor_lies_where_its_index_says(height: int, width: int, stride: int) -> None:
    cell = cell_anchors([16.0, 32.0], [0.5, 1.0])
    anchors = grid_anchors(cell, Size(height, width), stride).view(height, width, len(cell), 4)
    y, x = height - 1, width // 2
    shift = torch.tensor([x, y, x, y], dtype=torch.float32) * stride
    torch.testing.assert_close(anchors[y, x], cell + shift, rtol=0, atol=0)


@QUICK
@given(roles=ROLES, count=st.integers(1, 30), fraction=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_drawn_boxes_are_distinct_and_of_their_role(roles: list[Role], count: int, fraction: float, seed: int) -> None:
    drawn = sample_roles(torch.tensor(roles, dtype=torch.int8), count, fraction, seed)
    for indices, role in zip(drawn, (Role.FOREGROUND, Role.BACKGROUND), strict=True):
        assert len(set(indices.tolist())) == len(indices)
        assert all(roles[index] == role for index in indices.tolist())


@QUICK
@given(roles=ROLES, count=st.integers(1, 30), fraction=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_as_many_boxes_are_drawn_as_the_rule_allows(roles: list[Role], count: int, fraction: float, seed: int) -> None:
    foreground, background = sample_roles(torch.tensor(roles, dtype=torch.int8), count, fraction, seed)
    assert len(foreground) == min(roles.count(Role.FOREGROUND), int(count * fraction))
    assert len(background) == min(roles.count(Role.BACKGROUND), count - len(foreground))


@QUICK
@given(truths=st.integers(0, 4), boxes=st.integers(1, 12), seed=st.integers(0, 1000), claim_best=st.booleans())
def test_matching_agrees_with_its_definition(truths: int, boxes: int, seed: int, claim_best: bool) -> None:
    # Tenths, so that values meet each other and the thresholds.
    iou = torch.randint(0, 11, (truths, boxes), generator=torch.Generator().manual_seed(seed)) / 10
    matches = match_boxes(iou, 0.7, 0.3, claim_best)
    rows = iou.tolist()
    for box in range(boxes):
        best = max((row[box] for row in rows), default=0)
        claimed = claim_best and any(row[box] == max(row) > 0 for row in rows)
        role = (
            Role.FOREGROUND
            if best >= 0.7 - 1e-6 or claimed
            else Role.IGNORED
            if best >= 0.3 - 1e-6
            else Role.BACKGROUND
        )
        assert matches.role[box] == role
        assert not rows or rows[int(matches.truth[box])][box] == best
