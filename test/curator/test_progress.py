"""What a terminal shows while a run is on, and what a log gets."""

from __future__ import annotations

import io
import re

from rich.console import Console

from sglang_multiverse.curator.progress import Shown
from sglang_multiverse.curator.request import Reply


def shown(*, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, color_system=None)
    with Shown(console, 2) as bars:
        for _ in range(2):
            bars.called("graph", Reply("{}", "stop", 1000, 500))
        bars.stage_done("graph")
        bars.stage_failed("graph")
        bars.example_done("done")
        bars.example_done("failed")
    return file.getvalue()


def test_bars_have_tokens_failures_and_fates():
    last = shown(terminal=True).split("outline")[-1]
    assert re.search(r"graph .* 1/2 +2 calls, 3,000 tokens, 1 failed +[-:\d]+", last)
    assert re.search(r"examples .* 2/2 +1 done, 1 failed", last)
    assert re.search(r"plan .* 0/2", last)


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    from sglang_multiverse.curator import progress

    assert shown(terminal=False) == ""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    lines = shown(terminal=False).splitlines()
    assert lines[-1] == "2 of 2 examples: 1 done, 1 failed; 3,000 tokens"
