"""The page as one file that needs no server: styles, scripts and data inside.

The modules are joined by rewriting their imports and exports, which are of the plain forms
`import { a, b } from "./x.js";` and `export function|class|const`: each module becomes a
function that returns what it exports, called once, in the order of need.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from .files import File, page_files

DATA_SLOT = "@@DATA@@"
_OFFLINE = "offline.html"
_ENTRY = "js/offline.js"
_MATHS = "vendor/katex.min.js"
_IMPORT = re.compile(r'^import \{([^}]+)\} from "\./([\w-]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function\*?|class|const) (\w+)", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)


class BundleError(ValueError):
    """A module imports or exports in a form that cannot be joined; the message names the line."""


def offline_page(data: Mapping[str, Any]) -> str:
    """The page with `data` in it: `title`, and `runs` as `static/js/run.js` describes them."""
    return offline_template().replace(DATA_SLOT, inert_json(data))


def inert_json(data: Mapping[str, Any]) -> str:
    """JSON that ends no element and opens no comment, wherever it stands in a page."""
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


@cache
def offline_template() -> str:
    """The page with `DATA_SLOT` where the data go. Its own policy lets only its own script run."""
    found = page_files()
    script = join_modules(found, _ENTRY)
    maths = _text(found, _MATHS)
    styles = _text(found, "style.css")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(maths)} {_hash(script)}",
            f"style-src {_hash(styles)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    page = _text(found, _OFFLINE)
    for slot, text in (
        ("@@POLICY@@", policy),
        ("@@STYLE@@", styles),
        ("@@MATHS@@", maths),
        ("@@SCRIPT@@", script),
    ):
        page = page.replace(slot, text)
    return page


def join_modules(found: Mapping[str, File], entry: str) -> str:
    """One script that does what the module `entry` and those it imports do.

    Raises:
        BundleError: a module cannot be joined.
    """
    parts: dict[str, str] = {}
    _join(found, entry, parts)
    return '"use strict";\n' + "\n".join(parts.values())


def _join(found: Mapping[str, File], name: str, parts: dict[str, str]) -> None:
    folder = name.rpartition("/")[0]
    source = _text(found, name)
    for match in _IMPORT.finditer(source):
        needed = f"{folder}/{match[2]}"
        if needed not in parts:
            _join(found, needed, parts)
    exports = [match[2] for match in _EXPORT.finditer(source)]
    body = _EXPORT.sub(r"\1 \2", source)
    body = _IMPORT.sub(lambda match: f"const {{{match[1]}}} = {_variable(match[2])};", body)
    if other := _OTHER.search(body):
        raise BundleError(f"{name}: {other[0]!r}: only plain named imports and exports")
    parts[name] = (
        f"const {_variable(name.rpartition('/')[2])} = (() => {{\n{body}\n"
        f"return {{ {', '.join(exports)} }};\n}})();"
    )


def _variable(file: str) -> str:
    return "$" + file.removesuffix(".js").replace("-", "_")


def _text(found: Mapping[str, File], name: str) -> str:
    return found[name].body.decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
