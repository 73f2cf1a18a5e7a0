"""A browser, where there is one: Playwright's driver with the system's Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from playground.app import scripted_app, serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        # Without its sandbox: CI runs as root, where Chromium has none.
        found = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page of the browser; what its console complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)  # CI has other things to do
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: (
            page.complaints.append(said.text) if said.type in ("error", "warning") else None
        ),
    )
    yield page
    complaints = page.complaints
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def app() -> Any:
    return scripted_app()


@pytest.fixture(scope="module")
def url(app: Any, browser: Any) -> Iterator[str]:
    """The page on the scripted model."""
    with serving(app) as address:
        yield f"{address}/playground"
