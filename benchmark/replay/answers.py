"""Answers whose structure is given: synthetic trees, and windows of real traces around blocks.

Both become token ids in linear form, written the way the engine writes them: the headers that it
forces are encoded by themselves, and so is everything between two tags.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sglang_multiverse.structure import Block, Role, TagTable, layout, parse


@dataclass(frozen=True)
class Tree:
    """A prompt, and an answer with a block in it whose branches are alike.

    Attributes:
        prompt, length, before, after: tokens: of the prompt, of a branch, and of the answer before
            its block, in its conclusion, and after it.
        depth: blocks within each other; a branch has its own block in its middle.
    """

    prompt: int
    branches: int
    length: int
    depth: int = 1
    before: int = 16
    after: int = 16

    @property
    def name(self) -> str:
        nested = f", {self.depth} deep" if self.depth > 1 else ""
        return f"{self.branches} × {self.length} behind {self.prompt}{nested}"


class Part(NamedTuple):
    """A branch to be written: its outline, and its ids before and after a block of its own."""

    outline: list[int]
    before: list[int]
    nested: Sequence[Part] = ()
    after: Sequence[int] = ()


@dataclass(frozen=True)
class Answer:
    """What a request is answered with, after a prompt of `prompt` tokens.

    Attributes:
        ids: token ids, in linear form.
        forced: of the tokens of the longest path, how many the engine writes in headers.
        forks: how many blocks are on the longest path.
    """

    name: str
    prompt: int
    ids: list[int]
    tags: TagTable
    forced: int
    forks: int

    @cached_property
    def blocks(self) -> Sequence[Block]:
        """Spans are in `ids`."""
        return parse(self.ids, self.tags).blocks

    @cached_property
    def path(self) -> int:
        """Tokens on the longest path."""
        return int(layout(self.ids, self.tags).positions[-1]) + 1

    @property
    def degree(self) -> float:
        """Of parallelism: all tokens ÷ tokens on the longest path."""
        return len(self.ids) / self.path


class Writer:
    """Writes for one tokenizer."""

    def __init__(self, tokenizer: Any, tags: TagTable) -> None:
        self.tokenizer, self.tags = tokenizer, tags
        self._newline = self.encode("\n")

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def plain(self, count: int) -> list[int]:
        return (self.encode(" x") * count)[:count]

    def header(self, label: str) -> list[int]:
        return self.encode(self.tags.dialect.branch_header(label))

    @property
    def conclusion_header(self) -> list[int]:
        return self.encode(self.tags.dialect.conclusion_header)

    def block(self, parts: Sequence[Part], conclusion: list[int], label: str = "") -> list[int]:
        """From `<Parallel>` to `</Parallel>`; `label` is that of the branch around it."""
        tag, line = self.tags.id_of, self._newline
        ids = [tag[Role.BLOCK_OPEN], *line, tag[Role.GOAL_OPEN]]
        for part in parts:
            ids += [*line, tag[Role.OUTLINE_OPEN], *part.outline, tag[Role.OUTLINE_CLOSE]]
        ids += [*line, tag[Role.GOAL_CLOSE]]
        for number, part in enumerate(parts, 1):
            own = f"{label}.{number}".lstrip(".")
            ids += self.header(own)
            ids += part.before
            if part.nested:
                ids += self.block(part.nested, self._newline, own)
            ids += [*part.after, tag[Role.BRANCH_CLOSE]]
        ids += [*self.conclusion_header, *conclusion, tag[Role.CONCLUSION_CLOSE]]
        return [*ids, *line, tag[Role.BLOCK_CLOSE]]

    def answer(self, name: str, prompt: int, ids: list[int]) -> Answer:
        forced, forks = self._on_path(parse(ids, self.tags).blocks)
        return Answer(name, prompt, ids, self.tags, forced, forks)

    def _on_path(self, blocks: Sequence[Block], label: str = "") -> tuple[int, int]:
        """Tokens in headers, and blocks, on the longest path."""
        forced = forks = 0
        for block in blocks:
            spans = [branch.span for branch in block.branches]
            longest = max(range(len(spans)), key=lambda i: spans[i].hi - spans[i].lo)
            own = f"{label}.{longest + 1}".lstrip(".")
            inner = self._on_path(block.branches[longest].blocks, own)
            forced += len(self.header(own)) + len(self.conclusion_header) + inner[0]
            forks += 1 + inner[1]
        return forced, forks


def of_tree(tree: Tree, writer: Writer) -> Answer:
    def parts(depth: int, label: str) -> list[Part]:
        found = []
        for number in range(1, tree.branches + 1):
            own = f"{label}.{number}".lstrip(".")
            outline = writer.encode(f"\n{own}: x\n")
            half = tree.length // 2 if depth > 1 else tree.length
            nested = parts(depth - 1, own) if depth > 1 else ()
            rest = writer.plain(tree.length - half)
            found.append(Part(outline, writer.plain(half), nested, rest))
        return found

    ids = writer.plain(tree.before)
    ids += writer.block(parts(tree.depth, ""), writer.plain(tree.after))
    return writer.answer(tree.name, tree.prompt, [*ids, *writer.plain(tree.after)])


def windows(
    traces: Path, writer: Writer, *, prompt: int, around: int, most: int, count: int
) -> list[Answer]:
    """Windows of well-formed real answers: a flat block with `around` tokens before and after it.

    Of those of at most `most` tokens, `count` spread over all degrees of parallelism.
    """
    found: list[Answer] = []
    for line in traces.read_text().splitlines():
        trace = json.loads(line)
        if not trace["balanced"]:
            continue
        ids = writer.encode(trace["output"])
        for number, block in enumerate(parse(ids, writer.tags).blocks):
            plain = not any(branch.blocks for branch in block.branches)
            if not (plain and block.closed and len(block.branches) == len(block.outlines) > 1):
                continue
            window = _window(ids, block, writer, around)
            if len(window) <= most:
                found.append(writer.answer(f"{trace['id']}, block {number + 1}", prompt, window))
    found.sort(key=lambda answer: (answer.degree, answer.name))
    count = min(count, len(found))
    return [found[i * (len(found) - 1) // max(count - 1, 1)] for i in range(count)]


def _window(ids: list[int], block: Block, writer: Writer, around: int) -> list[int]:
    def text(lo: int, hi: int) -> list[int]:
        return [token for token in ids[lo:hi] if token not in writer.tags.role_of]

    parts = []
    for number, (outline, branch) in enumerate(zip(block.outlines, block.branches, strict=True), 1):
        own = text(*branch.span)
        said = text(*outline)
        # Its header is written anew, with the label that the engine counts.
        own = own[len(writer.header(str(number))) - 1 :]
        words = writer.tokenizer.decode(said).strip().partition(":")[2]
        parts.append(Part(writer.encode(f"\n{number}:{words}\n"), own))
    conclusion = text(*block.conclusion) if block.conclusion else writer.plain(around)
    before = text(max(block.span.lo - around, 0), block.span.lo)
    after = text(block.span.hi, block.span.hi + around)
    return [*before, *writer.block(parts, conclusion), *after]
