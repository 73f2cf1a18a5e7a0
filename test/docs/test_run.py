"""The commands of the README, the tutorial and the how-to, run as they are written, in order."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs.blocks import Block, blocks_of, missing
from docs.live import TUTORIAL, Live, TutorialServer, checkout, stop

PAGES = ("README.md", TUTORIAL, "docs/howto.md")
BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXPECTED = {
    before: after.text
    for before, after in pairwise(BLOCKS)
    if after.mark == "prints" and after.page == before.page
}
SECONDS = 600  # of one block, on a machine that is busy with other things


class Folders(defaultdict[str, Path]):
    """A folder for each page: a block finds what those before it have left."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, page: str) -> Path:
        self[page] = checkout(self.root / page.replace("/", "-"))
        return self[page]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("pages"))


# The server's start is in the first one's time.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ahead(job=TutorialServer()),
    pytest.mark.timeout(1300),
]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.runs], ids=str)
def test_a_block_runs(block: Block, ahead: Any, folders: Folders, tmp_path: Path) -> None:
    live: Live = ahead
    said = tmp_path / "said"
    process = live.start(block, folders[block.page], said)
    try:
        process.wait(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        stop(process)
    printed = said.read_text(errors="replace")
    assert process.returncode == 0, printed[-4000:]
    assert live.process.poll() is None, live.log.read_text(errors="replace")[-4000:]
    if block in EXPECTED:
        assert not missing(EXPECTED[block], printed), printed[-4000:]


def test_the_pages_have_what_is_run() -> None:
    """A page whose blocks no longer parse as such must not pass for one without any."""
    for page in PAGES:
        assert any(block.runs for block in BLOCKS if block.page == page), page
    assert sum(block.mark == "serves" for block in BLOCKS) == 1
    assert EXPECTED
