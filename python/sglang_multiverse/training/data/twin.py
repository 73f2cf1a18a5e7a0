"""The autoregressive twin of a solution: the same words without the structure."""

from __future__ import annotations

from sglang_multiverse.structure import MULTIVERSE, Dialect, tag_pattern


def sequential_text(solution: str, dialect: Dialect = MULTIVERSE) -> str:
    """The solution without the dialect's tags and without the lines that they leave empty.

    The baseline of every comparison is trained on it, so that it differs from
    the Multiverse model in the tags and the attention alone. Lines without tags
    are kept as they are, empty ones too.
    """
    tags = tag_pattern(dialect)
    pairs = [(line, tags.sub("", line).rstrip()) for line in solution.split("\n")]
    return "\n".join(bare for line, bare in pairs if bare or not line.strip())
