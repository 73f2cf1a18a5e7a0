"""What form an answer's text has: the blocks it opens, and whether it is well formed."""

from __future__ import annotations

from typing import NamedTuple

from ..structure import MULTIVERSE, TagTable, parse, tag_pattern, walk

_TAGS = {tag: number for number, tag in enumerate(MULTIVERSE.tags)}
_TABLE = TagTable.from_ids(MULTIVERSE, _TAGS)
_WORDS = len(_TAGS)
"""Stands for any text between two tags: how many tokens it has makes no difference to the form."""


class Form(NamedTuple):
    """The structure of a text.

    Attributes:
        branches: of each block, in the order of `structure.walk`.
        well_formed: as `structure.Trace` has it; so is text without a tag.
    """

    branches: tuple[int, ...]
    well_formed: bool


def read_form(text: str) -> Form:
    """The form of an answer, from its text alone: needs no tokenizer."""
    ids: list[int] = []
    end = 0
    for tag in tag_pattern(MULTIVERSE).finditer(text):
        ids += [_WORDS] * (tag.start() > end)
        ids.append(_TAGS[tag[0]])
        end = tag.end()
    ids += [_WORDS] * (len(text) > end)
    trace = parse(ids, _TABLE)
    return Form(tuple(len(block.branches) for block in walk(trace.blocks)), trace.well_formed)
