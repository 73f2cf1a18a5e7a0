"""A tokenizer without a vocabulary file, so that data can be verified before there is a model."""

from __future__ import annotations

import re

from sglang_multiverse.structure import MULTIVERSE, Dialect, TagTable, resolve_tags


class Pieces:
    """Tags, words, single digits and signs, numbered as they come.

    It reads structure exactly as any tokenizer with the tags does. Its counts
    are near those of a byte-pair tokenizer on this text, and are not the same.
    """

    def __init__(self, dialect: Dialect = MULTIVERSE) -> None:
        self._ids: dict[str, int] = {tag: i for i, tag in enumerate(dialect.tags)}
        tags = "|".join(map(re.escape, dialect.tags))
        self._piece = re.compile(rf"{tags}| ?[A-Za-z]+|\d|\n| |[^\w\s]|.", re.DOTALL)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [self._ids.setdefault(p, len(self._ids)) for p in self._piece.findall(text)]

    def convert_tokens_to_ids(self, tokens: str) -> int | None:
        return self._ids.get(tokens)


def pieces(dialect: Dialect = MULTIVERSE) -> tuple[Pieces, TagTable]:
    """A tokenizer and its tags."""
    tokenizer = Pieces(dialect)
    return tokenizer, resolve_tags(tokenizer, dialect)
