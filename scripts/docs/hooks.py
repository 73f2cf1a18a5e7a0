"""What MkDocs is told beside mkdocs.yml: pages from outside `docs/`, and links as GitHub has them.

The README, the change log and others stand where a reader of the repository looks for them. Here
they become pages of the site, and a relative link between any two of them, which GitHub follows,
leads from page to page. A link to another file of the repository becomes its text, because the
site does not have that file; one to a file that there is not stays, and ends the strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
OUTSIDE = {
    "README.md": "project/overview.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmark/README.md": "project/benchmarks.md",
    "python/sglang_multiverse/bundled/MODEL_CARD.md": "project/model-card.md",
}
"""File of the repository → its page."""

_FILE_OF = {page: file for file, page in OUTSIDE.items()}
_LINK = re.compile(r"(?P<text>\[[^\]]*\])\((?P<link>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text, its links to files turned into links to pages; code is left alone."""
    src = page.file.src_uri
    parts, last = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_relinked(markdown[last : fence.start()], src), fence[0]]
        last = fence.end()
    return "".join([*parts, _relinked(markdown[last:], src)])


def _relinked(text: str, src: str) -> str:
    def relink(found: re.Match[str]) -> str:
        link = _target(found["link"], src)
        text = found["text"]
        return f"{text}({link}{found['anchor'] or ''})" if link is not None else text[1:-1]

    return _LINK.sub(relink, text)


def _target(link: str, src: str) -> str | None:
    """Where a link of the page `src` leads on the site; `None` if the site does not have it."""
    file = _FILE_OF.get(src, f"{DOCS}/{src}")
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(file), link))
    if aim in OUTSIDE:
        aim = OUTSIDE[aim]
    elif aim.startswith(f"{DOCS}/"):
        aim = aim.removeprefix(f"{DOCS}/")
    else:
        return None if (ROOT / aim).exists() else link
    return posixpath.relpath(aim, posixpath.dirname(src) or ".")
