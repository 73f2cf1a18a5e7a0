"""Render the card of the package's model from what `bundled_model.py` measured.

    python benchmark/model_card.py

The words are in `model_card.md`, every figure is from `results/bundled-model.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "bundled-model.json"
TEMPLATE = HERE / "model_card.md"
CARD = HERE.parent / "python" / "sglang_multiverse" / "bundled" / "MODEL_CARD.md"
HEADLINE = 0.8
"""So many problems of every family are to be answered wholly right; none was picked afterwards."""

KINDS = {
    "flat": "several tasks",
    "nested": "tasks with parts of their own",
    "sequential": "steps that need each other",
    "single": "one task",
}


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores(names: Mapping[str, str], found: Mapping[str, dict[str, Any]], title: str) -> str:
    rows = [
        [
            names.get(name, name),
            str(one["problems"]),
            percent(one["exact"]),
            percent(one["twin_exact"]),
            percent(one["branches_as_asked"]),
        ]
        for name, one in found.items()
    ]
    return table([title, "problems", "this model", "twin", "blocks and branches as asked"], rows)


def spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['q1']:.2f}–{ratio['q3']:.2f})"


def latency(found: Mapping[str, dict[str, Any]]) -> str:
    rows = [
        [
            count if count != "0" else "none",
            str(one["pairs"]),
            f"{one['seconds']['median']:.2f}",
            f"{one['twin_seconds']['median']:.2f}",
            spread(one["ratio"]),
            f"{one['tokens']:.0f}",
            f"{one['twin_tokens']:.0f}",
            f"{one['degree_of_parallelism']['median']:.2f}",
        ]
        for count, one in found.items()
        if one["pairs"]
    ]
    head = ["branches", "pairs", "seconds", "twin", "twin ÷ this", "tokens", "twin's"]
    return table([*head, "degree of parallelism"], rows)


def runs(name: str, passes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            name if number == 1 else f"{name}, pass {number}",
            f"{told['steps']:,}",
            f"{told['tokens']:,}",
            f"{told['minutes'] / 60:.1f}",
            f"{told['machine']['cores']} cores of {told['machine']['processor']}, "
            f"{told['precision']}",
            f"`{' '.join(told['command'])}`",
        ]
        for number, told in enumerate(passes, 1)
    ]


def card(result: Mapping[str, Any]) -> str:
    families = result["multi_part_by_family"]
    below = [name for name, one in families.items() if one["exact"] < HEADLINE]
    training, parts, every = result["training"], result["multi_part"], result["all"]
    machine, none = result["machine"], result["none_opened"]
    formed = result["well_formed"]
    return Template(TEMPLATE.read_text()).substitute(
        runs=table(
            ["model", "steps", "tokens", "hours", "on", "command"],
            [*runs("this model", training["multiverse"]), *runs("twin", training["twin"])],
        ),
        command=result["command"],
        date=machine["date"],
        machine=f"{machine['cores']} {machine['architecture']} cores",
        problems=every["problems"],
        families=scores({}, families, "several tasks, by family"),
        headline=f"{HEADLINE:.0%}",
        below=", ".join(below) or "none",
        kinds=scores(KINDS, result["by_kind"], "by kind"),
        several=parts["problems"],
        only_this=parts["only_this_right"],
        only_twin=parts["only_twin_right"],
        parts=percent(parts["exact"]),
        twin_parts=percent(parts["twin_exact"]),
        every=percent(every["exact"]),
        twin_every=percent(every["twin_exact"]),
        branches=percent(parts["branches_as_asked"]),
        on_sequential=percent(none["sequential"]["share"]),
        on_single=percent(none["single"]["share"]),
        on_chat=percent(none["chat"]["share"]),
        chats=none["chat"]["answers"],
        unguarded=percent(formed["multi_part"]["unguarded"]),
        guarded=percent(formed["multi_part"]["guarded"]),
        all_unguarded=percent(formed["all"]["unguarded"]),
        all_guarded=percent(formed["all"]["guarded"]),
        ratio=spread(result["latency_multi_part"]["ratio"]),
        left_out=sum(one["left_out"] for one in result["latency_by_branches"].values()),
        timed=", ".join(f"{name} {times}" for name, times in result["timed_by_family"].items()),
        latency=latency(result["latency_by_branches"]),
    )


def main() -> int:
    CARD.write_text(card(json.loads(RESULTS.read_text())))
    print(CARD.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
