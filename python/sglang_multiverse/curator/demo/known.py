"""A Multiverse text taken apart: the sequential chain it came from, and what a good model
would answer at each stage to get it back. For the demo, the tests and the benchmark."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sglang_multiverse.structure import MULTIVERSE, Block, TagTable, parse, tag_pattern
from sglang_multiverse.training.data.blocks import OPENING

from ..sentences import split

_LABEL = re.compile(r"^\s*\d+(?:\.\d+)*\s*:\s*")
BETWEEN = "\n\n"
"""What stands between two parts of a chain."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text, or a block of paths."""

    text: str = ""
    paths: tuple[tuple[Part, ...], ...] = ()
    outlines: tuple[str, ...] = ()
    conclusion: str = ""


def take_apart(text: str) -> tuple[Part, ...]:
    """The parts of a well-formed text, without tags, labels and the words that open a block.

    Raises:
        ValueError: it is not well formed.
    """
    pattern = tag_pattern(MULTIVERSE)
    words: list[str] = []
    done = 0
    for match in pattern.finditer(text):
        words += [text[done : match.start()], match[0]]
        done = match.end()
    words.append(text[done:])
    ids = {tag: i for i, tag in enumerate(MULTIVERSE.tags)}
    trace = parse([ids.get(word, -1) for word in words], TagTable.from_ids(MULTIVERSE, ids))
    if trace.defects:
        raise ValueError("; ".join(trace.defects))

    def stretch(lo: int, hi: int) -> Iterator[Part]:
        bare = "".join(word for word in words[lo:hi] if word not in ids).strip()
        bare = bare.removesuffix(OPENING).strip()
        if bare:
            yield Part(bare)

    def parts(blocks: Sequence[Block], lo: int, hi: int) -> Iterator[Part]:
        for block in blocks:
            yield from stretch(lo, block.span.lo)
            assert block.conclusion is not None
            yield Part(
                paths=tuple(tuple(path(b.span.lo, b.span.hi, b.blocks)) for b in block.branches),
                outlines=tuple(
                    _LABEL.sub("", "".join(words[o.lo : o.hi])).strip() for o in block.outlines
                ),
                conclusion="".join(words[block.conclusion.lo : block.conclusion.hi]).strip(),
            )
            lo = block.span.hi
        yield from stretch(lo, hi)

    def path(lo: int, hi: int, blocks: Sequence[Block]) -> Iterator[Part]:
        first, *rest = parts(blocks, lo, hi)
        bare = Part(_LABEL.sub("", first.text, count=1)) if first.text else first
        yield from (part for part in (bare, *rest) if part.text or part.paths)

    return tuple(parts(trace.blocks, 0, len(words)))


@dataclass(frozen=True)
class Known:
    """What a good model answers about one chain.

    Attributes:
        rewrites: sentence as it stands in the chain → its words in the path.
    """

    question: str
    parts: tuple[Part, ...]
    answer: str = ""
    rewrites: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def chain(self) -> str:
        return BETWEEN.join(_texts(self.parts))

    @cached_property
    def steps(self) -> list[tuple[str, tuple[Part, ...], int]]:
        """Per main step: title, parts, and the number of the block it is a path of, or -1."""
        found: list[tuple[str, tuple[Part, ...], int]] = []
        for number, part in enumerate(self.parts):
            if part.paths:
                found += [
                    (title, path, number)
                    for title, path in zip(part.outlines, part.paths, strict=True)
                ]
            else:
                found.append((_title(part), (part,), -1))
        return found

    def answers(self, stage: str, problems: str = "") -> dict[str, Any]:
        """The answer of a stage; `problems` is what an earlier one was sent back with."""
        match stage:
            case "outline":
                return {"steps": [self._outlined(title, path) for title, path, _ in self.steps]}
            case "graph":
                return {"edges": list(self._edges())}
            case "refill":
                return {"spans": list(self._spans())}
            case "plan":
                return {"groups": list(self._plans(problems))}
            case "rewrite":
                return {"sentences": list(self._rewritten()), "outlines": [], "conclusions": []}
        raise ValueError(f"stage: {stage!r} is none")

    def _outlined(self, title: str, path: tuple[Part, ...]) -> dict[str, Any]:
        inner = [name for name, _ in _inner(path)] if len(path) > 1 or path[0].paths else []
        return {"title": title, "substeps": inner}

    def _edges(self) -> Iterator[dict[str, str]]:
        for i, (_, path, block) in enumerate(self.steps):
            for j, (_, _, other) in enumerate(self.steps[:i]):
                if block < 0 or other != block:
                    yield _edge(f"S{i + 1}", f"S{j + 1}")
            inner = _inner(path) if len(path) > 1 or path[0].paths else []
            for a, (_, of) in enumerate(inner):
                for b, (_, other) in enumerate(inner[:a]):
                    if of < 0 or other != of:
                        yield _edge(f"S{i + 1}.{a + 1}", f"S{i + 1}.{b + 1}")

    def _spans(self) -> Iterator[dict[str, Any]]:
        ends, at = [], 0
        for sentence in split(self.chain):
            at += len(sentence)
            ends.append(at)
        first, until = 1, 0
        for i, (_, path, _) in enumerate(self.steps):
            leaves = list(_texts(path))
            for j, text in enumerate(leaves, 1):
                until += len(text) + len(BETWEEN)
                last = ends.index(min(until, len(self.chain))) + 1
                name = f"S{i + 1}" if len(leaves) == 1 else f"S{i + 1}.{j}"
                yield {"step": name, "first": first, "last": last}
                first = last + 1

    def _plans(self, problems: str) -> Iterator[dict[str, Any]]:
        for i, block in enumerate(_blocks(self.parts), 1):
            conclusion = block.conclusion
            if f"the conclusion of G{i}: the number" in problems:
                conclusion = "Every path has been worked out."
            yield {"group": f"G{i}", "outlines": list(block.outlines), "conclusion": conclusion}

    def _rewritten(self) -> Iterator[dict[str, Any]]:
        for number, sentence in enumerate(split(self.chain), 1):
            if sentence.strip() in self.rewrites:
                yield {"number": number, "text": self.rewrites[sentence.strip()]}


def _edge(step: str, uses: str) -> dict[str, str]:
    return {"step": step, "uses": uses, "what": "what was found there"}


def _title(part: Part) -> str:
    return textwrap.shorten(part.text, 60, placeholder=" …")


def _inner(path: tuple[Part, ...]) -> list[tuple[str, int]]:
    """Of a path with blocks: per sub-step its title and the place of its block, or -1."""
    found: list[tuple[str, int]] = []
    for number, part in enumerate(path):
        if part.paths:
            if any(inner.paths for sub in part.paths for inner in sub):
                raise ValueError("blocks nested more than two deep have no outline of two levels")
            found += [(title, number) for title in part.outlines]
        else:
            found.append((_title(part), -1))
    return found


def _texts(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        if part.paths:
            for path in part.paths:
                yield from _texts(path)
        else:
            yield part.text


def _blocks(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        if part.paths:
            yield part
            for path in part.paths:
                yield from _blocks(path)
