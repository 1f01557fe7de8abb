"""The report of a classifier: one small file that asks nobody for anything, whatever there is to report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.errors import MachineError
from detector.evaluation.classification import Answers, score_classes
from detector.evaluation.classification_analysis import Analysis, analyse_classes
from detector.evaluation.report.classification_page import Mistake, write_classification_report
from detector.evaluation.score import Metrics
from detector.visualization.labels import draw_answer, draw_classes, enlarge
from tests.classification_inputs import answers_of, evaluate, labelled, mistake
from tests.report_inputs import NASTY, PROVENANCE, Parsed

LIMIT = 5_000_000
CLASSES = tuple(f"kind {label}" for label in range(8))
NAN = float("nan")


def render(metrics: Metrics, analysis: Analysis, mistakes: tuple[Mistake, ...] = ()) -> str:
    write_classification_report(Path("report.html"), metrics, analysis, PROVENANCE, mistakes)
    return Path("report.html").read_text(encoding="utf-8")


def assert_asks_for_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert not parsed.open
    assert not re.search(
        r"https?:|//\w|@import|xlink|\bimport\b|fetch\(|XMLHttp", re.sub(r'src="data:[^"]*"', "", page)
    )
    for attribute in ("src", "href", "action", "data", "poster", "srcset"):
        assert all(re.match(r"data:|#", value) for value in parsed.values(attribute)), attribute


@pytest.mark.parametrize("names", [("a", "b"), NASTY, tuple(f"class {label}" for label in range(90))], ids=len)
@pytest.mark.parametrize("images", [0, 1, 60])
def test_every_page_is_one_small_file_that_asks_for_nothing(names: tuple[str, ...], images: int) -> None:
    page = render(*evaluate(names, images))
    assert [path.name for path in Path.cwd().iterdir()] == ["report.html"]
    assert len(page.encode()) < LIMIT
    assert_asks_for_nothing(page)
    assert not re.search(r"\b(nan|inf|none)\b", Parsed(page).text, re.IGNORECASE)


def test_the_sections_stand_in_the_order_of_their_list() -> None:
    metrics, analysis = evaluate(CLASSES, 60)
    parsed = Parsed(render(metrics, analysis | {"warnings": ["look here"]}))
    wanted = ["numbers", "warnings", "classes", "confusion", "pairs", "calibration", "images", "data", "origin"]
    assert [section["id"] for section in parsed.all("section")] == wanted
    assert [link["href"] for link in parsed.all("a")[1:]] == [f"#{name}" for name in wanted]


def test_foreign_text_stays_text() -> None:
    metrics, analysis = evaluate(NASTY, 90)
    analysis = analysis | {"warnings": list(NASTY)}
    parsed = Parsed(render(metrics, analysis, tuple(mistake(name, (name, NASTY[0])) for name in NASTY)))
    assert len(parsed.all("script")) == 1
    assert not parsed.all("b")
    assert not parsed.values("onerror")
    assert "{{ 7 * 7 }}" in parsed.text


def test_the_page_shows_the_numbers_of_metrics_json() -> None:
    answers = answers_of([(0.7, 0.3), (0.4, 0.6), (0.9, 0.1), (0.2, 0.8)], (0, 0, 0, 1))
    truth = labelled((0, 0, 0, 1), ("cat", "dog"))
    text = Parsed(render(score_classes(answers, truth.class_names), analyse_classes(answers, truth))).text
    assert "top-1 75.0" in text
    assert "log loss 0.400" in text
    assert "cat taken for dog 1 33.3" in text
    assert "dog, 33 %" in text


def test_top5_of_five_classes_is_not_shown() -> None:
    assert "top-5" not in Parsed(render(*evaluate(CLASSES[:5], 20))).text
    assert "top-5" in Parsed(render(*evaluate(CLASSES[:6], 20))).text


def test_a_thousand_classes_fit() -> None:
    names = tuple(f"a class of a rather long name, number {label}, and so on" for label in range(1000))
    page = render(*evaluate(names, 6000, 4.0), tuple(mistake(f"{place}", names[:2], 256, True) for place in range(24)))
    assert len(page.encode()) < LIMIT
    matrix = page[page.index('aria-label="Confusion matrix"') :]
    assert matrix[: matrix.index("</thead>")].count('scope="col"') == 41


def test_pictures_shrink_or_go_before_the_page_grows_too_large() -> None:
    page = render(*evaluate(CLASSES, 60), tuple(mistake(f"{place}", ("a", "b"), 640, True) for place in range(24)))
    assert len(page.encode()) < LIMIT
    assert re.search(r"\d+ more were left out", page)


def test_a_network_without_numbers_has_a_page_that_says_so() -> None:
    answers = answers_of([(NAN, NAN)] * 2, (0, 1))
    truth = labelled((0, 1), ("a", "b"))
    parsed = Parsed(render(score_classes(answers, truth.class_names), analyse_classes(answers, truth)))
    assert "the network gives no numbers (NaN) on 2 of 2 images" in parsed.text
    assert "There are no answers to judge probabilities by." in parsed.text


def test_no_image_at_all_has_a_page() -> None:
    truth = labelled((), ("a", "b"))
    answers = Answers.of({})
    parsed = Parsed(render(score_classes(answers, truth.class_names), analyse_classes(answers, truth)))
    assert "0 images of 2 classes" in parsed.text
    assert "top-1 –" in parsed.text


def test_only_a_row_that_sums_up_others_stands_apart() -> None:
    names = tuple(f"class {label}" for label in range(41))
    assert "scroll matrix even" in render(*evaluate(names[:40], 90))
    assert "scroll matrix even" not in render(*evaluate(names, 90))


def test_a_mistake_is_named_beneath_its_picture() -> None:
    parsed = Parsed(render(*evaluate(CLASSES, 9), (mistake("a.png", ("cat", "dog")),)))
    assert "cat taken for dog 0.970, true class in place 3 a.png" in parsed.text


def test_a_page_that_cannot_be_written_is_the_machines_fault() -> None:
    metrics, analysis = evaluate(CLASSES, 9)
    with pytest.raises(MachineError, match="cannot be written"):
        write_classification_report(Path("no/such/folder/report.html"), metrics, analysis, {}, [])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (3, 500), (600, 20), (480, 640)])
def test_pictures_keep_the_shape_of_their_image(height: int, width: int) -> None:
    large = enlarge(np.zeros((height, width, 3), dtype=np.uint8))
    assert max(large.shape[:2]) <= 320
    assert large.shape[0] / large.shape[1] == pytest.approx(height / width, rel=0.5)


def test_pixels_of_a_tiny_image_stay_sharp() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(enlarge(image)[5::10, 5::10], image)


def test_the_strip_is_green_where_the_answer_is_right() -> None:
    image = np.full((32, 32, 3), 100, dtype=np.uint8)
    assert draw_answer(image, "cat", "cat", 0.5)[-1, -1].argmax() == 1
    assert draw_answer(image, "cat", "dog", 0.5)[-1, -1].argmax() == 0
    assert draw_answer(image, "cat", None, NAN)[-1, -1].argmax() == 0


def test_the_strip_has_room_for_the_probability_beside_a_long_name() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    sure, unsure = (draw_answer(image, "a", "w" * 900, probability) for probability in (1.0, 0.25))
    assert sure.shape == unsure.shape
    assert (sure != unsure).any()


def test_a_bar_is_as_long_as_its_class_is_probable() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    one, half, none = (
        (draw_classes(image, [" "], [probability])[-10] == (160, 200, 240)).all(axis=1).sum()
        for probability in (1.0, 0.5, NAN)
    )
    assert one == 625  # of 640, with the margins
    assert half == pytest.approx(one / 2, abs=2)
    assert none == 0


def test_letters_of_many_languages_differ() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    drawn = [draw_classes(image, [letter], [0.5]).tobytes() for letter in "aßéłğΩЖאع"]
    assert len(set(drawn)) == 9


def test_an_image_of_one_pixel_column_is_drawn() -> None:
    assert Image.fromarray(draw_answer(np.zeros((900, 1, 3), dtype=np.uint8), "a", "b", 0.1)).width == 320
