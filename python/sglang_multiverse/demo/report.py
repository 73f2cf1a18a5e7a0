"""What the demo says when the answer is there: the text, the figures, the verdict."""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sglang_multiverse.structure import MULTIVERSE

from .client import Answer
from .transcript import TAG

PICTURE_WIDTH = 110
BATCHED = "max_concurrent_branches"
_PREFIX = re.compile(r"^answer\s*:", re.IGNORECASE)


def failure(answer: Answer) -> str | None:
    """Why this answer does not show what the demo is to show; `None` if it does."""
    if not answer.summary:
        return "the server says nothing of the answer's structure: it serves no forks"
    if not answer.summary["branches"]:
        return "the model answered without opening branches"
    if answer.summary[BATCHED] < 2:
        return "the answer has branches, but no two of them ran in the same decode batch"
    return None


def linear(answer: Answer) -> Panel:
    """The text as every other client gets it."""
    text = Text(answer.text.strip())
    for tag in MULTIVERSE.tags:
        text.highlight_words([tag], style="dim")
    return Panel(text, title="the answer, in linear form", title_align="left", box=box.HORIZONTALS)


def correctness(answer: Answer, expected: str) -> str:
    """The last line that is not only tags against the one expected; dress does not count."""
    lines = (TAG.sub("", line).strip() for line in answer.text.splitlines())
    last = next((line for line in reversed([*lines]) if line), "")
    right = _bare(last) == _bare(expected)
    return f"right: {last}" if right else f"wrong: {last!r}, expected {expected!r}"


def _bare(line: str) -> str:
    """`**Answer:** 1) 12;  2) -3.` → `1) 12; 2) -3`"""
    line = _PREFIX.sub("", line.strip().strip("*_`"))
    return " ".join(line.strip("*_` ").rstrip(".").split()).casefold()


def comparison(batched: Sequence[Answer], alone: Sequence[Answer]) -> Table:
    """The same prompt with its branches as a batch and one after another."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column()
    table.add_column("branches as a batch", justify="right")
    table.add_column("one at a time", justify="right")
    ours, theirs = batched[0].summary, alone[0].summary
    for name, key in (
        ("tokens generated", "tokens"),
        ("critical-path tokens", "critical_path_tokens"),
        ("degree of parallelism", "degree_of_parallelism"),
        ("parallel blocks", "blocks"),
        ("branches", "branches"),
        ("most branches decoded in one batch", BATCHED),
    ):
        table.add_row(name, _figure(ours.get(key)), _figure(theirs.get(key)))
    table.add_row(
        f"wall time, median of {len(batched)}",
        f"{_seconds(batched):.2f} s",
        f"{_seconds(alone):.2f} s",
    )
    table.add_row(
        "speed against one at a time", f"{_seconds(alone) / _seconds(batched):.2f}×", "1×"
    )
    same = {answer.text for answer in (*batched, *alone)}
    table.add_row("same text", "yes" if len(same) == 1 else "no", "")
    return table


def save_picture(path: Path, *shown: RenderableType) -> None:
    """An SVG that asks no other site for its fonts."""
    console = Console(record=True, file=io.StringIO(), width=PICTURE_WIDTH, force_terminal=True)
    console.print(Group(*shown))
    svg = console.export_svg(title="make demo")
    path.write_text(re.sub(r"@font-face {.*?}", "", svg, flags=re.DOTALL), "utf-8")


def _seconds(answers: Sequence[Answer]) -> float:
    return statistics.median(answer.seconds for answer in answers)


def _figure(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
