"""A set of verified examples, and the files they are written to."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sglang_multiverse.structure import TagTable, Tokenizer

from .conversation import Kind, Split
from .generate import generate
from .verify import Measured, verify

MAX_REPEATS = 200
"""How many seeds in a row may repeat an earlier problem before the set counts as exhausted."""


class ExhaustedError(RuntimeError):
    """There are not so many different problems."""


def examples(
    count: int,
    seed: int,
    split: Split,
    tokenizer: Tokenizer,
    tags: TagTable,
    kind: Kind | None = None,
    family: str | None = None,
) -> Iterator[Measured]:
    """`count` verified examples, from `seed` upwards.

    A problem whose prompt came before is left out; ordinary conversation, of
    which there is little, may repeat.
    """
    seen: set[str] = set()
    made = repeats = 0
    for at in itertools.count(seed):
        if made == count:
            return
        example = generate(at, split, kind, family)
        if example.kind != "chat" and example.prompt in seen:
            repeats += 1
            if repeats > MAX_REPEATS:
                raise ExhaustedError(
                    f"{split}: only {made} different problems of kind {kind} and family {family}"
                )
            continue
        repeats = 0
        seen.add(example.prompt)
        made += 1
        yield verify(example, tokenizer, tags)


def write(measured: Sequence[Measured], path: Path) -> None:
    """One line of JSON for each example."""
    with path.open("w", encoding="utf-8") as lines:
        for one in measured:
            lines.write(json.dumps(one.example.record, ensure_ascii=False) + "\n")
