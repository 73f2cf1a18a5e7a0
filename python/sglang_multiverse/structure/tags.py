"""The tags of a dialect as token ids of one tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .dialect import MULTIVERSE, Dialect, Role


class Tokenizer(Protocol):
    """The part of a `transformers` tokenizer that this room needs."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...


class MissingTagsError(ValueError):
    """The tokenizer does not hold every tag of the dialect as one token."""

    def __init__(self, dialect: Dialect, missing: tuple[str, ...]) -> None:
        self.dialect = dialect
        self.missing = missing
        super().__init__(
            f"the tokenizer lacks tags of the {dialect.name!r} dialect as single tokens: "
            + " ".join(missing)
        )


@dataclass(frozen=True, slots=True)
class TagTable:
    """Token ids ↔ roles for one tokenizer; a role absent from the dialect is absent here."""

    dialect: Dialect
    role_of: Mapping[int, Role]
    id_of: Mapping[Role, int]

    @classmethod
    def from_ids(cls, dialect: Dialect, ids: Mapping[str, int]) -> TagTable:
        """`ids` maps every tag string of `dialect` to its token id."""
        id_of = {role: ids[tag] for tag, role in dialect.roles.items()}
        if len(set(id_of.values())) != len(id_of):
            raise ValueError(f"two tags of the {dialect.name!r} dialect share a token id: {ids}")
        return cls(dialect, {token: role for role, token in id_of.items()}, id_of)

    def has_tags(self, ids: list[int]) -> bool:
        """Whether any of `ids` is a tag; cheap enough to ask of every prompt."""
        return not self.role_of.keys().isdisjoint(ids)


def _find_tag(tokenizer: Tokenizer, tag: str) -> int | None:
    """The id of `tag` if the tokenizer writes it as that one token."""
    token = tokenizer.convert_tokens_to_ids(tag)
    # What some tokenizers answer for a tag they lack, when asked for its id and when encoding it.
    unknown = getattr(tokenizer, "unk_token_id", None)
    if token is None or token == unknown:
        return None
    return token if list(tokenizer.encode(tag, add_special_tokens=False)) == [token] else None


def resolve_tags(tokenizer: Tokenizer, dialect: Dialect = MULTIVERSE) -> TagTable:
    """Find the dialect's tags in a tokenizer.

    Raises:
        MissingTagsError: a tag is absent or is split into several tokens.
    """
    found = {tag: _find_tag(tokenizer, tag) for tag in dialect.tags}
    missing = tuple(tag for tag, token in found.items() if token is None)
    if missing:
        raise MissingTagsError(dialect, missing)
    return TagTable.from_ids(
        dialect, {tag: token for tag, token in found.items() if token is not None}
    )


def add_tags(tokenizer: Any, dialect: Dialect = MULTIVERSE) -> int:
    """Add the tags a `transformers` tokenizer lacks, in the dialect's order.

    They are matched before any other tokenisation but are not marked
    `special`, so that decoding with `skip_special_tokens=True` (the default of
    every OpenAI-compatible server) keeps the structure in the text. Tags that
    are there already stay as the checkpoint has them.

    Returns:
        How many ids the vocabulary grew by; the model's embeddings must grow by as many.
    """
    from tokenizers import AddedToken

    size = len(tokenizer)
    tokenizer.add_tokens(
        [
            AddedToken(tag, normalized=False, special=False)
            for tag in dialect.tags
            if _find_tag(tokenizer, tag) is None
        ]
    )
    return len(tokenizer) - size
