"""How tests ask on the page."""

from __future__ import annotations

from typing import Any


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
