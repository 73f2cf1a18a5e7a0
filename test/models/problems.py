"""Seeded problems in plain words with verifiable answers, and their Multiverse solutions.

A *part* is one person's count followed through a few changes (a `Chain`), or
several such counts of one person that are added up (a `Group`, which nests).

- `one`: a single chain, answered sequentially, without a parallel block;
- `flat`: 2 to 8 chains, one path each;
- `nested`: 2 to 4 parts of which at least one is a group;
- `rounds`: 2 to 4 chains, then a second round of changes to their results,
  answered with two parallel blocks one after the other.

A problem's wording decides its split, so no held-out problem is ever trained on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["one", "flat", "nested", "rounds"]
Split = Literal["train", "held-out"]

KINDS: tuple[Kind, ...] = get_args(Kind)
# fmt: off
NAMES = (
    "Amy", "Ann", "Ben", "Dan", "Eli", "Eva", "Gus", "Ida", "Ivy", "Jay", "Joe", "Kai", "Kim",
    "Leo", "Lia", "Liz", "Max", "Mia", "Ned", "Pam", "Ray", "Sam", "Tom", "Zoe",
)
ITEMS = (
    "apples", "beads", "books", "cards", "coins", "cups", "eggs", "figs", "keys", "nuts", "pears",
    "pens", "plums", "shells",
)
# fmt: on
GAINS = ("gets", "finds", "buys")
LOSSES = ("loses", "sells", "gives away")
MAX_TOTAL = 9  # at every step, of a group as well
HELD_OUT_PERCENT = 10


@dataclass(frozen=True, slots=True)
class Chain:
    """A count that starts at `start` and goes through signed `changes` of at most 9."""

    item: str
    start: int
    changes: tuple[int, ...]
    verbs: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.start + sum(self.changes)

    @property
    def told(self) -> str:
        """`5 apples, gets 3 and loses 2`"""
        changes = [
            f"{verb} {abs(change)}" for verb, change in zip(self.verbs, self.changes, strict=True)
        ]
        *rest, last = changes
        middle = "".join(f", {change}" for change in rest)
        return f"{self.start} {self.item}{middle} and {last}"

    @property
    def sum(self) -> str:
        """`5 + 3 - 2`"""
        return f"{self.start}" + "".join(
            f" {'+' if change > 0 else '-'} {abs(change)}" for change in self.changes
        )

    @property
    def steps(self) -> str:
        """`5 + 3 - 2 = 8 - 2 = 6`: each step does the first sum and copies the rest."""
        done, lines = self.start, []
        for i in range(len(self.changes)):
            lines.append(Chain(self.item, done, self.changes[i:], ()).sum)
            done += self.changes[i]
        return " = ".join([*lines, str(done)])


@dataclass(frozen=True, slots=True)
class Part:
    """What one person has: one chain, or a group of two or three."""

    name: str
    chains: tuple[Chain, ...]

    @property
    def total(self) -> int:
        return sum(chain.total for chain in self.chains)

    @property
    def told(self) -> str:
        return f"{self.name} has " + ", and also has ".join(c.told for c in self.chains) + "."

    @property
    def outline(self) -> str:
        """`Tom: apples 5 + 3 - 2`: all that the path needs."""
        return f"{self.name}: " + ", ".join(f"{c.item} {c.sum}" for c in self.chains)

    @property
    def result(self) -> str:
        """`Tom 6 apples`"""
        what = self.chains[0].item if len(self.chains) == 1 else "things"
        return f"{self.name} {self.total} {what}"


@dataclass(frozen=True, slots=True)
class Problem:
    """`parts` of the first round; `later` holds the chains of a second one, part by part."""

    kind: Kind
    parts: tuple[Part, ...]
    numbered: bool
    later: tuple[Chain, ...] = ()

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(c.total for c in self.later) or tuple(p.total for p in self.parts)

    @property
    def branches(self) -> tuple[int, ...]:
        """Branches of each block that the solution opens, in the order of `structure.walk`."""
        if self.kind == "one":
            return ()
        nested = tuple(len(p.chains) for p in self.parts if len(p.chains) > 1)
        again = (len(self.later),) if self.later else ()
        return (len(self.parts), *nested, *again)

    @property
    def prompt(self) -> str:
        """What the user writes."""
        told = [part.told for part in self.parts]
        if self.numbered:
            told = [f"{i}. {text}" for i, text in enumerate(told, 1)]
        text = ("\n" if self.numbered else " ").join(told)
        if self.later:
            then = [
                f"{part.name} {', '.join(_changes(chain))}"
                for part, chain in zip(self.parts, self.later, strict=True)
            ]
            text += "\nThen " + "; ".join(then) + "."
        if self.kind == "one":
            asked = f"How many {self.parts[0].chains[0].item} does {self.parts[0].name} have?"
        else:
            asked = "How many does each have?"
        return f"{text}\n{asked}"

    @property
    def solution(self) -> str:
        """What the assistant writes: the text a model is trained on."""
        if self.kind == "one":
            return f"{_worked(self.parts[0])}\n{answer(self)}"
        text = _block([part.outline for part in self.parts], _paths(self), _results(self.parts))
        if self.later:
            after = [
                Part(part.name, (chain,))
                for part, chain in zip(self.parts, self.later, strict=True)
            ]
            plan, paths = [part.outline for part in after], [_worked(part) for part in after]
            text += f"\nNow the second round.\n{_block(plan, paths, _results(after))}"
        return f"{text}\n{answer(self)}"


def answer(problem: Problem) -> str:
    """The last line of a right solution."""
    names = [part.name for part in problem.parts]
    pairs = zip(names, problem.totals, strict=True)
    return "Answer: " + ", ".join(f"{name} {total}" for name, total in pairs)


def check(problem: Problem, text: str) -> bool:
    """Whether the text ends with the right answer."""
    lines = text.strip().splitlines()
    return bool(lines) and lines[-1].strip() == answer(problem)


def split_of(problem: Problem) -> Split:
    """The split to which a problem belongs, by a hash of its wording."""
    digest = hashlib.sha256(problem.prompt.encode()).digest()
    return "held-out" if int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT else "train"


def generate(seed: int, split: Split = "train", kind: Kind | None = None) -> Problem:
    """The problem of this seed in this split; `kind` fixes the kind, which is drawn otherwise."""
    rng = random.Random(f"{split}/{kind}/{seed}")
    while True:
        drawn = kind or rng.choices(KINDS, weights=(2, 5, 3, 3))[0]
        problem = _draw(rng, drawn)
        if split_of(problem) == split:
            return problem


def _draw(rng: random.Random, kind: Kind) -> Problem:
    numbered = kind != "one" and rng.random() < 0.5
    match kind:
        case "one":
            count = 1
        case "flat":
            count = rng.choices(range(2, 9), weights=(5, 4, 3, 3, 2, 2, 2))[0]
        case _:
            count = rng.choices((2, 3, 4), weights=(4, 3, 2))[0]
    names = rng.sample(NAMES, count)
    longest = 4 if count < 5 else 3
    if kind == "nested":
        grouped = set(rng.sample(range(count), rng.randint(1, 2)))
        parts = [
            _group(rng, name) if i in grouped else Part(name, (_chain(rng, 3),))
            for i, name in enumerate(names)
        ]
    else:
        parts = [Part(name, (_chain(rng, longest),)) for name in names]
    later: tuple[Chain, ...] = ()
    if kind == "rounds":
        firsts = [part.chains[0] for part in parts]
        later = tuple(_chain(rng, 2, item=c.item, start=c.total) for c in firsts)
    return Problem(kind, tuple(parts), numbered, later)


def _group(rng: random.Random, name: str) -> Part:
    items = rng.sample(ITEMS, rng.choice((2, 2, 3)))
    while True:
        part = Part(name, tuple(_chain(rng, 2, item=item) for item in items))
        if part.total <= MAX_TOTAL:
            return part


def _chain(
    rng: random.Random, longest: int, item: str | None = None, start: int | None = None
) -> Chain:
    """Every total on the way is in `[1, MAX_TOTAL]`."""
    first = rng.randint(2, MAX_TOTAL) if start is None else start
    total, changes, verbs = first, [], []
    for _ in range(rng.randint(1, longest)):
        gains = total == 1 or (total < MAX_TOTAL and rng.random() < 0.5)
        change = rng.randint(1, MAX_TOTAL - total) if gains else -rng.randint(1, total - 1)
        total += change
        changes.append(change)
        verbs.append(rng.choice(GAINS if gains else LOSSES))
    return Chain(item or rng.choice(ITEMS), first, tuple(changes), tuple(verbs))


def _changes(chain: Chain) -> list[str]:
    return [f"{verb} {abs(c)}" for verb, c in zip(chain.verbs, chain.changes, strict=True)]


def _worked(part: Part) -> str:
    """`Tom: apples 5 + 3 - 2 = 8 - 2 = 6. Result: Tom 6 apples.`"""
    return f"{part.name}: {part.chains[0].item} {part.chains[0].steps}. Result: {part.result}."


def _results(parts: Sequence[Part]) -> str:
    return ", ".join(part.result for part in parts) + "."


def _paths(problem: Problem) -> list[str]:
    """The text of each path of the first block, without its label."""
    paths = []
    for i, part in enumerate(problem.parts, 1):
        if len(part.chains) == 1:
            paths.append(_worked(part))
            continue
        inner = _block(
            [f"{c.item} {c.sum}" for c in part.chains],
            [f"{c.item} {c.steps}. Result: {c.item} {c.total}." for c in part.chains],
            ", ".join(f"{c.item} {c.total}" for c in part.chains) + ".",
            parent=f"{i}.",
        )
        first, *rest = part.chains
        added = Chain("things", first.total, tuple(c.total for c in rest), ())
        paths.append(
            f"{part.outline}.\n{inner}\n{part.name}: things {added.steps}. Result: {part.result}."
        )
    return paths


def _block(outlines: list[str], paths: list[str], conclusion: str, parent: str = "") -> str:
    """A parallel block; labels count from 1 behind `parent`."""
    plan = "\n".join(
        f"<Outline>\n{parent}{i}: {outline}\n</Outline>" for i, outline in enumerate(outlines, 1)
    )
    work = "\n".join(f"<Path>\n{parent}{i}: {path}\n</Path>" for i, path in enumerate(paths, 1))
    return (
        "Let's think in parallel.\n"
        f"<Parallel>\n<Goal>\n{plan}\n</Goal>\n{work}\n"
        f"<Conclusion>\n{conclusion}\n</Conclusion>\n</Parallel>"
    )
