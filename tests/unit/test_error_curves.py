"""Error curves: files that open as images, labels that stand apart and inside, whatever there is to draw."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detector.errors import MachineError
from detector.visualization.error_curves import ErrorCurve, plot_error_curves, smoothed, spread

FALLING = [(iteration, 0.9 - 0.008 * iteration) for iteration in range(1, 101)]
PANELS: dict[str, dict[str, list[ErrorCurve]]] = {
    "two networks": {
        title: [ErrorCurve("20 layers", FALLING, FALLING[::10]), ErrorCurve("56 layers", FALLING, FALLING[::10])]
        for title in ("plain", "residual")
    },
    "one panel": {"residual": [ErrorCurve("20 layers", FALLING, FALLING[::10])]},
    "no evaluation": {"plain": [ErrorCurve("20 layers", FALLING, [])]},
    "one evaluation alone": {"plain": [ErrorCurve("20 layers", [], [(100, 0.25)])]},
    "nothing": {"plain": [ErrorCurve("20 layers", [], [])], "residual": []},
    "no errors at all": {"plain": [ErrorCurve("20 layers", [(1, 0.0), (2, 0.0)], [(2, 0.0)])]},
    "more networks than colours": {"plain": [ErrorCurve(f"{n} layers", FALLING, FALLING) for n in range(8)]},
}


@pytest.mark.parametrize("name", PANELS)
def test_curves_become_an_image(name: str, tmp_path: Path) -> None:
    plot_error_curves(tmp_path / "curves.png", PANELS[name])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert image.height > 500


def test_nothing_is_cut_off(tmp_path: Path) -> None:
    plot_error_curves(tmp_path / "curves.png", {"plain": [ErrorCurve("a rather long name of a network", FALLING, [])]})
    with Image.open(tmp_path / "curves.png") as image:
        gray = image.convert("L")
    edges = [gray.crop((0, 0, gray.width, 2)), gray.crop((gray.width - 2, 0, gray.width, gray.height))]
    assert all(edge.getextrema() == (255, 255) for edge in edges)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"curves\.png: cannot be written"):
        plot_error_curves(tmp_path / "missing" / "curves.png", PANELS["one panel"])


def test_labels_that_stand_apart_keep_their_places() -> None:
    assert spread([1.0, 5.0, 9.0], 1.0, 10.0) == [1.0, 5.0, 9.0]


def test_labels_of_one_height_are_stacked() -> None:
    assert spread([4.0, 4.0, 4.0], 1.0, 10.0) == [4.0, 5.0, 6.0]


def test_labels_at_the_top_are_stacked_downwards() -> None:
    assert spread([9.5, 9.5, 9.5], 1.0, 10.0) == [8.0, 9.0, 10.0]


@given(heights=st.lists(st.floats(0, 100), max_size=12).map(sorted))
def test_labels_stand_apart_below_the_top_and_in_their_order(heights: list[float]) -> None:
    places = spread(heights, 4.0, 100.0)
    assert all(place <= 100 for place in places)
    assert all(after - before >= 4 - 1e-9 for before, after in pairwise(places))


def test_a_short_curve_is_not_smoothed() -> None:
    assert smoothed([(1, 0.5), (2, 0.3)]) == [(1, 0.5), (2, 0.3)]


def test_a_long_curve_is_averaged_over_a_fifteenth_of_it() -> None:
    spike = [(iteration, 1.0 if iteration == 30 else 0.0) for iteration in range(75)]
    found = dict(smoothed(spike))
    assert {iteration: error for iteration, error in found.items() if error} == dict.fromkeys(range(28, 33), 0.2)
