"""A page of the browser, and the playground on a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from playground.app import scripted_app, serving


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
