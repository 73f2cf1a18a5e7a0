"""The report of `latency`: a table for each thing measured, batch sizes downwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..timing import in_order
from .cells import middle, number, table

Cell = Callable[[Mapping[str, Any]], str]
SIDES = ("first", "other")


def _tail(name: str, scale: float = 1.0, digits: int = 2) -> Cell:
    """Median and 99th percentile."""

    def cell(way: Mapping[str, Any]) -> str:
        found = way[name]
        if not found:
            return "–"
        return f"{scale * found['p50']:.{digits}f} / {scale * found['p99']:.{digits}f}"

    return cell


_TABLES: dict[str, Cell] = {
    "Seconds an answer, p50 / p99": _tail("seconds"),
    "Milliseconds a token of an answer, p50 / p99": _tail("seconds_per_token", 1000, 1),
    "Seconds to the first token, p50 / p99": _tail("ttft", digits=3),
    "Tokens a second of all clients, median and quartiles over rounds": lambda way: middle(
        way["tokens_per_second"], 1
    ),
    "Degree of parallelism, mean": lambda way: number(way["degree_of_parallelism"]),
}


def body(results: Mapping[str, Any]) -> list[str]:
    found = results["latency"]
    ways, sizes = found["ways"], found["sizes"]
    models = "; ".join(f"{way}: {model}" for way, model in found["models"].items())
    caches = "emptied before each block" if found["caches_emptied"] else "not emptied"
    text = [
        f"# Latency: {found['task']}",
        f"{models}. Closed loop: each of as many clients as the batch size asks its next problem "
        f"when it has its answer. {found['rounds']} rounds, the ways in turns within each, a "
        f"warm-up before each batch size dropped, prefix caches {caches}.",
    ]
    for title, cell in _TABLES.items():
        rows = [
            [
                str(size["batch_size"]),
                *(cell(size["ways"][way]) if way in size["ways"] else "–" for way in ways),
            ]
            for size in sizes
        ]
        text += [f"## {title}", table(["batch size", *ways], rows)]
    for way in ways[1:]:
        text += [f"## {way} ÷ {ways[0]}", _ratios(way, sizes)]
        if rows := _by_branches(way, sizes):
            head = ["branches", "batch size", "pairs", "same text", f"{ways[0]}, s", f"{way}, s"]
            head += ["ratio", "tokens", f"tokens, {way}", "degree of parallelism"]
            text += [f"### By the branches that {ways[0]} opened", table(head, rows)]
    if len(ways) > 1:
        text.append(
            "Within pairs of the same problem in the same round, cut answers left out; median and "
            f"quartiles. Above 1, {ways[0]} is faster. *Block* is the time of a whole block."
        )
    return text + _warnings(sizes)


def _ratios(way: str, sizes: list[dict[str, Any]]) -> str:
    rows = []
    for size in sizes:
        one = size["ratios"].get(way)
        if one:
            pairs = [str(one["pairs"]), str(one["same_text"])]
            cells = [middle(one[name]) for name in ("seconds", "seconds_per_token", "wall")]
            rows.append([str(size["batch_size"]), *pairs, *cells])
    head = ["batch size", "pairs", "same text", "seconds an answer", "seconds a token", "block"]
    return table(head, rows)


def _by_branches(way: str, sizes: list[dict[str, Any]]) -> list[list[str]]:
    found = [
        (name, str(size["batch_size"]), one)
        for size in sizes
        if way in size["ratios"]
        for name, one in size["ratios"][way]["by_branches"].items()
    ]
    return [
        [
            name,
            size,
            *(str(one["pairs"]), str(one["same_text"])),
            *(middle(one[side]["seconds"]) for side in SIDES),
            middle(one["seconds"]),
            *(number(one[side]["tokens"] and one[side]["tokens"]["p50"], 0) for side in SIDES),
            number(one["degree_of_parallelism"]),
        ]
        for name, size, one in sorted(found, key=lambda row: in_order(row[0]))
    ]


def _warnings(sizes: list[dict[str, Any]]) -> list[str]:
    found = []
    for size in sizes:
        for way, one in size["ways"].items():
            for name, what in (("failed", "failed"), ("cut", "were cut by the token limit")):
                if one[name]:
                    found.append(
                        f"**Batch size {size['batch_size']}, {way}: {one[name]} of "
                        f"{one['answers'] + one['failed']} answers {what}.**"
                    )
    return found
