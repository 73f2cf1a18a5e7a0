"""How tests ask on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def eventually(tab: Any, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until `holds()`; the page goes on meanwhile."""
    for _ in range(int(seconds / 0.05)):
        if holds():
            return
        tab.wait_for_timeout(50)
    assert holds()


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
