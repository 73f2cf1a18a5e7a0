"""Timed blocks in, figures out: what results.json says of a latency measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from .summary import grouped, spread

SEVERAL = "several blocks"
"""The group of answers with more than one block, whose branches are not at work together."""

Block = Mapping[str, Any]
"""One way at one batch size in one round: `batch_size`, `round`, `way`, `wall` (seconds), and
`answers`, each with its `turn` in the block, the `place` of its problem, and `seconds`, `ttft`,
`tokens`, `finish`, `right`, `structure` and a `digest` of its text, or `error`."""
Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The first way's answer and another's, to the same problem in the same round."""


def summarise_timings(plan: Mapping[str, Any], blocks: Sequence[Block]) -> dict[str, Any]:
    """Per batch size and way: latency, throughput; and the paired ratios to the first way.

    Args:
        plan: the settings of the measurement: `ways`, `batch_sizes` and so on.
    """
    sizes = []
    for size in plan["batch_sizes"]:
        mine = [block for block in blocks if block["batch_size"] == size]
        ways = {way: [b for b in mine if b["way"] == way] for way in plan["ways"]}
        first = plan["ways"][0]
        sizes.append(
            {
                "batch_size": size,
                "rounds": min((len(some) for some in ways.values()), default=0),
                "ways": {way: _way(some) for way, some in ways.items() if some},
                "ratios": {
                    way: _ratios(ways[first], some)
                    for way, some in ways.items()
                    if way != first and some and ways[first]
                },
            }
        )
    return {**plan, "sizes": sizes}


def _good(block: Block) -> list[dict[str, Any]]:
    return [one for one in block["answers"] if "error" not in one]


def _way(blocks: Sequence[Block]) -> dict[str, Any]:
    answers = [one for block in blocks for one in _good(block)]
    counted = [one for one in answers if one["tokens"]]
    told = [one["structure"] for one in answers if one["structure"]]
    return {
        "answers": len(answers),
        "failed": sum(len(block["answers"]) for block in blocks) - len(answers),
        "cut": sum(one["finish"] == "length" for one in answers),
        "right": sum(one["right"] for one in answers),
        "seconds": _tails([one["seconds"] for one in answers]),
        "ttft": _tails([one["ttft"] for one in answers if one["ttft"] is not None]),
        "seconds_per_token": _tails([one["seconds"] / one["tokens"] for one in counted]),
        "tokens_per_second": spread([rate for block in blocks if (rate := _rate(block))]),
        "answers_per_second": spread([len(_good(block)) / block["wall"] for block in blocks]),
        "tokens": spread([one["tokens"] for one in counted]),
        "degree_of_parallelism": (
            fmean(one["degree_of_parallelism"] for one in told) if told else None
        ),
    }


def _tails(values: Sequence[float]) -> dict[str, float] | None:
    found = spread(values)
    return {**found, "n": len(values)} if found else None


def _rate(block: Block) -> float | None:
    """Tokens a second; nothing where an answer's tokens are not known."""
    answers = _good(block)
    if not answers or any(one["tokens"] is None for one in answers):
        return None
    return float(sum(one["tokens"] for one in answers) / block["wall"])


def _ratios(first: Sequence[Block], other: Sequence[Block]) -> dict[str, Any]:
    """The other way's ÷ the first's, within a pair: above 1 the first is faster.

    Paired is each problem in each round, and for the time of a token each problem's time over
    its own number of tokens. `same_text` counts pairs of equal texts, which did the same work.
    """
    pairs = _pairs(first, other)
    tokens = [
        two["seconds"] / two["tokens"] * one["tokens"] / one["seconds"]
        for one, two in pairs
        if one["tokens"] and two["tokens"]
    ]
    walls = [
        b["wall"] / a["wall"]
        for a, b in _by_round(first, other)
        if len(_good(a)) == len(_good(b)) == len(a["answers"])
    ]
    told = grouped([pair for pair in pairs if pair[0]["structure"]], _opened)
    return {
        **_counted(pairs),
        "seconds_per_token": spread(tokens),
        "wall": spread(walls),
        "by_branches": {name: _group(told[name]) for name in sorted(told, key=in_order)},
    }


def _counted(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "same_text": sum(one["digest"] == two["digest"] for one, two in pairs),
        "seconds": spread([two["seconds"] / one["seconds"] for one, two in pairs]),
    }


def _opened(pair: Pair) -> str:
    """How many branches the first way's answer opened, which the model decides."""
    structure = pair[0]["structure"]
    return SEVERAL if structure["blocks"] > 1 else str(structure["branches"])


def in_order(name: str) -> tuple[int, str]:
    """Sorts numbers of branches as numbers, `SEVERAL` behind them."""
    return len(name), name


def _group(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The ratio of some pairs, and what it is the ratio of."""
    sides = {"first": [one for one, _ in pairs], "other": [two for _, two in pairs]}
    return {
        **_counted(pairs),
        **{
            side: {
                "seconds": spread([one["seconds"] for one in some]),
                "tokens": spread([one["tokens"] for one in some if one["tokens"]]),
                "right": sum(one["right"] for one in some),
            }
            for side, some in sides.items()
        },
        "degree_of_parallelism": fmean(
            one["structure"]["degree_of_parallelism"] for one in sides["first"]
        ),
    }


def _whole(block: Block) -> dict[int, dict[str, Any]]:
    """Its answers that came to their end, by turn."""
    return {one["turn"]: one for one in _good(block) if one["finish"] != "length"}


def _by_round(first: Sequence[Block], other: Sequence[Block]) -> list[tuple[Block, Block]]:
    rounds = {block["round"]: block for block in other}
    return [(block, rounds[block["round"]]) for block in first if block["round"] in rounds]


def _pairs(first: Sequence[Block], other: Sequence[Block]) -> list[Pair]:
    """The answers to the same problem in the same round; cut ones did not do the whole work."""
    found: list[Pair] = []
    for a, b in _by_round(first, other):
        mine, theirs = _whole(a), _whole(b)
        found += [(mine[turn], theirs[turn]) for turn in mine if turn in theirs]
    return found
