"""Pictures of the playground for the docs, taken of a server that runs.

    python test/playground/screenshots.py --url http://127.0.0.1:30000 --out docs/playground
        [--traces FILE.jsonl] [--api-key KEY]

Needs what the browser tests need: playwright's Python package and Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


def ask_first_example(tab: Any, url: str) -> None:
    tab.goto(f"{url}/playground")
    tab.wait_for_selector("#option-max_depth", state="attached")
    tab.locator(".example").first.click()


def live(tab: Any, url: str, path: Path) -> None:
    """The moment to show: branches decode side by side, some of them within another."""
    ask_first_example(tab, url)
    tab.mouse.move(0, 0)
    tab.wait_for_function(
        """() => [...document.querySelectorAll(".column .column > .body")]
          .filter((body) => body.textContent.length > 8).length > 1"""
    )
    tab.screenshot(path=path)


def whole(tab: Any, path: Path) -> None:
    """The answer from its question to its actions; what floats over it would hide some of it."""
    tab.mouse.move(0, 0)
    tab.evaluate("document.activeElement.blur(); document.querySelector('footer').hidden = true")
    tab.evaluate("scrollTo(0, 0)")
    tab.wait_for_timeout(400)
    tab.screenshot(path=path, full_page=True)


def page(browser: Any, key: str, **how: Any) -> Any:
    """A page of its own that knows the key."""
    tab = browser.new_context(bypass_csp=True, **how).new_page()
    tab.add_init_script(key)
    tab.set_default_timeout(400_000)
    return tab


def take(new: Callable[..., Any], url: str, out: Path, traces: Path | None) -> None:
    tab = new(viewport=WIDE, device_scale_factor=1.5)
    live(tab, url, out / "live-light.png")
    tab.wait_for_selector("#send:visible")
    tab.get_by_role("button", name="One at a time").click()
    tab.locator("rect.bar.other").first.wait_for()
    tab.wait_for_selector("#send:visible")
    whole(tab, out / "answer-light.png")
    # The same conversation, in the other colours.
    tab.emulate_media(color_scheme="dark")
    whole(tab, out / "answer-dark.png")
    tab.context.close()
    tab = new(viewport=PHONE, device_scale_factor=2, has_touch=True)
    live(tab, url, out / "phone.png")
    tab.click("#stop")
    tab.wait_for_selector("#send:visible")
    tab.context.close()
    if traces is not None:
        tab = new(viewport=WIDE, device_scale_factor=1.5)
        tab.goto(f"{url}/playground")
        tab.set_input_files("#trace-file", traces)
        tab.locator(".trace-list button:has(.badge)").first.click()
        tab.wait_for_timeout(500)
        tab.evaluate("document.querySelector('footer').hidden = true; scrollTo(0, 0)")
        tab.screenshot(path=out / "traces.png")
        tab.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:30000")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--api-key", default="")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        key = f"sessionStorage.setItem('api-key', {json.dumps(args.api_key)})"
        take(partial(page, browser, key), args.url, args.out, args.traces)
        browser.close()
    for picture in args.out.glob("*.png"):
        shrink(picture)


def shrink(picture: Path) -> None:
    """As few colours as a page like this needs: a third of the bytes."""
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


if __name__ == "__main__":
    main()
