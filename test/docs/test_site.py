"""The site: it is built strictly, and read and searched without anything from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from docs.blocks import ROOT

CANNOT_INSTALL = 3  # build.sh's exit code
_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href)=\"([^\"]+)\""
)


def build(checkout: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "scripts/docs/build.sh", "build", *arguments],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == CANNOT_INSTALL:
        pytest.skip("MkDocs could not be installed")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    code, said = build(ROOT, "--site-dir", str(folder))
    assert code == 0, said
    return folder


def test_links_lead_from_page_to_page(site: Path) -> None:
    """Those of the README, too, which stands elsewhere in the repository."""
    text = (site / "project/overview.html").read_text()
    assert 'href="../requests.html"' in text and 'src="../demo.svg"' in text
    assert 'href="project/model-card.html"' in (site / "model.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        loaded = [one for one in _LOADED.findall(text) if re.match(r"(\w+:)?//", one)]
        assert not loaded, (page, loaded)
        # The theme's script would fetch what draws these.
        assert 'class="mermaid"' not in text, page
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", style.read_text()), style


@pytest.mark.parametrize(
    ("page", "text", "warning"),
    [
        ("docs/model.md", "[x](nowhere.md)", "nowhere.md"),
        ("docs/model.md", "[x](requests.md#nowhere)", "#nowhere"),
        ("docs/model.md", "![x](nowhere.png)", "nowhere.png"),
        ("README.md", "[x](docs/nowhere.md)", "nowhere.md"),
        ("docs/forgotten.md", "a page that is in no menu", "forgotten.md"),
    ],
)
def test_what_is_wrong_ends_the_build(
    site: Path, page: str, text: str, warning: str, tmp_path: Path
) -> None:
    """`site` is asked for so that a build which fails anyway is not taken for this."""
    for name in ("docs", "scripts/docs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    hooks = (ROOT / "scripts/docs/hooks.py").read_text()
    outside = re.findall(r'^    "([\w./]+\.md)": "project/', hooks, re.MULTILINE)
    assert "README.md" in outside
    for name in ("mkdocs.yml", *outside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / page).open("a") as file:
        file.write(f"\n{text}\n")
    code, said = build(tmp_path)
    assert code != 0 and warning in said, said


def test_it_is_searched_from_the_folder(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("max_critical_tokens")
    page.wait_for_selector(".md-search-result__link[href*='requests.html']", state="attached")
    page.close()
    assert asked and not [url for url in asked if not url.startswith("file:")]
    assert not errors
