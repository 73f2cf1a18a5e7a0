"""The page in a real browser on a real server: nothing between them is made up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from asking import user
from models.problems import answer, generate
from server import Server

pytestmark = pytest.mark.server

NESTED = generate(3, "held-out", "nested")


def ask(tab: Any, server: Server, question: str) -> Any:
    tab.goto(f"{server.url}/playground")
    tab.wait_for_selector("#option-max_depth", state="attached")
    tab.fill("#question", question)
    tab.keyboard.press("Enter")
    return tab.locator(".card")


def running(server: Server) -> int:
    load = server.http.get("/v1/loads").json()["loads"][0]
    return int(load["num_running_reqs"] + load["num_waiting_reqs"] + load["num_used_tokens"])


def becomes_idle(server: Server) -> bool:
    """The report is a snapshot that the scheduler renews every few steps."""
    server.flush()
    for _ in range(600):
        if running(server) == 0:
            return True
        time.sleep(0.1)
    return False


def test_a_nested_answer_is_the_one_that_other_clients_get(tab: Any, server: Server) -> None:
    card = ask(tab, server, NESTED.prompt)
    tab.wait_for_selector("#send:visible")
    body = {"model": "default", "messages": user(NESTED.prompt), "temperature": 0}
    choice = server.http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert card.locator(".column .column").count() >= 2
    assert card.locator(".column.closed").count() == choice["multiverse"]["branches"]
    figures = card.locator(".figures").inner_text().split()
    for key in ("tokens", "critical_path_tokens"):
        assert str(choice["multiverse"][key]) in figures
    card.get_by_text("Linear text").click()
    assert card.locator("pre.linear").inner_text() == choice["message"]["content"]
    # The lanes are measured in tokens, of which the server counted as many.
    steps = tab.evaluate(
        "[...document.querySelectorAll('rect.bar title')]"
        ".map((title) => parseInt(title.textContent.split(': ')[1]))"
    )
    assert abs(sum(steps) - choice["multiverse"]["tokens"]) <= 1  # the end token has no text


def test_one_at_a_time_says_the_same_text(tab: Any, server: Server) -> None:
    card = ask(tab, server, NESTED.prompt)
    tab.wait_for_selector("#send:visible")
    card.get_by_role("button", name="One at a time").click()
    card.locator("rect.bar.other").first.wait_for()
    runs = tab.evaluate("JSON.parse(sessionStorage.getItem('conversation'))[0]")
    one, other = (
        "".join(text for _, path, text in runs[name]["pieces"] if path == "")
        for name in ("run", "other")
    )
    assert one == other
    assert runs["run"]["summary"]["tokens"] == runs["other"]["summary"]["tokens"]
    assert runs["other"]["summary"]["max_concurrent_branches"] == 1


def paused_amid_branches(tab: Any, server: Server) -> Any:
    """The card of an answer whose branches grow, on a server that is paused.

    The server decodes for moments; one that had answered before a branch was seen is asked again.
    """
    for _ in range(20):
        pause(server)
        tab.goto("about:blank")
        card = ask(tab, server, NESTED.prompt)
        while tab.locator("#stop").is_visible():
            go_on(server)
            pause(server)
            tab.wait_for_timeout(200)
            if card.locator(".column.growing").count():
                return card
        go_on(server)
        tab.click("#new")
    raise AssertionError("no branch was seen while it grew")


def pause(server: Server) -> None:
    server.http.post("/pause_generation", json={"mode": "in_place"}).raise_for_status()


def go_on(server: Server) -> None:
    server.http.post("/continue_generation", json={}).raise_for_status()


def test_stop_in_mid_branch_frees_the_family(tab: Any, server: Server) -> None:
    card = paused_amid_branches(tab, server)
    tab.click("#stop")
    tab.wait_for_selector("#send:visible")
    go_on(server)
    assert "Stopped." in card.inner_text()
    assert "Answer:" not in card.locator(".answer").inner_text()
    assert becomes_idle(server)


def test_a_reload_in_mid_answer_frees_the_family(tab: Any, server: Server) -> None:
    paused_amid_branches(tab, server)
    tab.reload()
    tab.wait_for_selector("#option-max_depth", state="attached")
    go_on(server)
    assert becomes_idle(server)
    tab.click("#new")
    card = ask(tab, server, NESTED.prompt)
    tab.wait_for_selector("#send:visible")
    assert answer(NESTED) in card.locator(".answer").inner_text()


def test_a_refusal_of_the_real_server(tab: Any, server: Server) -> None:
    tab.goto(f"{server.url}/playground")
    tab.wait_for_selector("#option-max_tokens", state="attached")
    tab.click("#settings")
    tab.fill("#option-max_tokens", tab.get_attribute("#option-max_tokens", "max"))
    tab.fill("#question", NESTED.prompt)
    tab.keyboard.press("Enter")
    assert "context length" in tab.locator(".card [role=alert]").inner_text()
    tab.complaints.clear()
