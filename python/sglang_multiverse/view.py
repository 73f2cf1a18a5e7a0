"""`python -m sglang_multiverse.view FILE.jsonl|-`: traces as the playground shows answers.

Writes one HTML file that holds the page and the traces, opens without a server, and asks
nothing of any. The page reads the traces, by the same reading as `structure`.
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from sglang_multiverse.playground import offline_page

PROG = "python -m sglang_multiverse.view"


class ViewError(Exception):
    """The traces cannot be read or the page not written; the message says which and why."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description="Show Multiverse texts in a browser, and where malformed ones break."
    )
    parser.add_argument(
        "file",
        help="JSON lines whose text is under output, text, response, completion, answer or the "
        "last of messages; or one plain text; - reads standard input",
    )
    parser.add_argument(
        "--out", type=Path, help="the page (default: the file's name with .html, in this directory)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


def read_source(file: str) -> str:
    """Raises `ViewError` if there is nothing to read, or it is not text."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ViewError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ViewError(f"{file}: not UTF-8 text (byte {error.start})") from error
    if not text.strip():
        raise ViewError(f"{file}: holds no text")
    return text


def write_page(source: str, name: str, out: Path) -> None:
    """Raises `ViewError` if the page cannot be written."""
    try:
        out.write_text(offline_page({"title": name, "source": source}), encoding="utf-8")
    except OSError as error:
        raise ViewError(f"{out}: {error.strerror}") from error


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    name = "standard input" if args.file == "-" else Path(args.file).name
    out = args.out or Path("traces.html" if args.file == "-" else f"{Path(args.file).stem}.html")
    try:
        write_page(read_source(args.file), name, out)
    except ViewError as error:
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
    print(out)
    if args.open:
        webbrowser.open(out.resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
