"""A parallel block as text: goal, paths, conclusion."""

from __future__ import annotations

from collections.abc import Sequence

from sglang_multiverse.structure import MULTIVERSE

OPENING = "Let's think in parallel."


def block(outlines: Sequence[str], paths: Sequence[str], conclusion: str, parent: str = "") -> str:
    """A block in the default dialect; labels count from 1 behind `parent`.

    The white space is the engine's: `Dialect.branch_header` and
    `Dialect.conclusion_header` are what it forces between the paths.
    """
    d = MULTIVERSE
    plan = "\n".join(
        f"{d.outline.open}\n{parent}{i}: {outline}\n{d.outline.close}"
        for i, outline in enumerate(outlines, 1)
    )
    work = "".join(
        f"{d.branch_header(f'{parent}{i}')} {path}\n{d.branch.close}"
        for i, path in enumerate(paths, 1)
    )
    assert d.block is not None
    assert d.conclusion is not None
    return (
        f"{OPENING}\n{d.block.open}\n{d.goal.open}\n{plan}\n{d.goal.close}{work}"
        f"{d.conclusion_header}{conclusion}\n{d.conclusion.close}\n{d.block.close}"
    )
