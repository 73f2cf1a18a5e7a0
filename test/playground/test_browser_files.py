"""What leaves the page and what comes in: copies, shared files, traces, keys, hostile text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from demo.pieces import LINEAR
from playground.app import HOSTILE, linear, scripted_app, serving
from playground.browsing import answered, eventually
from sglang_multiverse.playground import offline_page

pytestmark = pytest.mark.timeout(300)


def test_text_is_never_markup(tab: Any, url: str) -> None:
    tab.goto(url)
    card = answered(tab, "hostile")
    assert card.locator(".answer > .body > p").first.inner_text() == HOSTILE
    assert card.locator("img, script, b").count() == 0
    assert tab.evaluate("window.hit") is None
    assert (
        tab.evaluate(
            "(() => { try { document.body.innerHTML = '<b></b>'; return 'set'; }"
            " catch (e) { return e.name; } })()"
        )
        == "TypeError"
    )
    tab.complaints.clear()  # the refusal just now
    card.get_by_text("Linear text").click()
    assert card.locator("pre.linear").inner_text() == linear("hostile")


def test_copies(tab: Any, url: str) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(url)
    card = answered(tab, "nested")
    card.get_by_role("button", name="Copy text").click()
    card.get_by_role("button", name="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == linear("nested")
    card.get_by_role("button", name="Copy Markdown").click()
    copied = "navigator.clipboard.readText()"
    eventually(tab, lambda: "> > **2.1** part 2.1" in tab.evaluate(copied))


def test_a_shared_run_replays_without_a_server(tab: Any, url: str, tmp_path: Path) -> None:
    tab.goto(url)
    card = answered(tab, "hostile 0.2")  # so long that its replay can be seen
    shown = card.locator(".answer").inner_text()
    with tab.expect_download() as download:
        card.get_by_role("button", name="Share").click()
    file = tmp_path / "run.html"
    download.value.save_as(file)
    tab.context.set_offline(True)
    tab.goto(file.as_uri())
    card = tab.locator(".card")
    card.wait_for()
    assert card.locator(".answer").inner_text() == shown
    card.get_by_role("button", name="Replay").click()
    card.get_by_role("button", name="Skip to the end").wait_for()
    card.get_by_role("button", name="Replay").wait_for()  # it is over
    assert card.locator(".answer").inner_text() == shown
    assert tab.evaluate("window.hit") is None


def test_traces_can_be_dropped_and_broken_ones_show_where(tab: Any, url: str) -> None:
    tab.goto(url)
    broken = LINEAR.replace("</Goal>", "</Goal></Goal>", 1)
    rows = "\n".join(
        json.dumps({"id": name, "output": text})
        for name, text in (("good", LINEAR), ("bad", broken))
    )
    tab.evaluate(
        """(text) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], "runs.jsonl"));
          const how = { dataTransfer: transfer, cancelable: true };
          document.dispatchEvent(new DragEvent("drop", how));
        }""",
        rows,
    )
    tab.wait_for_selector(".traces .card")
    assert "2 texts, 1 not well formed" in tab.locator(".count").inner_text()
    assert tab.locator(".defects").count() == 0
    tab.locator(".trace-list button").nth(1).click()
    line = broken[: broken.index("</Goal></Goal>")].count("\n") + 1
    assert f"line {line}, column 8" in tab.locator(".defects").inner_text()
    tab.locator(".defects button").click()
    assert tab.locator("pre.linear mark").inner_text() == "</Goal>"
    assert tab.locator(".answer mark.stray").inner_text() == "</Goal>"


def test_the_file_that_the_command_writes(tab: Any, tmp_path: Path) -> None:
    file = tmp_path / "view.html"
    file.write_text(offline_page({"title": "one", "source": LINEAR}), "utf-8")
    tab.goto(file.as_uri())
    assert tab.locator(".column").count() == 5
    assert "words" in tab.locator(".figures").inner_text()


def test_the_api_key_is_asked_for_and_sent(tab: Any, browser: Any) -> None:
    from sglang.srt.utils import auth

    from sglang_multiverse.engine.http import page

    app = scripted_app()
    original = auth.decide_request_auth
    auth.decide_request_auth = lambda **call: (
        auth.AuthDecision(allowed=True) if page.is_public(call["path"], "") else original(**call)
    )
    try:
        auth.add_api_key_middleware(app, api_key="secret", admin_api_key=None)
        with serving(app) as address:
            tab.goto(f"{address}/playground")
            tab.wait_for_selector("#key-dialog[open]")
            tab.fill("#key", "secret")
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#model:has-text('scripted')")
            assert answered(tab, "hello").locator(".answer").inner_text() == "You said hello."
    finally:
        auth.decide_request_auth = original
    assert all("401" in complaint for complaint in tab.complaints)
    tab.complaints.clear()
