"""One example, or a whole run, for a person to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .config import STAGE_NAMES
from .store import Store, Stored


def failure(stored: Stored, store: Store) -> RenderableType:
    """Why an example failed, and all that the model said about it."""
    content = stored.content
    table = Table("round", "stage", "attempt", "finish", "answer", show_lines=True)
    calls = sorted(store.calls_of(stored.id), key=lambda c: (c[0], STAGE_NAMES.index(c[1]), c[2]))
    for number, stage, attempt, finish, text in calls:
        table.add_row(str(number), stage, str(attempt), finish, Text(text))
    why = Text(f"{stored.id} failed at stage {content['stage']}: {content['reason']}")
    return Group(why, table)


def example(stored: Stored) -> RenderableType:
    """Steps with what they use, then source, tree and final text side by side."""
    content = stored.content
    made = content["made"]
    sides = Table("source", "tree", "training text", show_lines=True, expand=True)
    for column in sides.columns:
        column.overflow = "fold"
    source = [f"[{n}] {text.strip()}" for n, text in enumerate(made["sentences"], 1)]
    sides.add_row(
        Text("\n".join(source)),
        Text("\n".join(_tree(made["tree"], made, iter(range(len(made["outlines"])))))),
        Text(content["parallel"]),
    )
    degree = content["answer_tokens"] / content["critical_path_tokens"]
    head = f"{stored.id}: {content['kind']}, degree of parallelism {degree:.2f}"
    if content["why"]:
        head += f" ({content['why']})"
    parts: list[RenderableType] = [Text(head, style="bold"), _graph(made), sides]
    parts += [Text(f"remark: {remark}") for remark in content["remarks"]]
    return Group(*parts)


def _graph(made: dict[str, Any]) -> Table:
    table = Table("step", "title", "uses", box=None)
    edges = made["edges"]
    names = [step[0] for step in made["steps"]]
    for i, (name, title, children) in enumerate(made["steps"]):
        table.add_row(name, title, ", ".join(names[a] for a, b in edges[""] if b == i))
        for j, (child, inner) in enumerate(children):
            used = [children[a][0] for a, b in edges[name] if b == j]
            table.add_row(f"  {child}", f"  {inner}", ", ".join(used))
    return table


def _tree(
    body: list[Any], made: dict[str, Any], rank: Iterator[int], indent: str = ""
) -> Iterator[str]:
    for part in body:
        if isinstance(part, list):
            yield f"{indent}sentences {part[0] + 1} to {part[1]}"
            continue
        i = next(rank, None)
        yield f"{indent}block" + (f" G{i + 1}" if i is not None else "")
        for j, path in enumerate(part["paths"]):
            goal = f": {made['outlines'][i][j]}" if i is not None else ""
            yield f"{indent}  path {j + 1}{goal}"
            yield from _tree(path, made, rank, indent + "    ")
        if i is not None:
            yield f"{indent}  so: {made['conclusions'][i]}"


def report(store: Store, console: Console) -> int:
    """What became of a run's examples and what it cost; returns how many are not done."""
    fates: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    failures: list[tuple[str, str]] = []
    for name, stored in store.listed():
        if stored is None:
            fates["not finished"] += 1
            failures.append((name, "not finished"))
        elif stored.status == "failed":
            fates["failed"] += 1
            failures.append((name, f"{stored.content['stage']}: {stored.content['reason']}"))
        else:
            fates[stored.content["kind"]] += 1
            remarks.update(remark.partition(":")[0] for remark in stored.content["remarks"])
    table = Table("examples", "", box=None)
    for fate, count in sorted(fates.items()):
        table.add_row(fate, f"{count:,}")
    for stage, count in sorted(remarks.items()):
        table.add_row(f"remarks at {stage}", f"{count:,}")
    spent = Table("stage", "calls", "prompt tokens", "answer tokens", "cost", box=None)
    for stage, calls, asked, answered, cost in store.spent():
        spent.add_row(stage, f"{calls:,}", f"{asked:,}", f"{answered:,}", f"{cost:.2f}")
    console.print(table)
    console.print(spent)
    for name, why in failures[:20]:
        console.print(f"{name}: {why}", markup=False, soft_wrap=True)
    if len(failures) > 20:
        console.print(f"and {len(failures) - 20} more, all of them in failures.jsonl")
    return len(failures)
