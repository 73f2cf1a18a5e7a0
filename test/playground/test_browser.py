"""The page in a real browser, against a scripted model: what a person sees and can do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.pieces import LINEAR
from playground.app import HOSTILE, REFUSED, SCRIPTS, scripted_app, serving
from sglang_multiverse.playground import offline_page

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def app() -> Any:
    return scripted_app()


@pytest.fixture(scope="module")
def url(app: Any, browser: Any) -> Iterator[str]:
    with serving(app) as address:
        yield f"{address}/playground"


def linear(script: str) -> str:
    """The text of a script whose branches come in the order of the plan."""
    from sglang_multiverse.demo.transcript import Transcript

    transcript = Transcript()
    for path, text in SCRIPTS[script]:
        transcript.add(path, text)
    return str(transcript.text)


def ask(tab: Any, question: str) -> Any:
    """Ask, and wait for nothing; the card of the answer."""
    tab.fill("#question", question)
    tab.keyboard.press("Enter")
    card = tab.locator(".card").last
    card.wait_for()
    return card


def answered(tab: Any, question: str) -> Any:
    card = ask(tab, question)
    tab.wait_for_selector("#send:visible")
    return card


def test_the_page_opens_with_examples_and_asks_no_one_else(tab: Any, url: str) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(url)
    tab.wait_for_selector(".example")
    assert tab.locator(".example").count() == 3
    assert tab.locator("#model").inner_text() == "scripted"
    root = url.removesuffix("playground")
    assert len(asked) > 10 and all(address.startswith(root) for address in asked)


def test_a_nested_answer(tab: Any, url: str) -> None:
    tab.goto(url)
    card = ask(tab, "nested 0.03")
    card.locator('[data-key="2:2.1"].growing').wait_for()
    assert "2.1, 2.2" in card.locator(".status").inner_text()
    assert card.locator('[data-key="1:2"] [data-key="2:2.1"]').count() == 1  # inside its own
    tab.wait_for_selector("#send:visible")
    assert card.locator(".column.closed").count() == 4
    assert card.locator(".growing").count() == 0
    assert card.locator(".answer > .body > p").last.inner_text() == "The end."
    figures = card.locator(".figures").inner_text()
    assert "100" in figures and "2.00×" in figures
    assert card.locator(".lane-label").all_inner_texts()[0] == "trunk"
    assert card.locator(".lane-label").count() == 5
    assert card.locator("rect.bar.critical").count() >= 3
    assert card.locator("path.link").count() == 8  # four forks, four joins


def test_hover_marks_both_ways(tab: Any, url: str) -> None:
    tab.goto(url)
    card = answered(tab, "nested")
    card.locator('.column[data-key="1:1"]').hover()
    assert card.locator('rect[data-key="1:1"].marked').count() >= 1
    assert card.locator('rect[data-key="1:2"].marked').count() == 0
    card.locator('.lane-label[data-path="2.2"]').hover()
    assert card.locator('.column[data-key="2:2.2"].marked').count() == 1
    assert card.locator('.column[data-key="1:1"].marked').count() == 0
    card.locator('.lane-label[data-path="1"]').focus()  # by keyboard as well
    assert card.locator('.column[data-key="1:1"].marked').count() == 1


def test_sixteen_branches(tab: Any, url: str) -> None:
    tab.goto(url)
    card = ask(tab, "sixteen 0.005")
    card.locator(".column.growing").nth(15).wait_for()
    assert "decoding 16 branches" in card.locator(".status").inner_text()
    tab.wait_for_selector("#send:visible")
    assert card.locator(".column.closed").count() == 16
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tops = set(tab.evaluate("[...document.querySelectorAll('.column')].map(c => c.offsetTop)"))
    assert len(tops) == 4  # rows of four


def test_one_at_a_time_lays_both_over_each_other(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    card = answered(tab, "nested 0.005")
    app.state.asked.clear()
    card.get_by_role("button", name="One at a time").click()
    card.locator("rect.bar.other").first.wait_for()
    (request,) = app.state.asked
    assert request["multiverse"] == {"max_parallel_branches": 1, "stream": "branches"}
    assert request["messages"] == [{"role": "user", "content": "nested 0.005"}]
    assert "speed-up" in card.locator(".figures").inner_text()


def test_stop_closes_the_connection(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    gone = app.state.gone
    card = ask(tab, "slow 0.02")
    card.locator(".column.growing").first.wait_for()
    tab.click("#stop")
    tab.wait_for_selector("#send:visible")
    assert "Stopped." in card.inner_text()
    assert card.locator(".state", has_text="cut off").count() == 3
    tab.wait_for_timeout(300)
    assert app.state.gone == gone + 1


def test_an_error_of_the_server_is_shown_as_it_says_it(tab: Any, url: str) -> None:
    tab.goto(url)
    card = answered(tab, "refused")
    assert card.locator("[role=alert]").inner_text() == REFUSED
    assert answered(tab, "hello").locator(".answer").inner_text() == "You said hello."
    assert "400" in tab.complaints.pop()  # the browser's own note of it


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


def test_formulas(tab: Any, url: str) -> None:
    tab.goto(url)
    card = answered(tab, "maths")
    assert card.locator("math").count() == 2
    assert card.locator("mfrac").count() == 1
    assert r"\(\broken{\)" in card.locator(".answer").inner_text()


def test_a_conversation_regenerate_and_edit(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    answered(tab, "nested")
    app.state.asked.clear()
    answered(tab, "again")
    roles = [message["role"] for message in app.state.asked[-1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert app.state.asked[-1]["messages"][1]["content"] == linear("nested")
    tab.locator(".card").last.get_by_role("button", name="Regenerate").click()
    tab.wait_for_selector("#send:visible")
    assert len(app.state.asked) == 2 and app.state.asked[0] == app.state.asked[1]
    tab.locator(".turn").first.get_by_role("button", name="Edit").click()
    assert tab.locator(".turn").count() == 0
    assert tab.input_value("#question") == "nested"


def test_settings_travel_and_are_held_to_their_range(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    tab.click("#settings")
    tab.fill("#option-max_branches", "3")
    tab.select_option("#option-guard", "false")
    tab.fill("#option-temperature", "0.5")
    answered(tab, "hello")
    body = app.state.asked[-1]
    assert body["multiverse"] == {"max_branches": 3, "guard": False, "stream": "branches"}
    assert (body["temperature"], body["seed"], "max_tokens" in body) == (0.5, 0, False)
    asked = len(app.state.asked)
    tab.fill("#option-max_branches", "17")
    tab.fill("#question", "hello")
    tab.keyboard.press("Enter")
    tab.wait_for_timeout(200)
    assert len(app.state.asked) == asked
    assert tab.evaluate("document.activeElement.id") == "option-max_branches"


def test_a_reload_keeps_the_conversation(tab: Any, url: str) -> None:
    tab.goto(url)
    before = answered(tab, "nested").locator(".answer").inner_text()
    tab.reload()
    card = tab.locator(".card")
    card.wait_for()
    assert card.locator(".answer").inner_text() == before
    assert "100" in card.locator(".figures").inner_text()


def test_copies(tab: Any, url: str) -> None:
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.goto(url)
    card = answered(tab, "nested")
    card.get_by_role("button", name="Copy text").click()
    card.get_by_role("button", name="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == linear("nested")
    card.get_by_role("button", name="Copy Markdown").click()
    tab.wait_for_timeout(100)
    assert "> > **2.1** part 2.1" in tab.evaluate("navigator.clipboard.readText()")


def test_a_shared_run_replays_without_a_server(tab: Any, url: str, tmp_path: Path) -> None:
    tab.goto(url)
    card = answered(tab, "hostile 0.002")
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


def test_a_phone(browser: Any, url: str) -> None:
    context = browser.new_context(viewport={"width": 375, "height": 720}, has_touch=True)
    tab = context.new_page()
    tab.goto(url)
    answered(tab, "sixteen")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    boxes = [box.bounding_box() for box in tab.locator(".column").all()]
    assert len({box["x"] for box in boxes}) == 1 and all(box["width"] > 300 for box in boxes)
    context.close()


def test_by_keyboard_alone(tab: Any, url: str) -> None:
    tab.goto(url)
    tab.wait_for_selector(".example")
    tab.locator("#new").focus()
    seen = []
    for _ in range(9):
        seen.append(tab.evaluate("document.activeElement.id || document.activeElement.className"))
        tab.keyboard.press("Tab")
    assert seen[:4] == ["new", "trace-file", "settings", "theme"]
    assert seen.count("example") == 3 and "question" in seen
    ask(tab, "slow 0.02")
    tab.wait_for_selector(".column.growing")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#send:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_finding(browser: Any, url: str, scheme: str) -> None:
    axe = os.environ.get("AXE") or shutil.which("axe.min.js")
    if not axe or not Path(axe).is_file():
        pytest.skip("axe-core is not installed; AXE names its axe.min.js")
    # Its policy would keep the checker out.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    tab.goto(url)
    tab.wait_for_selector(".example")
    found = violations(tab, axe)
    answered(tab, "nested")
    tab.locator(".card").get_by_text("Linear text").click()
    tab.click("#settings")
    found += violations(tab, axe)
    context.close()
    assert found == []


def violations(tab: Any, axe: str) -> list[str]:
    tab.wait_for_timeout(500)  # no colour is in transition
    if not tab.evaluate("'axe' in window"):
        tab.add_script_tag(path=axe)
    result = tab.evaluate("axe.run()")
    return [
        f"{found['impact']} {found['id']}: {found['nodes'][0]['html'][:120]}"
        for found in result["violations"]
    ]


def test_ten_thousand_tokens_scroll_smoothly(tab: Any, url: str) -> None:
    tab.goto(url)
    tab.evaluate(
        """() => {
          window.frames_ = [];
          let last = performance.now();
          const step = (now) => {
            window.frames_.push(now - last);
            last = now;
            requestAnimationFrame(step);
          };
          requestAnimationFrame(step);
        }"""
    )
    card = ask(tab, "long 0.004 16")
    tab.wait_for_selector("#send:visible")
    growing = sorted(tab.evaluate("window.frames_.splice(0)"))
    assert card.locator(".column").count() == 4
    card.get_by_role("button", name="unfold").click()
    tab.wait_for_timeout(200)
    tab.evaluate("window.frames_.splice(0)")
    for _ in range(60):
        tab.mouse.wheel(0, 400)
        tab.wait_for_timeout(16)
    scrolling = sorted(tab.evaluate("window.frames_.splice(0)"))
    for name, frames in (("growing", growing), ("scrolling", scrolling)):
        middle, most = frames[len(frames) // 2], frames[int(len(frames) * 0.95)]
        print(
            f"{name}: {len(frames)} frames, median {middle:.1f} ms, 95 % below {most:.1f} ms, "
            f"longest {frames[-1]:.1f} ms"
        )
    assert scrolling[len(scrolling) // 2] < 34
    assert growing[len(growing) // 2] < 67
