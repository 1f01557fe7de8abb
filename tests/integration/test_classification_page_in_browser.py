"""The report of a classifier in a browser: narrow and wide, by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detector.evaluation.report.classification_page import write_classification_report
from tests.classification_inputs import evaluate, mistake
from tests.report_inputs import NASTY, PROVENANCE

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLASSES = {"two": ("cat", "dog"), "nasty": NASTY, "many": tuple(f"class number {label}" for label in range(200))}
Visit = Callable[..., "Page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page for each list of classes."""
    folder = tmp_path_factory.mktemp("pages")
    for name, classes in CLASSES.items():
        metrics, analysis = evaluate(classes, 300)
        mistakes = [mistake(f"image {number}", (classes[0], classes[-1])) for number in range(6)]
        write_classification_report(folder / f"{name}.html", metrics, analysis, PROVENANCE, mistakes)
    return folder


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("width", [360, 700, 1280])
def test_no_page_is_wider_than_its_window(visit: Visit, folder: Path, name: str, width: int) -> None:
    page = visit(folder / f"{name}.html", width)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_section_can_be_reached(visit: Visit, folder: Path) -> None:
    page = visit(folder / "two.html", 1280)
    links = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert links == [f"#{section.get_attribute('id')}" for section in page.locator("main > section").all()]


def test_classes_sort_by_accuracy_both_ways(visit: Visit, folder: Path) -> None:
    page = visit(folder / "many.html", 1280)
    table = page.locator("#classes table.sortable")
    heads = table.locator("thead th")
    titles = [title.strip() for title in heads.all_inner_texts()]
    column = next(number for number, title in enumerate(titles) if title.startswith("Accuracy"))
    for falling in (True, False):
        heads.nth(column).locator("button").click()
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all()
        values = [float(value) for value in (cell.get_attribute("data-value") for cell in cells) if value is not None]
        assert len(values) > 10
        assert values == sorted(values, reverse=falling)


def test_mistakes_enlarge_and_arrow_keys_lead_on(visit: Visit, folder: Path) -> None:
    page = visit(folder / "two.html", 1280)
    page.locator(".card button").first.click()
    page.keyboard.press("ArrowRight")
    assert page.locator(".place").inner_text().startswith("2 of 6")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
