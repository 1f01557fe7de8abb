"""The doctor's page in a browser: narrow and wide, light and dark, by mouse and keyboard, without a request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detector.engine.dataset_page import write_dataset_page
from tests.report_inputs import NASTY
from tests.unit.test_dataset_page import everything, noise

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pages, one of them with names that no one would choose."""
    folder = tmp_path_factory.mktemp("pages")
    write_dataset_page(folder / "plain.html", everything(), noise)
    write_dataset_page(folder / "nasty.html", everything(NASTY), noise)
    return folder


@pytest.fixture
def open_(visit: Open, folder: Path) -> Open:
    """Opens a page by its name."""

    def open_page(name: str = "plain", width: int = 1280, **options: Any) -> Page:
        return visit(folder / f"{name}.html", width, **options)

    return open_page


@pytest.mark.parametrize("name", ["plain", "nasty"])
@pytest.mark.parametrize("width", [360, 700, 1280])
def test_no_page_is_wider_than_its_window(open_: Open, name: str, width: int) -> None:
    page = open_(name, width)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_section_can_be_reached(open_: Open) -> None:
    page = open_()
    links = [link.get_attribute("href") for link in page.locator("nav a").all()]
    assert links == [f"#{section.get_attribute('id')}" for section in page.locator("main > section").all()]


def test_errors_are_open_and_all_else_opens_by_click(open_: Open) -> None:
    page = open_()
    for box in page.locator(".findings details").all():
        is_error = box.locator(".severity").inner_text() == "error"
        assert (box.get_attribute("open") is not None) == is_error
    last = page.locator(".findings details").last
    last.locator("summary").click()
    assert last.locator("table").is_visible()


def test_pictures_enlarge_and_arrow_keys_lead_on(open_: Open) -> None:
    page = open_()
    page.locator(".card button").first.click()
    first = page.locator(".what span").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".place").inner_text().startswith("2 of ")
    page.keyboard.press("ArrowLeft")
    assert page.locator(".what span").inner_text() == first
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_the_legend_picks_out_a_split_in_all_charts(open_: Open) -> None:
    page = open_()
    page.locator(".legend button").nth(1).click()
    assert page.locator("#objects .line.chosen").count() == 3


def test_dark_differs_in_page_charts_and_badges(open_: Open) -> None:
    places = (("body", "backgroundColor"), (".chart text", "fill"), (".chart .line path", "stroke"),
              (".severity.error", "color"), (".number.error .value", "color"))  # fmt: skip
    light, dark = (
        [
            page.locator(place).first.evaluate(f"element => getComputedStyle(element).{property_}")
            for place, property_ in places
        ]
        for page in (open_(color_scheme="light"), open_(color_scheme="dark"))
    )
    assert all(one != other for one, other in zip(light, dark, strict=True)), (light, dark)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_badges_can_be_read(open_: Open, scheme: str) -> None:
    """Contrast by WCAG 2.2, 1.4.3: 4.5 for text."""
    page = open_(color_scheme=scheme)
    for name in ("error", "warning", "note"):
        front, back = page.locator(f".severity.{name}").first.evaluate(
            "badge => { const style = getComputedStyle(badge); return [style.color, style.backgroundColor]; }"
        )
        low, high = sorted((_luminance(front), _luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def _luminance(colour: str) -> float:
    channels = [int(number) / 255 for number in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_foreign_names_are_shown_and_never_run(open_: Open) -> None:
    page = open_("nasty")
    assert NASTY[0] in page.locator("table.sortable tbody th").all_inner_texts()
    assert page.locator("b").count() == 0


def test_without_scripts_all_can_be_read(open_: Open) -> None:
    page = open_(java_script_enabled=False)
    for place in ("table.sortable", ".chart", ".legend", ".card img", "details summary", "pre"):
        assert page.locator(place).first.is_visible(), place
    assert page.locator("button:visible").count() == 0
    assert "click" not in page.locator("#gallery").inner_text()
