"""The files of the page, each with the headers it is served with."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

INDEX = "index.html"
_MEDIA = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}
# Scripts and styles are files of ours, requests go to the server that sent the page, and the
# browser itself refuses to make markup of a string.
CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class File(NamedTuple):
    """`media` is the value of `Content-Type`."""

    media: str
    body: bytes


@cache
def page_files() -> dict[str, File]:
    """Path under the page, such as `js/main.js` → file. Nothing else is ever served."""
    return dict(_walk(files(__package__) / "static", ""))


def _walk(folder: Traversable, under: str) -> list[tuple[str, File]]:
    found: list[tuple[str, File]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = under + entry.name
        if entry.is_dir():
            found.extend(_walk(entry, f"{name}/"))
        elif (media := _MEDIA.get(name.rpartition(".")[2])) is not None:
            found.append((name, File(media, entry.read_bytes())))
    return found
