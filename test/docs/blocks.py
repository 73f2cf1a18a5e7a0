"""The fenced blocks of a Markdown page, and what a comment before one says of it.

<!-- serves -->             the command is a server: it is started, and what follows asks it
<!-- not run: REASON -->    only parsed: every command must take its arguments
<!-- prints -->             no command: the block before prints this; `…` stands for anything
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL, PYTHON = "bash", "python"

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>serves|prints|not run)(?:: (?P<reason>[^>]+))? -->\n\n?)?"
    r"^(?P<fence>```|~~~)(?P<language>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `page` is relative to the repository, `line` that of its fence."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""

    @property
    def runs(self) -> bool:
        return self.is_command and not self.mark

    @property
    def is_command(self) -> bool:
        return self.language in (SHELL, PYTHON)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """The blocks of a page of the repository, or of a `text` given for it, in order."""
    if text is None:
        text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"],
            found["text"],
            found["mark"] or "",
            (found["reason"] or "").strip(),
        )
        for found in _BLOCK.finditer(text)
    ]


def missing(expected: str, printed: str) -> str:
    """The first line of `expected` that does not come, in order, in what was printed; or empty."""
    at = 0
    for line in filter(str.strip, expected.splitlines()):
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        found = re.compile(pattern).search(printed, at)
        if found is None:
            return line
        at = found.end()
    return ""
