"""Texts for the property tests, as token ids: tag soup, well-formed texts, and damaged ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sglang_multiverse.structure import MULTIVERSE, NPR, THREADWEAVER, Dialect, TagTable

from .definition import Reading

# More examples and fresh ones: STRUCTURE_TEST_SCALE=20 pytest test/structure
SCALE = int(os.environ.get("STRUCTURE_TEST_SCALE", "1"))


def quick(examples: int) -> Callable[[Any], Any]:
    """The same examples on every run, unless a scale is set."""
    return settings(
        max_examples=examples * SCALE,
        deadline=None,
        database=None,
        derandomize=SCALE == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Vocabulary:
    """Token ids of one dialect: its tags from 10 on, anything else is an ordinary word."""

    ordinary = (0, 1, 2, -1, 10**9)
    eos = 2

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.ids = {tag: 10 + i for i, tag in enumerate(dialect.tags)}
        self.tags = TagTable.from_ids(dialect, self.ids)
        self.tag_ids = tuple(self.ids.values())
        self._words = {token: tag for tag, token in self.ids.items()}

    def __repr__(self) -> str:
        return f"Vocabulary({self.dialect.name})"

    def words(self, ids: Sequence[int]) -> list[str]:
        return [self._words.get(token, f"w{token}") for token in ids]

    def reading(self, ids: Sequence[int]) -> Reading:
        return Reading(self.words(ids), self.dialect)

    def encode(self, text: str) -> list[int]:
        """Ids of words separated by white space; words other than tags become ordinary."""
        return [self.ids.get(word, 0) for word in text.split()]


VOCABULARIES = tuple(Vocabulary(dialect) for dialect in (MULTIVERSE, NPR, THREADWEAVER))
M, N, T = VOCABULARIES


class Tape:
    """Choices read from bytes, zeros behind the end: one cheap draw per text, and it shrinks."""

    def __init__(self, choices: bytes) -> None:
        self._choices = iter(choices)

    def below(self, n: int) -> int:
        return next(self._choices, 0) % n

    def pick(self, items: Sequence[int]) -> int:
        return items[self.below(len(items))]


class _Author:
    """Writes well-formed texts; nests up to three deep, and less as a text grows."""

    def __init__(self, v: Vocabulary, tape: Tape) -> None:
        self.v, self.tape = v, tape
        self.text: list[int] = []

    def tag(self, tag: str) -> None:
        self.text.append(self.v.ids[tag])

    def filler(self, most: int = 2) -> None:
        for _ in range(self.tape.below(most + 1)):
            self.text.append(self.tape.pick(Vocabulary.ordinary))

    def prose(self, depth: int) -> None:
        self.filler()
        if depth > 0 and len(self.text) < 60:
            for _ in range(self.tape.below(3)):
                self.block(depth)
                self.filler()

    def block(self, depth: int) -> None:
        d = self.v.dialect
        outlines = 1 + self.tape.below(3)
        if d.block is not None:
            self.tag(d.block.open)
            self.filler(1)
        self.tag(d.goal.open)
        self.filler(1)
        for _ in range(outlines):
            self.tag(d.outline.open)
            self.filler()
            self.tag(d.outline.close)
            self.filler(1)
        self.tag(d.goal.close)
        for _ in range(outlines):
            self.filler(1)
            self.tag(d.branch.open)
            self.prose(depth - 1)
            self.tag(d.branch.close)
        self.filler(1)
        if d.conclusion is not None:
            self.tag(d.conclusion.open)
            self.filler()
            self.tag(d.conclusion.close)
        if d.block is not None:
            self.filler(1)
            self.tag(d.block.close)

    def whole(self) -> list[int]:
        think = self.v.dialect.think if self.tape.below(3) == 2 else None
        if think is not None:
            self.tag(think.open)
        self.filler()
        self.block(3)
        self.prose(3)
        if think is not None:
            self.tag(think.close)
        self.filler()
        return self.text


def _damage(v: Vocabulary, text: list[int], tape: Tape) -> list[int]:
    """Lose, add, repeat or exchange tags, or cut the end off."""
    for _ in range(1 + tape.below(4)):
        tags_at = [i for i, token in enumerate(text) if token in v.tag_ids] or [0]
        at, other = tape.pick(tags_at), tape.pick(tags_at)
        if not text:
            break
        match tape.below(6):
            case 0:
                del text[at]
            case 1:
                text[at] = tape.pick(v.tag_ids + Vocabulary.ordinary)
            case 2:
                text.insert(at, tape.pick(v.tag_ids))
            case 3:
                text[at], text[other] = text[other], text[at]
            case 4:
                text[at:at] = text[min(at, other) : max(at, other) + 1][:40]
            case 5:
                del text[at + 1 :]
    return text


def soup(v: Vocabulary, most: int = 60) -> st.SearchStrategy[list[int]]:
    """Tags and words in any order."""
    items = v.tag_ids + Vocabulary.ordinary
    return st.binary(max_size=most).map(lambda tape: [items[b % len(items)] for b in tape])


def well_formed_texts(v: Vocabulary) -> st.SearchStrategy[list[int]]:
    return st.binary(max_size=150).map(lambda choices: _Author(v, Tape(choices)).whole())


def damaged_texts(v: Vocabulary) -> st.SearchStrategy[list[int]]:
    return st.builds(
        lambda choices, damage: _damage(v, _Author(v, Tape(choices)).whole(), Tape(damage)),
        st.binary(max_size=150),
        st.binary(max_size=20),
    )


def texts(v: Vocabulary) -> st.SearchStrategy[list[int]]:
    return st.one_of(soup(v), well_formed_texts(v), damaged_texts(v))


def with_vocabulary(
    make: Callable[[Vocabulary], st.SearchStrategy[list[int]]],
) -> st.SearchStrategy[tuple[Vocabulary, list[int]]]:
    """A dialect and a text in it; Multiverse half of the time."""
    return st.sampled_from((M, M, N, T)).flatmap(lambda v: st.tuples(st.just(v), make(v)))


any_text = with_vocabulary(texts)
any_well_formed = with_vocabulary(well_formed_texts)
