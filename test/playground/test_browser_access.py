"""The page for everyone: phones, keyboards, screen readers, and very long answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from playground.browsing import answered, ask

pytestmark = pytest.mark.timeout(300)


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
    axe = os.environ.get("AXE", "")
    if not Path(axe).is_file():
        pytest.skip("axe-core is not installed: the variable AXE is to name its axe.min.js")
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
    tab.wait_for_selector(".example")
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
    tab.wait_for_timeout(500)
    empty = sorted(tab.evaluate("window.frames_.splice(0)"))  # what the machine can do just now
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
    for name, frames in (("empty", empty), ("growing", growing), ("scrolling", scrolling)):
        middle, most = frames[len(frames) // 2], frames[int(len(frames) * 0.95)]
        print(
            f"{name}: {len(frames)} frames, median {middle:.1f} ms, 95 % below {most:.1f} ms, "
            f"longest {frames[-1]:.1f} ms"
        )
    usual = max(17.0, empty[len(empty) // 2])
    assert scrolling[len(scrolling) // 2] <= 2 * usual
    assert growing[len(growing) // 2] <= 4 * usual
