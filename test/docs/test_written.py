"""What the pages say, held against the code: commands, options, tables. Nothing is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.arguments import check, commands_in
from docs.blocks import PYTHON, ROOT, SHELL, Block, blocks_of

PAGES = ["README.md", "CONTRIBUTING.md"] + [
    str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))
]
BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@pytest.mark.parametrize("page", sorted({b.page for b in BLOCKS if b.language == SHELL}))
def test_commands_take_their_arguments(page: str, tmp_path: Path) -> None:
    """All of a page together: a block may use what one before it has set."""
    blocks = [block.text for block in BLOCKS if block.page == page and block.language == SHELL]
    commands = commands_in("".join(blocks), tmp_path)
    assert commands
    for command in commands:
        check(command)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == PYTHON], ids=str)
def test_code_is_code(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_every_block_says_what_it_is() -> None:
    """A fence without a language would be passed over; `text` says that it is no command."""
    assert not [str(block) for block in BLOCKS if not block.language]
    assert not [str(b) for b in BLOCKS if b.mark == "not run" and not b.reason]


def test_tables_made_from_the_code_are_as_the_code_is() -> None:
    """If this fails: `make docs-tables`."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/docs/reference.py", "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def options_of(*tables: str) -> set[str]:
    """The options in the tables of options.md that a page's own text may name."""
    text = (ROOT / "docs/options.md").read_text()
    found: set[str] = set()
    for name in tables:
        body = text.split(f"<!-- made from: {name} -->", 1)[1].split("<!-- made -->", 1)[0]
        found |= set(re.findall(r"`(--[a-z][\w-]*)`", body))
    return found


@pytest.mark.parametrize(
    ("page", "tables"),
    [
        ("docs/curator.md", ("curator run",)),
        (
            "docs/evaluation.md",
            ("evaluation run", "evaluation budget", "evaluation latency", "evaluation report"),
        ),
    ],
)
def test_options_that_a_page_explains_exist(page: str, tables: tuple[str, ...]) -> None:
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`(--[a-z][\w-]*)", prose)) - {"--help"}
    # Of other programs: pip's, and a benchmark's.
    unknown = named - options_of(*tables) - {"--no-deps", "--tokens", "--examples"}
    assert named and not unknown


def test_settings_that_training_explains_exist() -> None:
    from sglang_multiverse.training.config import hints

    text = (ROOT / "docs/training.md").read_text().split("## Settings", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named and named <= set(hints())
