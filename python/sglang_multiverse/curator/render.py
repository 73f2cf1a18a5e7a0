"""A tree and its wording as Multiverse text, which is read back before it is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sglang_multiverse.structure import (
    MULTIVERSE,
    Statistics,
    TagTable,
    Tokenizer,
    break_tags,
    parse,
    walk,
)
from sglang_multiverse.training.data.blocks import block

from .errors import RejectedError
from .tree import Block, Body, Text, walk_blocks


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of a tree that are not the source's.

    Attributes:
        outlines: per block, in the order of `walk_blocks`, one per path.
        conclusions: per block.
        sentences: new words for some sentences, by number from 0.
    """

    outlines: tuple[tuple[str, ...], ...]
    conclusions: tuple[str, ...]
    sentences: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A block by name: `G2`, its paths `G2.1`, `G2.2`, …"""

    id: str
    block: Block

    @property
    def paths(self) -> list[tuple[str, Body]]:
        return [(f"{self.id}.{i}", path) for i, path in enumerate(self.block.paths, 1)]


def named_blocks(body: Body) -> list[Place]:
    """Every block with the name that prompts and answers use."""
    return [Place(f"G{i}", found) for i, found in enumerate(walk_blocks(body), 1)]


def sentence_text(number: int, sentences: Sequence[str], changed: Mapping[int, str]) -> str:
    """A sentence in its final words, with the white space that follows it in the source."""
    source = sentences[number]
    if number not in changed:
        return source
    return changed[number].strip() + source[len(source.rstrip()) :]


def words(text: Text, sentences: Sequence[str], changed: Mapping[int, str]) -> str:
    """A stretch in its final words."""
    return "".join(sentence_text(n, sentences, changed) for n in range(text.lo, text.hi))


def render(body: Body, sentences: Sequence[str], wording: Wording) -> str:
    """The Multiverse text of a tree; tags in the source's own words are broken."""
    rank = iter(range(len(wording.conclusions)))

    def parts(some: Body, label: str) -> str:
        texts = []
        for part in some:
            if isinstance(part, Text):
                text = break_tags(words(part, sentences, wording.sentences), MULTIVERSE)
                texts.append(text.strip())
            else:
                i = next(rank)
                inner = [parts(path, f"{label}{k}.") for k, path in enumerate(part.paths, 1)]
                texts.append(block(wording.outlines[i], inner, wording.conclusions[i], label))
        return "\n".join(text for text in texts if text)

    return parts(body, "")


def branches_of(body: Body) -> tuple[int, ...]:
    """Paths of each block, in the order of `structure.walk`."""
    return tuple(len(block.paths) for block in walk_blocks(body))


def check_structure(
    text: str, body: Body, tokenizer: Tokenizer, tags: TagTable
) -> tuple[int, Statistics]:
    """Read a rendered text back.

    Returns:
        Its tokens, and its statistics.

    Raises:
        RejectedError: it is not well formed or has other blocks than the tree.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    trace = parse(ids, tags)
    problems = list(trace.defects)
    found = tuple(len(block.branches) for block in walk(trace.blocks))
    if not problems and found != branches_of(body):
        problems.append(f"blocks of {found} paths instead of {branches_of(body)}")
    if problems:
        raise RejectedError(problems)
    return len(ids), trace.statistics()


def skeleton(body: Body) -> Wording:
    """No words at all around the source's, to measure a tree before they are written."""
    blocks = list(walk_blocks(body))
    return Wording(tuple(("",) * len(block.paths) for block in blocks), ("",) * len(blocks))
