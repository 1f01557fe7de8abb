"""Error curves: files that open as images, labels that stand apart and inside, whatever there is to draw."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from detector.cli.plot_errors import main as plot_errors
from detector.errors import MachineError
from detector.visualization import error_curves
from detector.visualization.error_curves import ErrorCurve, plot_error_curves, smoothed, spread
from tests.tiny import TINY_CLASSIFIER

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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """All that is drawn."""
    kept: list[Figure] = []
    monkeypatch.setattr(error_curves, "FigureCanvasAgg", lambda figure: kept.append(figure) or FigureCanvasAgg(figure))
    return kept


def test_errors_are_drawn_in_per_cent_the_training_ones_dashed(figures: list[Figure]) -> None:
    curve = ErrorCurve("20 layers", [(1, 0.8), (2, 0.3)], [(1, 0.75), (2, 0.4)])
    plot_error_curves(Path("curves.png"), {"plain": [curve]})
    axes = figures[0].axes[0]
    drawn = {line.get_linestyle(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"--": [[1, 80], [2, 30]], "-": [[1, 75], [2, 40]]}
    assert [text.get_text() for text in axes.texts] == ["20 layers, training 30.0 %", "20 layers, test 40.0 %"]


def test_the_errors_of_a_run_are_those_of_its_log(figures: list[Figure], capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"iteration": 1, "loss": 2.0, "error": 0.8},
        {"iteration": 2, "loss": 1.0, "error": 0.3},
        {"iteration": 2, "headline": 0.625, "classification": {"top1": 0.625, "top5": 1.0, "log_loss": 1.5}},
    ]
    Path("run").mkdir()
    Path("run/config.yaml").write_text(TINY_CLASSIFIER)
    Path("run/metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert plot_errors(["run", "--output", "errors.png"]) == 0
    assert capsys.readouterr().out == (
        "Residual networks: 8 layers: training error 30.0 %, test error 37.5 % at the end\nwritten: errors.png\n"
    )
    assert [line.get_xydata().tolist() for line in figures[0].axes[0].lines] == [[[2, 37.5]], [[1, 80], [2, 30]]]


def test_runs_of_one_network_are_told_apart_by_their_folders(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [Path(name) for name in ("first", "a/run", "b/run", "c/a/run", "b/other")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(TINY_CLASSIFIER)
        (folder / "metrics.jsonl").write_text('{"iteration": 1, "error": 0.5, "classification": {"top1": 0.5}}\n')
    # A run that is named twice is drawn once.
    assert plot_errors([*map(str, folders), "b/../a/run", "--output", "errors.png"]) == 0
    names = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()[:-1]]
    here = Path.cwd().name
    assert names == ["8 layers", f"{here}/a/run", "b/run", "c/a/run", "other"]


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
