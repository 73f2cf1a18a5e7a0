"""Render the card of the package's model from the reports that `measure.py` left.

    python benchmark/twin/card.py
    python benchmark/twin/card.py --results DIR --bundle BUNDLE --twin BUNDLE --out FILE

The words are in `card.md`; the figures of the results are those of `results.json` below
`results/twin`, the table of the training is from `training.json` of the two bundles.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lineage import Passes, TwinError, passes_of  # noqa: E402
from reports import Reports, read  # noqa: E402

from sglang_multiverse.bundled import BundledModelError  # noqa: E402
from sglang_multiverse.bundled.manifest import PACKAGE  # noqa: E402
from sglang_multiverse.evaluation.report.cells import (  # noqa: E402
    difference,
    middle,
    number,
    percent,
    share,
    table,
)
from sglang_multiverse.evaluation.report.comparison import better, verdict  # noqa: E402

RESULTS = HERE.parent / "results" / "twin"
TWIN = HERE / "bundle"
CARD = PACKAGE / "MODEL_CARD.md"
AIM = 0.8
"""So many problems of every family are to be answered wholly right; none was picked afterwards."""
SIDES = ("the twin", "this model")
PARTS = {"yes": "several tasks, in any order", "no": "one task, or steps that need each other"}
KINDS = {
    "flat": "several tasks",
    "nested": "tasks with parts of their own",
    "sequential": "steps that need each other",
    "single": "one task",
}


def scores(title: str, group: str, names: Mapping[str, str], reports: Reports) -> str:
    """A row for each value of a group of problems."""
    (model,), (task,) = reports.model["series"], reports.compare["tasks"]
    pairs, mine = task["groups"][group], model["groups"][group]
    order = [name for name in names if name in pairs] or sorted(pairs)
    return table(
        [title, "problems", *_SCORED],
        [_row(names.get(name, name), pairs[name], mine[name]) for name in order],
    )


_SCORED = ("this model, %", "twin, %", "difference, points", "p", "verdict", "branches as asked, %")


def _row(name: str, paired: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    both = [f"{100 * paired[side]:.1f}" for side in ("b", "a")]
    said = better(paired, SIDES)
    asked = share(mine["branches_as_asked"])
    return [name, str(paired["problems"]), *both, *difference(paired), said, asked]


def everything(reports: Reports) -> str:
    """All problems, and those with independent parts and without."""
    (model,), (task,) = reports.model["series"], reports.compare["tasks"]
    group = "independent parts"
    rows = [_row("all", task, model)]
    for name, title in PARTS.items():
        if name in task["groups"][group]:
            rows.append(_row(title, task["groups"][group][name], model["groups"][group][name]))
    return table(["", "problems", *_SCORED], rows)


def formed(reports: Reports) -> str:
    """Well-formed answers and accuracy, with the guard and without."""
    rows = []
    for title, report in (("with the guard", reports.model), ("without", reports.unguarded)):
        (one,) = report["series"]
        parts = one["groups"]["independent parts"].get("yes", {"well_formed": None})
        cells = [share(parts["well_formed"]), share(one["well_formed"])]
        rows.append([title, *cells, percent(one["pass_at_1"]), str(one["cut"])])
    head = ["", "well formed, several tasks, %", "well formed, all, %", "right, %", "cut answers"]
    return table(head, rows)


def behind(reports: Reports) -> str:
    """Where the twin has more right, shown or not."""
    (task,) = reports.compare["tasks"]
    found = [
        f"{names.get(value, value)} ({one['worse'] - one['better']} of {one['problems']})"
        for group, names in (("kind", KINDS), ("family", {}))
        for value, one in task["groups"][group].items()
        if one["worse"] > one["better"]
    ]
    return ", ".join(found) or "nowhere"


def below(reports: Reports) -> str:
    (model,) = reports.model["series"]
    families = model["groups"]["family"]
    return ", ".join(n for n, one in families.items() if one["pass_at_1"]["value"] < AIM) or "none"


def budgets(reports: Reports) -> str:
    """Both at the same longest path."""
    series = {
        (one["about"]["role"], one["about"]["ladder"], one["about"]["budget"]): one["pass_at_1"]
        for one in reports.budget["series"]
    }
    rows = []
    for one in reports.budget["paired"]:
        if one["ladder"] == "critical":
            at = one["budget"]
            mine, other = series["parallel", "critical", at], series["baseline", "total", at]
            cells = [percent(mine), percent(other), *difference(one), better(one, SIDES)]
            rows.append([str(at), *cells])
    head = [
        "longest path, tokens",
        "this model, %",
        "twin, %",
        "difference, points",
        "p",
        "verdict",
    ]
    return table(head, sorted(rows, key=lambda row: int(row[0])))


def sizes(reports: Reports) -> str:
    """A row for each batch size."""
    rows = []
    for size in reports.latency["latency"]["sizes"]:
        ways, ratios = size["ways"], size["ratios"]
        rows.append(
            [
                str(size["batch_size"]),
                *(number(ways[way]["seconds"]["p50"]) for way in ("parallel", "sequential")),
                middle(ratios["sequential"]["seconds"]),
                middle(ratios["one at a time"]["seconds"]),
                *(
                    number(ways[way]["tokens_per_second"]["p50"], 0)
                    for way in ("parallel", "sequential")
                ),
                str(ratios["sequential"]["pairs"]),
            ]
        )
    head = ["clients", "seconds", "twin's", "twin ÷ this", "one branch at a time ÷ this"]
    return table([*head, "tokens/s", "twin's", "pairs"], rows)


def branches(reports: Reports) -> str:
    """A row for each number of branches, at the smallest batch size."""
    size = min(reports.latency["latency"]["sizes"], key=lambda one: one["batch_size"])
    alone = size["ratios"]["one at a time"]["by_branches"]
    rows = []
    for name, one in size["ratios"]["sequential"]["by_branches"].items():
        sides = (one["first"], one["other"])
        rows.append(
            [
                "none" if name == "0" else name,
                str(one["pairs"]),
                *(number(side["seconds"]["p50"]) for side in sides),
                middle(one["seconds"]),
                middle(alone[name]["seconds"]) if name in alone else "–",
                *(number(side["tokens"]["p50"], 0) for side in sides),
                number(one["degree_of_parallelism"]),
            ]
        )
    head = ["branches opened", "pairs", "seconds", "twin's", "twin ÷ this"]
    head += ["one branch at a time ÷ this", "tokens", "twin's", "degree of parallelism"]
    return table(head, rows)


def training(bundle: Path, twin: Path) -> str:
    """A row for each pass of each of the two."""
    rows = [
        *_passes("this model", passes_of(bundle)),
        *_passes("twin", passes_of(twin)),
    ]
    return table(["model", "steps", "tokens", "hours", "on", "command"], rows)


def _passes(name: str, passes: Passes) -> Iterable[list[str]]:
    for count, told in enumerate(passes, 1):
        machine = told["machine"]
        yield [
            name if count == 1 else f"{name}, pass {count}",
            f"{told['steps']:,}",
            f"{told['tokens']:,}",
            f"{told['minutes'] / 60:.1f}",
            f"{machine['cores']} cores of {machine['processor']}, {told['config']['precision']}",
            f"`{' '.join(told['command'])}`",
        ]


def card(results: Path = RESULTS, bundle: Path = PACKAGE, twin: Path = TWIN) -> str:
    """The text of the card.

    Raises:
        TwinError, BundledModelError: something of it is missing, or is of other models.
    """
    reports = read(results, bundle, twin)
    (model,), machine = reports.model["series"], reports.model["machine"]
    plan = reports.latency["latency"]
    paired = reports.compare["pooled"]
    return Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(
        training=training(bundle, twin),
        date=machine["date"],
        machine=f"{machine['cores']} {machine['architecture']} cores",
        problems=model["problems"],
        seed=model["about"]["task"]["seed"],
        verdict=verdict(reports.compare, SIDES),
        only_this=paired["better"],
        only_twin=paired["worse"],
        everything=everything(reports),
        behind=behind(reports),
        families=scores("by family", "family", {}, reports),
        aim=f"{AIM:.0%}",
        below=below(reports),
        kinds=scores("by kind", "kind", KINDS, reports),
        formed=formed(reports),
        budgets=budgets(reports),
        rounds=plan["rounds"],
        timed=plan["answers"],
        smallest=min(plan["batch_sizes"]),
        branches=branches(reports),
        sizes=sizes(reports),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default, what in (
        ("results", RESULTS, "what measure.py left"),
        ("bundle", PACKAGE, "the Multiverse model's bundle"),
        ("twin", TWIN, "the twin's bundle"),
        ("out", CARD, "the card"),
    ):
        parser.add_argument(f"--{name}", type=Path, default=default, help=what)
    args = parser.parse_args(argv)
    try:
        args.out.write_text(card(args.results, args.bundle, args.twin), encoding="utf-8")
    except (TwinError, BundledModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
