"""Pictures of the playground for the docs, taken of a server that runs.

    python test/playground/screenshots.py --url http://127.0.0.1:30000 --out docs/playground
        [--traces FILE.jsonl]

Needs what the browser tests need: playwright's Python package and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


def ask_first_example(tab: Any, url: str) -> None:
    tab.goto(f"{url}/playground")
    tab.wait_for_selector("#option-max_depth", state="attached")
    tab.locator(".example").first.click()


def whole(tab: Any, path: Path) -> None:
    """The answer from its question to its actions; what floats over it would hide some of it."""
    tab.mouse.move(0, 0)
    tab.evaluate("document.activeElement.blur(); document.querySelector('footer').hidden = true")
    tab.wait_for_timeout(400)
    tab.screenshot(path=path, full_page=True)


def take(browser: Any, url: str, out: Path, traces: Path | None) -> None:
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport=WIDE, color_scheme=scheme, device_scale_factor=1.5)
        tab = context.new_page()
        tab.set_default_timeout(180_000)
        ask_first_example(tab, url)
        # The moment to show: all branches decode, nested ones within theirs.
        tab.locator(".column .column.growing").nth(1).wait_for()
        tab.wait_for_timeout(2500)
        tab.screenshot(path=out / f"live-{scheme}.png")
        tab.wait_for_selector("#send:visible")
        if scheme == "light":
            tab.get_by_role("button", name="One at a time").click()
            tab.locator("rect.bar.other").first.wait_for()
            tab.wait_for_selector("#send:visible")
        whole(tab, out / f"answer-{scheme}.png")
        context.close()
    context = browser.new_context(viewport=PHONE, device_scale_factor=2, has_touch=True)
    tab = context.new_page()
    tab.set_default_timeout(180_000)
    ask_first_example(tab, url)
    tab.locator(".column .column.growing").nth(1).wait_for()
    tab.wait_for_timeout(2000)
    tab.screenshot(path=out / "phone.png")
    context.close()
    if traces is not None:
        context = browser.new_context(viewport=WIDE, device_scale_factor=1.5)
        tab = context.new_page()
        tab.goto(f"{url}/playground")
        tab.set_input_files("#trace-file", traces)
        tab.locator(".trace-list button:has(.badge)").first.click()
        tab.wait_for_timeout(500)
        tab.evaluate("document.querySelector('footer').hidden = true; scrollTo(0, 0)")
        tab.screenshot(path=out / "traces.png")
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:30000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--traces", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        take(browser, args.url, args.out, args.traces)
        browser.close()


if __name__ == "__main__":
    main()
