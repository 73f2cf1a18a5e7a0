"""What the pages say, held against the code: commands, options, tables. Nothing is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.arguments import check, commands_in, sglang_parser
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


_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*\w(?![\w-])")


def prose_of(page: str) -> str:
    """A page without its blocks, and without what other engines call their options."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    if page.endswith("coming-from.md"):
        text = "\n".join(line.split("|", 2)[-1] for line in text.splitlines())
    return text


def options_of(*tables: str) -> set[str]:
    """The options in tables of options.md, made from the code; of all if none is named."""
    text = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    found: set[str] = set()
    for name in tables:
        body = text.split(f"<!-- made from: {name} -->", 1)[1].split("<!-- made -->", 1)[0]
        found |= set(_FLAG.findall(body))
    return found or set(_FLAG.findall(text))


# Options of programs that are not here: pip and uv, docker, sglang-router.
THEIRS = {
    *("--help", "--no-deps", "--torch-backend"),
    *("--build", "--gpus", "--shm-size"),
    *("--cache-threshold", "--dp"),
}


def test_options_that_a_page_names_exist() -> None:
    """SGLang's, ours, or those of a script of this repository."""
    known = options_of() | {flag for a in sglang_parser()._actions for flag in a.option_strings}
    sources = [*(ROOT / "benchmark").rglob("*.py"), *(ROOT / "benchmark").rglob("*.sh")]
    sources += [*(ROOT / "docker").rglob("*.*"), *(ROOT / "deploy").rglob("*.*")]
    sources += [*(ROOT / "test").rglob("*.py"), *(ROOT / "scripts").rglob("*.*")]
    known |= {flag for path in sources for flag in _FLAG.findall(path.read_text(errors="replace"))}
    named = {flag: page for page in PAGES for flag in _FLAG.findall(prose_of(page))}
    assert len(named) > 100
    unknown = {flag: page for flag, page in named.items() if flag not in known}
    assert not unknown.keys() - THEIRS, unknown


@pytest.mark.parametrize(
    ("page", "heading", "table"),
    [
        ("docs/curator.md", "## Sources and settings", "curator run"),
        ("docs/training.md", "## Settings", "training"),
    ],
)
def test_settings_that_a_page_explains_are_the_command_s(
    page: str, heading: str, table: str
) -> None:
    rows = prose_of(page).split(f"{heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    named = {
        "--" + name.removeprefix("--").replace("_", "-")
        for cell in cells
        for name in re.findall(r"`(-*[a-z][\w-]*)", cell)
    }
    assert named and named <= options_of(table)
