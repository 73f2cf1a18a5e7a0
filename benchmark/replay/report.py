"""Tables and figures of what `throughput.py` wrote.

    python benchmark/replay/report.py RESULT.json … [--figures docs/performance]
    python benchmark/replay/report.py RESULT.json … --into README.md [--details]

Prints the tables; writes a figure of each result as SVG and PNG; puts the summary, or all of it,
between the marks `<!-- replay: begin -->` and `<!-- replay: end -->` of a page. `pages.sh` does all
of it for the committed results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- replay: begin -->", "<!-- replay: end -->"
WAYS = {
    "parallel": "in parallel",
    "one-by-one": "branch by branch",
    "plain": "plain, SGLang",
    "client": "forked by the client, SGLang",
}


def speedup(case: dict[str, Any], way: str, over: str = "plain") -> float | None:
    ways = case["ways"]
    if way not in ways or over not in ways:
        return None
    return float(ways[way]["answers_s"] / ways[over]["answers_s"])


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("|" + "".join("---|" if i < left else "---:|" for i in range(len(heads))))
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def speedups(found: dict[str, Any]) -> str:
    """Answers a second, and how many times as many as the others."""
    rows = []
    for case in sorted(found["closed"], key=lambda case: case["clients"]):
        plain = case["ways"].get("plain")
        rows.append(
            [
                case["structure"],
                f"{case['degree_of_parallelism']:.2f}",
                str(case["clients"]),
                f"{plain['answers_s']:.2f}" if plain else "",
                f"{case['ways']['parallel']['answers_s']:.2f}",
                _times(speedup(case, "parallel")),
                _times(speedup(case, "parallel", "one-by-one")),
                _times(speedup(case, "parallel", "client")),
            ]
        )
    heads = ["Answer", "Degree", "Clients", "Plain, answers/s", "In parallel, answers/s"]
    return table([*heads, "÷ plain", "÷ branch by branch", "÷ client"], rows)


def _spread(value: dict[str, float], digits: int) -> str:
    return f"{value['p50']:.{digits}f} / {value['p99']:.{digits}f}"


def details(found: dict[str, Any]) -> str:
    """Everything of each way under each load."""
    rows = []
    for case in [*sorted(found["closed"], key=lambda case: case["clients"]), *found["open"]]:
        for way, said in case["ways"].items():
            forwards = said.get("forwards")
            an_answer = sum(forwards.values()) / said["answers"] if forwards else None
            rows.append(
                [
                    case["name"],
                    WAYS[way],
                    f"{said['answers_s']:.2f}",
                    f"{said['tokens_s']:.0f}",
                    _spread(said["latency_s"], 2),
                    _spread(said["critical_token_ms"], 1),
                    _spread(said["first_token_ms"], 0),
                    *(
                        [
                            f"{an_answer:.1f}",
                            _times(said.get("extra_forwards_a_fork")),
                            f"{said['rows_a_decode']:.1f}",
                            f"{said['host_ms_a_step']:.2f}",
                            f"{said['busy_ms_an_answer']:.0f}",
                            f"{said['most_rows']}, {said['most_kv_tokens']}",
                        ]
                        if an_answer is not None
                        else [""] * 6
                    ),
                ]
            )
    heads = ["Load", "Way", "answers/s", "tokens/s", "latency, s", "a critical token, ms"]
    heads += ["first token, ms", "forwards an answer", "extra a fork", "rows a decode step"]
    heads += ["host, ms a step", "scheduler, ms an answer", "most rows, KV tokens"]
    return table(heads, rows, left=2)


def summary(found: dict[str, Any]) -> str:
    """For a page: one row for each number of clients, one column for each degree."""
    closed = found["closed"]
    names = list(dict.fromkeys(case["structure"] for case in closed))
    degree = {case["structure"]: case["degree_of_parallelism"] for case in closed}
    by_name = {(case["structure"], case["clients"]): case for case in closed}
    rows = []
    for clients in sorted({case["clients"] for case in closed}):
        row = [str(clients)]
        for name in names:
            case = by_name.get((name, clients))
            over = [speedup(case, "parallel", way) if case else None for way in ("plain", "client")]
            row.append(" / ".join(map(_times, over)) if over[0] is not None else "")
        rows.append(row)
    heads = [f"{name} ({degree[name]:.2f})" for name in names]
    return table(["Clients", *heads], rows, left=0)


def said_of(found: dict[str, Any]) -> str:
    """On what, and how it can be had again."""
    machine = found["machine"]
    flags = "AVX-512" if "avx512f" in machine.get("cpu_flags", []) else machine.get("architecture")
    card = machine.get("accelerator") or f"{machine.get('cores')} CPU cores ({flags})"
    note = f" **{found['note']}**" if found.get("note") else ""
    return f"On {card}, load {machine.get('load_before')} before.{note}"


def page(results: Sequence[dict[str, Any]]) -> str:
    """In short."""
    parts = []
    for found in results:
        parts += [f"**{found['model']}.** {said_of(found)}", summary(found)]
    return "\n\n".join(parts)


def whole_page(results: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Everything, with the figures that `--figures` put into the folder beside the page."""
    parts = []
    for found, name in zip(results, names, strict=True):
        parts += [f"### {found['model']}", said_of(found), f"```bash\n{found['command']}\n```"]
        parts += [f"![Speed-up over plain text and latency under load](performance/{name}.svg)"]
        parts += [speedups(found), details(found)]
        if found["left_out"]:
            parts.append(f"For want of time, {len(found['left_out'])} loads were left out.")
    return "\n\n".join(parts)


def put_into(path: Path, text: str) -> None:
    """Between the marks. Raises `ValueError` where they are not."""
    whole = path.read_text()
    if BEGIN not in whole or END not in whole:
        raise ValueError(f"{path}: {BEGIN} and {END} are needed")
    head, _, rest = whole.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--figures", type=Path, help="a folder")
    parser.add_argument("--into", type=Path, help="a page with the marks")
    parser.add_argument("--details", action="store_true", help="all of it into that page")
    args = parser.parse_args(argv)
    results = [json.loads(path.read_text()) for path in args.results]
    for path, found in zip(args.results, results, strict=True):
        print(f"\n## {path.stem}\n\n{said_of(found)}\n")
        print(found["command"], speedups(found), details(found), sep="\n\n")
        if args.figures:
            from figure import draw  # matplotlib is not needed for the tables

            args.figures.mkdir(parents=True, exist_ok=True)
            draw(found, args.figures / path.stem)
    if args.into:
        names = [path.stem for path in args.results]
        put_into(args.into, whole_page(results, names) if args.details else page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
