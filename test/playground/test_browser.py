"""The page in a real browser, against a scripted model: what a person sees and can do."""

from __future__ import annotations

from typing import Any

import pytest

from playground.app import REFUSED, linear
from playground.browsing import answered, ask, eventually

pytestmark = pytest.mark.timeout(300)


def test_the_page_opens_with_examples_and_asks_no_one_else(tab: Any, url: str) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(url)
    tab.wait_for_selector(".example")
    assert tab.locator(".example").count() == 3
    assert tab.locator("#model").inner_text() == "scripted"
    root = url.removesuffix("playground")
    assert len(asked) > 10 and all(address.startswith(root) for address in asked)


def test_a_nested_answer(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    card = ask(tab, "nested hold 2.2")
    card.locator('[data-key="2:2.2"].growing').wait_for()
    assert "2.1, 2.2" in card.locator(".status").inner_text()
    app.state.go.set()
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


def test_sixteen_branches(tab: Any, url: str, app: Any) -> None:
    tab.goto(url)
    card = ask(tab, "sixteen hold 16")
    card.locator(".column.growing").nth(15).wait_for()
    assert "decoding 16 branches" in card.locator(".status").inner_text()
    app.state.go.set()
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
    card.locator(".column.growing").nth(2).wait_for()
    tab.click("#stop")
    tab.wait_for_selector("#send:visible")
    assert "Stopped." in card.inner_text()
    assert card.locator(".state", has_text="cut off").count() == 3
    eventually(tab, lambda: app.state.gone == gone + 1)


def test_an_error_of_the_server_is_shown_as_it_says_it(tab: Any, url: str) -> None:
    tab.goto(url)
    card = answered(tab, "refused")
    assert card.locator("[role=alert]").inner_text() == REFUSED
    assert answered(tab, "hello").locator(".answer").inner_text() == "You said hello."
    assert "400" in tab.complaints.pop()  # the browser's own note of it


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
