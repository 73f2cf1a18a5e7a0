"""The autoregressive twin of a solution: the same words without the structure."""

from __future__ import annotations

from sglang_multiverse.structure import MULTIVERSE, Dialect


def sequential_text(solution: str, dialect: Dialect = MULTIVERSE) -> str:
    """The solution without the dialect's tags and without the lines that they leave empty.

    The baseline of every comparison is trained on it, so that it differs from
    the Multiverse model in the tags and the attention alone.
    """
    for tag in dialect.tags:
        solution = solution.replace(tag, "")
    lines = (line.rstrip() for line in solution.splitlines())
    return "\n".join(line for line in lines if line)
