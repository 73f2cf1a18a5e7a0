"""What the words of a tree are held to: hard problems, and remarks on what could be better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sglang_multiverse.structure import MULTIVERSE, tag_pattern

from .facts import distance, dropped, invented
from .render import Wording, named_blocks, words
from .tree import Block, Body, Text, extent

LONG_OUTLINE = 240
LONG_CONCLUSION = 600
_SIBLING = re.compile(
    r"\b(?:(?:the )?(?:other|previous|next|first|second) path|paths? \d)\b", re.IGNORECASE
)
_THING = "(?:approach|attempt|candidate|case|idea|method|option|possibility|way)"
_PLACE = "(?:final|first|last|next|only|other|remaining|second|third)"
_ORDER = re.compile(
    r"(?:first|firstly|second|secondly|third|thirdly|next|then|finally|lastly|again|alternatively|"
    rf"similarly|likewise|meanwhile|on the other hand|(?:another|the {_PLACE}) {_THING}s?)\b[,: ]",
    re.IGNORECASE,
)


class PathPlace(NamedTuple):
    """A path with what it can see.

    Attributes:
        hidden: the stretches of the paths before it in its own and the outer blocks.
    """

    id: str
    body: Body
    hidden: tuple[Text, ...]


def paths_of(body: Body) -> list[PathPlace]:
    """Every path, in the order of the text, each before those inside it."""
    names = {id(place.block): place.id for place in named_blocks(body)}

    def walk(some: Body, hidden: tuple[Text, ...]) -> Iterator[PathPlace]:
        for part in some:
            if isinstance(part, Block):
                before: tuple[Text, ...] = ()
                for i, path in enumerate(part.paths, 1):
                    unseen = (*hidden, *before)
                    yield PathPlace(f"{names[id(part)]}.{i}", path, unseen)
                    yield from walk(path, unseen)
                    before = (*before, extent(path))

    return list(walk(body, ()))


def visible(question: str, sentences: Sequence[str], end: int, hidden: Sequence[Text]) -> str:
    """What a writer has seen by the end of sentence `end - 1`."""
    unseen = {n for text in hidden for n in range(text.lo, text.hi)}
    return question + "\n" + "".join(s for n, s in enumerate(sentences[:end]) if n not in unseen)


def plain_problems(name: str, text: str, *, one_line: bool = False) -> list[str]:
    """Why a text of the model cannot stand in an example."""
    problems = []
    if not text.strip():
        problems.append(f"{name}: is empty")
    if found := tag_pattern(MULTIVERSE).search(text):
        problems.append(f"{name}: holds the tag {found[0]}")
    if one_line and "\n" in text.strip():
        problems.append(f"{name}: is longer than a line")
    return problems


def wording_problems(
    question: str, sentences: Sequence[str], body: Body, wording: Wording
) -> list[str]:
    """Empty texts, tags, and numbers in conclusions that nothing before them has."""
    problems = []
    for place, outlines, conclusion in zip(
        named_blocks(body), wording.outlines, wording.conclusions, strict=True
    ):
        for (path, _), outline in zip(place.paths, outlines, strict=True):
            problems += plain_problems(f"the outline of {path}", outline, one_line=True)
        name = f"the conclusion of {place.id}"
        problems += plain_problems(name, conclusion)
        known = visible(question, sentences, extent((place.block,)).hi, ())
        problems += [
            f"{name}: the number {number} is neither in the question nor in the text before it"
            for number in invented(conclusion, known)
        ]
    return problems


def rewriting_problems(
    question: str,
    sentences: Sequence[str],
    body: Body,
    changed: Mapping[int, str],
    max_edit: float,
) -> list[str]:
    """What the rewritten paths lost, made up, or changed too much of."""
    problems = []
    for place in paths_of(body):
        whole = extent(place.body)
        if not any(whole.lo <= n < whole.hi for n in changed):
            continue
        source, new = words(whole, sentences, {}), words(whole, sentences, changed)
        problems += [f"{place.id}: lost {fact}" for fact in dropped(source, new)]
        known = visible(question, sentences, whole.hi, place.hidden)
        problems += [
            f"{place.id}: the number {number} is in nothing that this path can see"
            for number in invented(new, known)
        ]
        if (apart := distance(source, new)) > max_edit:
            problems.append(
                f"{place.id}: its edit distance to the source is {apart:.2f}, more than "
                f"{max_edit:g}; change fewer words"
            )
    return problems


def wording_remarks(sentences: Sequence[str], body: Body, wording: Wording) -> list[str]:
    """Outlines and conclusions that are long or speak of other paths."""
    remarks = []
    for place, outlines, conclusion in zip(
        named_blocks(body), wording.outlines, wording.conclusions, strict=True
    ):
        for (path, _), outline in zip(place.paths, outlines, strict=True):
            if len(outline) > LONG_OUTLINE:
                remarks.append(f"the outline of {path}: is long; say only what is to be found")
            if found := _SIBLING.search(outline):
                remarks.append(f"the outline of {path}: speaks of {found[0]!r}")
        size = sum(len(s) for s in sentences[_slice(place.block)])
        if len(conclusion) > max(LONG_CONCLUSION, size // 2):
            remarks.append(f"the conclusion of {place.id}: is long; say only what was found")
    return remarks


def path_remarks(sentences: Sequence[str], body: Body, changed: Mapping[int, str]) -> list[str]:
    """Paths that begin as one of a sequence or speak of other paths."""
    remarks = []
    for place in paths_of(body):
        text = words(extent(place.body), sentences, changed).lstrip()
        if found := _ORDER.match(text):
            remarks.append(f"{place.id}: begins with {found[0].strip()!r}, as one of a sequence")
        if found := _SIBLING.search(text):
            remarks.append(f"{place.id}: speaks of {found[0]!r}")
    return remarks


def _slice(block: Block) -> slice:
    whole = extent((block,))
    return slice(whole.lo, whole.hi)
