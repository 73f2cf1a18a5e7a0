"""The data card: what a set of examples holds, in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .conversation import KINDS, SPLITS, Split
from .splits import HELD_OUT_PERCENT, SEEDS
from .verify import Measured

PERCENTILES = (5, 25, 50, 75, 95, 100)
Examples = dict[Split, list[Measured]]


TITLE = "Multiverse conversations with verifiable answers"


def card(
    examples: Examples, *, title: str, about: str, counted_with: str, plots: Sequence[str]
) -> str:
    """The Markdown text; `about` stands before the tables, `plots` are file names beside it."""
    some = [measured for split in SPLITS for measured in examples.get(split, [])]
    sections = [
        f"# {title}",
        about,
        "## Examples",
        _table("kind", KINDS, examples, lambda m: m.example.kind),
        _table(
            "family",
            sorted({m.example.family for m in some}),
            examples,
            lambda m: m.example.family,
        ),
        "## Structure of the answers",
        _table(
            "branches of the outer block",
            sorted({m.example.width for m in some}),
            examples,
            lambda m: m.example.width,
        ),
        _table(
            "depth",
            sorted({m.statistics.depth for m in some}),
            examples,
            lambda m: m.statistics.depth,
        ),
        "Degree of parallelism: tokens of the answer divided by its longest path.",
        _percentiles(examples, lambda m: m.statistics.degree_of_parallelism, 2),
        "## Lengths",
        f"Tokens of a whole conversation, counted with {counted_with}.",
        _percentiles(examples, lambda m: m.tokens, 0),
        *(f"![{name.removesuffix('.png')}]({name})" for name in plots),
    ]
    return "\n\n".join(sections) + "\n"


def about(command: str) -> str:
    """What is said of the conversations that `generate` makes."""
    ranges = ", ".join(f"{split} [{SEEDS[split].start}, {SEEDS[split].stop})" for split in SPLITS)
    return f"""Written by `{command}`.

- **Tasks and verifiers** are those of reasoning-gym (Apache-2.0). Wording, worked solutions and
  ordinary conversation are this project's.
- **Every example** was read back: well formed, with the branches it announces, and with an
  answer that reasoning-gym's scorer takes as right, in its Multiverse form and without tags.
- **Splits**: tasks are drawn from disjoint ranges of reasoning-gym seeds
  ({ranges}), and a hash of a task's content keeps
  about {HELD_OUT_PERCENT} % of all tasks out of training. No held-out problem, and no part of
  one, occurs in the training set in any wording. Of sequential problems the first step is held
  out so; the steps derived from it are not. A greeting before a problem may be in both.
- **Again**: `generate(seed, split)`, with the `kind` and `family` of the command above where it
  names them, gives the example of a line's `seed` and `split`.
- **Limits**: synthetic English of few patterns, six task families, sums and lists of digits.
  Ordinary conversation is a small set of short exchanges that repeat."""


def _table(
    title: str,
    rows: Iterable[object],
    examples: Examples,
    of: Callable[[Measured], object],
) -> str:
    splits = [split for split in SPLITS if split in examples]
    counts = {split: Counter(of(m) for m in examples[split]) for split in splits}
    lines = [
        f"| {title} | {' | '.join(splits)} |",
        f"|---|{'---:|' * len(splits)}",
        *(f"| {row} | {' | '.join(str(counts[s][row]) for s in splits)} |" for row in rows),
        f"| all | {' | '.join(str(len(examples[s])) for s in splits)} |",
    ]
    return "\n".join(lines)


def _percentiles(examples: Examples, of: Callable[[Measured], float], digits: int) -> str:
    heads = [f"{p} %" if p < 100 else "most" for p in PERCENTILES]
    lines = [
        f"| split | kind | mean | {' | '.join(heads)} |",
        f"|---|---|{'---:|' * (len(heads) + 1)}",
    ]
    for split in SPLITS:
        for kind in (*KINDS, "all"):
            values = [of(m) for m in examples.get(split, []) if kind in ("all", m.example.kind)]
            if values:
                found = [float(np.mean(values)), *np.percentile(values, PERCENTILES)]
                cells = " | ".join(f"{value:.{digits}f}" for value in found)
                lines.append(f"| {split} | {kind} | {cells} |")
    return "\n".join(lines)
