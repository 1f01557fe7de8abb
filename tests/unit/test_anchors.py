from __future__ import annotations

import pytest
import torch

from detector.ops.anchors import cell_anchors, grid_anchors
from detector.structures import Size

SQRT_HALF = 0.5**0.5


def test_anchors_of_one_size_are_exact_and_not_rounded_to_pixels() -> None:
    # Area 32 * 32 and height / width 0.5, 1, 2: the widths are 32 * sqrt(2), 32, 32 / sqrt(2).
    wide, narrow = 16 / SQRT_HALF, 16 * SQRT_HALF
    expected = [[-wide, -narrow, wide, narrow], [-16.0, -16.0, 16.0, 16.0], [-narrow, -wide, narrow, wide]]
    torch.testing.assert_close(cell_anchors([32.0], [0.5, 1.0, 2.0]), torch.tensor(expected), rtol=0, atol=1e-5)


def test_aspect_ratio_varies_fastest() -> None:
    anchors = cell_anchors([32.0, 64.0], [0.25, 4.0])
    sizes = (anchors[:, 2:] - anchors[:, :2]).tolist()
    assert sizes == [[64.0, 16.0], [16.0, 64.0], [128.0, 32.0], [32.0, 128.0]]


def test_anchors_of_a_size_have_its_area() -> None:
    width, height = (cell_anchors([48.0], [0.3, 1.0, 3.7])[:, 2:] * 2).unbind(dim=1)
    torch.testing.assert_close(width * height, torch.full((3,), 48.0**2))


def test_aspect_ratio_is_height_over_width() -> None:
    width, height = (cell_anchors([48.0], [0.3, 1.0, 3.7])[:, 2:] * 2).unbind(dim=1)
    torch.testing.assert_close(height / width, torch.tensor([0.3, 1.0, 3.7]))


def test_five_sizes_and_three_ratios_are_fifteen_anchors() -> None:
    assert cell_anchors([32.0, 64.0, 128.0, 256.0, 512.0], [0.5, 1.0, 2.0]).shape == (15, 4)


def test_anchors_are_float32() -> None:
    assert cell_anchors([32.0], [1.0]).dtype == torch.float32


def test_the_first_cell_is_centred_on_the_corner_of_the_image() -> None:
    assert grid_anchors(cell_anchors([16.0], [1.0]), Size(1, 1), 16).tolist() == [[-8.0, -8.0, 8.0, 8.0]]


def test_the_grid_goes_row_by_row() -> None:
    anchors = grid_anchors(cell_anchors([16.0], [1.0]), Size(height=2, width=3), 16)
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist()
    assert centres == [[0.0, 0.0], [16.0, 0.0], [32.0, 0.0], [0.0, 16.0], [16.0, 16.0], [32.0, 16.0]]


def test_the_anchors_of_a_cell_stay_together() -> None:
    anchors = grid_anchors(cell_anchors([16.0, 32.0], [1.0]), Size(height=1, width=2), 16)
    assert anchors.tolist() == [
        [-8.0, -8.0, 8.0, 8.0],
        [-16.0, -16.0, 16.0, 16.0],
        [8.0, -8.0, 24.0, 8.0],
        [0.0, -16.0, 32.0, 16.0],
    ]


@pytest.mark.parametrize("stride", [4, 16])
def test_neighbouring_cells_are_one_stride_apart(stride: int) -> None:
    anchors = grid_anchors(cell_anchors([16.0], [1.0]), Size(2, 2), stride)
    assert (anchors[1] - anchors[0]).tolist() == [stride, 0, stride, 0]
    assert (anchors[2] - anchors[0]).tolist() == [0, stride, 0, stride]
