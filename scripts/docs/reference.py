"""Writes the tables of the docs that the code has already: options, fields, metrics.

    .venv/bin/python scripts/docs/reference.py [--check]

A page says where with a pair of comments, `<!-- made from: NAME -->` and `<!-- made -->`; what
stands between them is replaced. `--check` writes nothing, and ends with 1 where a page is old.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from commands import COMMANDS, server_options
from fields import answer_fields, label_fields, request_fields, sequence_fields
from measures import metrics
from rooms import rooms

DOCS = Path(__file__).resolve().parents[2] / "docs"
REGION = re.compile(
    r"(?P<open><!-- made from: (?P<name>[\w ./-]+) -->\n)(?P<body>.*?)(?P<close><!-- made -->)",
    re.DOTALL,
)

TABLES: dict[str, Callable[[], str]] = {
    "server options": server_options,
    "request fields": request_fields,
    "answer fields": answer_fields,
    "label fields": label_fields,
    "sequence fields": sequence_fields,
    "metrics": metrics,
    "rooms": rooms,
    **{name: partial(command.table) for name, command in COMMANDS.items()},
}
"""What a page can name → the Markdown of it."""


class UnknownTableError(ValueError):
    """A page asks for a table that there is not."""


def renewed(text: str) -> str:
    """A page with its tables as the code has them now.

    Raises:
        UnknownTableError: naming the table and those there are.
    """

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise UnknownTableError(f"{name}: no such table; there are {', '.join(TABLES)}")
        return f"{match['open']}\n{TABLES[name]()}\n\n{match['close']}"

    return REGION.sub(table, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a page is old")
    args = parser.parse_args()
    old = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            old.append(page)
            if not args.check:
                page.write_text(new, encoding="utf-8")
    for page in old:
        print(page.relative_to(DOCS.parent), "is old" if args.check else "written")
    return int(args.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
