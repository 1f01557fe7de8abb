"""Pages in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    playwright_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
    )
    with playwright_api.sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, BROWSERS)), playwright.chromium.executable_path)
        if not Path(path).is_file():
            pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
        opened = playwright.chromium.launch(executable_path=path)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page in a file, at a width; afterwards there was no complaint, no request, and no dialog."""
    said: list[str] = []
    contexts = []

    def visit_page(path: Path, width: int, **options: Any) -> Page:
        def note_message(message: ConsoleMessage) -> None:
            said.append(message.text)

        def note_request(request: Request) -> None:
            if not request.url.startswith(("data:", path.parent.as_uri())):
                said.append(request.url)

        context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", note_message)
        page.on("request", note_request)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
        page.goto(path.as_uri())
        return page

    yield visit_page
    for context in contexts:
        context.close()
    assert said == []
