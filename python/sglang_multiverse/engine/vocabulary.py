"""What the engine knows of the served model's language."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..structure import MULTIVERSE, Dialect, TagTable, resolve_tags


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tags of the served model, and the texts the engine forces, as token ids.

    Attributes:
        eos_ids: tokens that end an answer; in a branch they end the branch.
        tags_are_special: the tokenizer drops the tags when it skips special
            tokens, so that requests must ask it not to.
    """

    tags: TagTable
    tokenizer: Any
    eos_ids: frozenset[int]
    tags_are_special: bool

    @classmethod
    def of(
        cls, tokenizer: Any, eos_ids: set[int] | None, dialect: Dialect = MULTIVERSE
    ) -> Vocabulary:
        """Raises `MissingTagsError` for a model that does not speak the dialect."""
        tags = resolve_tags(tokenizer, dialect)
        ends = set(eos_ids or ())
        if tokenizer.eos_token_id is not None:
            ends.add(tokenizer.eos_token_id)
        ends |= set(getattr(tokenizer, "additional_stop_token_ids", None) or ())
        return cls(tags, tokenizer, frozenset(ends), drops_tags(tokenizer, tags))

    def branch_header(self, label: str) -> tuple[int, ...]:
        return _encode(self.tokenizer, self.tags.dialect.branch_header(label))

    @property
    def conclusion_header(self) -> tuple[int, ...]:
        return _encode(self.tokenizer, self.tags.dialect.conclusion_header)

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))


def drops_tags(tokenizer: Any, tags: TagTable) -> bool:
    """Whether the tokenizer drops the tags when it skips special tokens."""
    return not tags.role_of.keys().isdisjoint(tokenizer.all_special_ids)


@lru_cache(maxsize=1024)
def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text, add_special_tokens=False))
