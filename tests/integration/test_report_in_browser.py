"""The report in a browser: by mouse, by keyboard alone, narrow, dark, printed, and without scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.report_inputs import NASTY, write_examples

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDTHS = (360, 820, 1400)
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports."""
    folder = tmp_path_factory.mktemp("reports")
    write_examples(folder)
    return folder


@pytest.fixture
def open_(visit: Open, reports: Path) -> Open:
    """Opens a report by its name."""

    def open_page(name: str = "full", width: int = 1400, **options: Any) -> Page:
        return visit(reports / f"{name}.html", width, **options)

    return open_page


def first_column(page: Page) -> list[str]:
    return page.locator("table.sortable tbody th").all_inner_texts()


def tab_to(page: Page, selector: str, limit: int = 200) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached by Tab")


@pytest.mark.parametrize("name", ["full", "80", "0", "1", "nothing"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_wider_than_its_window(open_: Open, name: str, width: int) -> None:
    page = open_(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_wide_tables_scroll_in_their_own_box(open_: Open) -> None:
    box = open_("80", 360).locator("#classes .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth && box.tabIndex === 0")


def test_every_column_sorts_both_ways_and_undefined_numbers_stay_last(open_: Open) -> None:
    page = open_()
    heads = page.locator("table.sortable thead th")
    for column in range(heads.count()):
        for order in ("ascending", "descending") if column == 0 else ("descending", "ascending"):
            heads.nth(column).locator("button").click()
            assert heads.nth(column).get_attribute("aria-sort") == order
            assert page.locator("[aria-sort]").count() == 1
            cells = page.locator(f"table.sortable tbody tr > :nth-child({column + 1})").all()
            texts = [cell.inner_text() if column == 0 else cell.get_attribute("data-value") for cell in cells]
            values = [text if column == 0 else float(text) for text in texts if text is not None]
            assert values == sorted(values, reverse=order == "descending")
            assert texts[: len(values)] == [text for text in texts if text is not None]
    heads.nth(2).locator("button").click()
    assert first_column(page)[-1] == "zebra"


def test_filters_leave_what_they_ask_for(open_: Open) -> None:
    page = open_()
    cards = page.locator(".card:visible strong")
    kinds, classes = page.locator("select[data-filter=kinds]"), page.locator("select[data-filter=classes]")
    assert kinds.locator("option").all_inner_texts() == ["all", "missed", "both", "background"]
    assert classes.locator("option").all_inner_texts() == ["all", "ant", "cow", "zebra"]
    kinds.select_option(label="missed")
    assert cards.all_inner_texts() == ["first", "third"]
    classes.select_option(label="cow")
    assert cards.all_inner_texts() == ["third"]
    assert page.locator(".shown").inner_text() == "1 of 3 shown"
    kinds.select_option(label="both")
    assert cards.all_inner_texts() == []
    kinds.select_option(label="all")
    assert cards.all_inner_texts() == ["second", "third"]


def test_images_enlarge_by_click_and_buttons_lead_on(open_: Open) -> None:
    page = open_()
    small = page.locator(".card img").first
    before = small.bounding_box()
    page.locator(".card button").first.click()
    viewer = page.locator("dialog")
    large = viewer.locator("img").bounding_box()
    assert before is not None
    assert large is not None
    assert large["width"] > 1.5 * before["width"]
    assert viewer.locator(".what strong").inner_text() == "first"
    viewer.get_by_role("button", name="Next").click()
    assert viewer.locator(".what strong").inner_text() == "second"
    assert viewer.locator("img").evaluate("image => image.naturalWidth") == 1200
    viewer.get_by_role("button", name="Close").click()
    assert not viewer.is_visible()


def test_the_keyboard_alone_is_enough(open_: Open) -> None:
    page = open_()
    tab_to(page, "a.skip", 1)
    tab_to(page, "nav a[href='#data']")
    tab_to(page, "table.sortable th:nth-child(2) button")
    page.keyboard.press("Enter")
    assert page.locator("table.sortable th:nth-child(2)").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert page.locator("table.sortable th:nth-child(2)").get_attribute("aria-sort") == "ascending"
    tab_to(page, ".legend button")
    page.keyboard.press("Enter")
    assert page.locator(".legend button[aria-pressed=true]").count() == 1
    assert page.locator("#curves .chart.dimmed").count() == 2
    tab_to(page, ".matrix td")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.locator(".readout").inner_text().startswith("ant found: ")
    tab_to(page, "select")
    tab_to(page, ".card button")
    page.keyboard.press("Enter")
    what, place = page.locator(".what strong"), page.locator(".place")
    assert what.inner_text() == "first"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no fourth
    assert (what.inner_text(), place.inner_text()) == ("third", "3 of 3")
    page.keyboard.press("ArrowLeft")
    assert what.inner_text() == "second"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # The focus comes back with an event that follows.
    page.wait_for_function("document.activeElement.ariaLabel?.startsWith('Enlarge second')")
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    assert page.locator("details pre").first.is_visible()


def test_arrow_keys_keep_to_what_the_filters_leave(open_: Open) -> None:
    page = open_()
    page.locator("select[data-filter=kinds]").select_option(label="missed")
    page.locator(".card button").first.click()
    page.keyboard.press("ArrowRight")
    assert page.locator(".what strong").inner_text() == "third"
    assert page.locator(".place").inner_text() == "2 of 2"


def test_the_focus_can_be_seen(open_: Open) -> None:
    page = open_()
    for selector in ("nav a", "thead button", ".legend button", ".matrix td", "select", ".card button", "summary"):
        tab_to(page, selector)
        style = page.evaluate("(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])"
                              "(getComputedStyle(document.activeElement))")  # fmt: skip
        assert style[0] != "none", selector
        assert style[1] != "0px", selector


def colours(page: Page) -> list[str]:
    return [
        page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{property_}")
        for selector, property_ in (("body", "backgroundColor"), ("body", "color"), (".chart text", "fill"),
                                    (".chart .line path", "stroke"), (".matrix td.strong", "backgroundImage"))
    ]  # fmt: skip


def test_dark_differs_in_page_and_charts(open_: Open) -> None:
    light, dark = (colours(open_("80", color_scheme=scheme)) for scheme in ("light", "dark"))
    assert all(a != b for a, b in zip(light, dark, strict=True)), (light, dark)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(open_: Open, scheme: str) -> None:
    """Contrast by WCAG 2.2, 1.4.3: 4.5 for text."""
    page = open_(color_scheme=scheme)
    names = ("--page", "--ink", "--muted", "--accent", "--warn", "--warn-wash", "--wash")
    values = page.evaluate("names => names.map(name => getComputedStyle(document.body).getPropertyValue(name))", names)
    light = {name: luminance(value.strip()) for name, value in zip(names, values, strict=True)}
    for front, back in (("--ink", "--page"), ("--muted", "--page"), ("--accent", "--page"), ("--warn", "--warn-wash"),
                        ("--ink", "--warn-wash"), ("--ink", "--wash")):  # fmt: skip
        low, high = sorted((light[front], light[back]))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_without_scripts_all_can_be_read_and_nothing_pretends_to_work(open_: Open) -> None:
    page = open_(java_script_enabled=False)
    for selector in ("table.sortable", ".chart", ".legend", ".matrix", ".card img", "details summary"):
        assert page.locator(selector).first.is_visible(), selector
    assert page.locator("button:visible, select:visible").count() == 0
    assert "click" not in page.locator("#images").inner_text()


def test_print_is_light_and_whole(open_: Open) -> None:
    page = open_("80", color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert not page.locator(".filters").is_visible()
    assert page.locator("#classes .scroll").evaluate("box => box.scrollHeight <= box.clientHeight")


def test_foreign_names_are_shown_and_never_run(open_: Open) -> None:
    page = open_("80")
    assert NASTY[0] in first_column(page)
    assert page.locator("b").count() == 0
    page.locator("select[data-filter=classes]").select_option(label=NASTY[0])
    page.locator(".card button").first.click()
    page.keyboard.press("ArrowRight")
    assert page.locator(".what strong").inner_text() == NASTY[1]


def test_an_injected_script_would_not_run(open_: Open, reports: Path, tmp_path: Path, browser: Browser) -> None:
    """Even if escaping failed, the policy of the page holds."""
    page = (reports / "full.html").read_text(encoding="utf-8")
    bad = tmp_path / "bad.html"
    attack = "<script>document.title = 'run'</script><img src='x:' onerror=\"document.title = 'run'\">"
    bad.write_text(page.replace("<main", f"{attack}<main", 1), encoding="utf-8")
    context = browser.new_context()
    opened = context.new_page()
    opened.goto(bad.as_uri())
    assert opened.title() == "Evaluation report – runs/mine"
    assert opened.locator("thead button").count() > 0  # its own script did run
    context.close()


def test_legend_picks_out_a_class(open_: Open) -> None:
    page = open_()
    page.locator(".legend button").nth(1).click()
    chart = page.locator("#curves .chart").first
    assert chart.locator(".line.chosen").count() == 1
    faint = chart.locator(".line:not(.chosen)").first.evaluate("line => Number(getComputedStyle(line).opacity)")
    assert faint < 0.5
    page.locator(".legend button").nth(1).click()
    page.mouse.move(0, 0)
    assert page.locator(".dimmed").count() == 0


def test_a_box_that_fits_is_no_stop_for_tab(open_: Open) -> None:
    page = open_("0")
    page.wait_for_function("document.querySelector('#errors .scroll').tabIndex === -1")
