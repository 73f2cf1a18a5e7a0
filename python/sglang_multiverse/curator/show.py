"""One example, or a whole run, for a person to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .config import STAGE_NAMES
from .store import Store, Stored

NEW = "green"


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
    """Steps with what they use; then source, tree and final words side by side, piece by piece.

    Words that are not the source's are green; the tags are left out.
    """
    content = stored.content
    made = content["made"]
    sides = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False)
    for name, ratio in (("source", 1), ("tree", None), ("rewritten", 1)):
        sides.add_column(name, ratio=ratio, overflow="fold", no_wrap=ratio is None)
    rank = iter(range(len(made["outlines"])))
    for part, place, words in _pieces(made["tree"], made, rank):
        source = (f"[{n + 1}] {made['sentences'][n].strip()}" for n in range(*part))
        sides.add_row(Text("\n".join(source)), place, words)
    tokens, critical = content["answer_tokens"], content["critical_path_tokens"]
    head = (
        f"{stored.id}: {content['kind']}, degree of parallelism {tokens / critical:.2f} "
        f"({tokens} tokens, {critical} in sequence)"
    )
    if content["why"]:
        head += f"; {content['why']}"
    parts: list[RenderableType] = [Text(head, style="bold"), _graph(made), sides]
    parts += [Text(f"remark: {remark}", style="yellow") for remark in content["remarks"]]
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


def _pieces(
    body: list[Any], made: dict[str, Any], rank: Iterator[int], label: str = ""
) -> Iterator[tuple[tuple[int, int], str, Text]]:
    """Sentences `[lo, hi)` of the source, where they are in the tree, and their final words."""
    indent = "  " * label.count(".")
    for part in body:
        if isinstance(part, list):
            lo, hi = part
            yield (lo, hi), "", _words(lo, hi, made)
            continue
        i = next(rank, None)
        goals = made["outlines"][i] if i is not None else [""] * len(part["paths"])
        block = f"{indent}block of {len(goals)}"
        yield (
            (0, 0),
            block,
            _new("\n".join(f"{label}{k}: {g}" for k, g in enumerate(goals, 1) if g)),
        )
        for k, path in enumerate(part["paths"], 1):
            (first, inner, words), *rest = _pieces(path, made, rank, f"{label}{k}.")
            yield first, f"{indent}path {label}{k}" + (f"\n{inner}" if inner else ""), words
            yield from rest
        if i is not None:
            yield (0, 0), f"{indent}conclusion", _new(made["conclusions"][i])


def _words(lo: int, hi: int, made: dict[str, Any]) -> Text:
    text = Text()
    for n in range(lo, hi):
        source = made["sentences"][n]
        if (changed := made["changed"].get(str(n))) is not None:
            text.append(changed.strip(), style=NEW).append(source[len(source.rstrip()) :])
        else:
            text.append(source)
    text.rstrip()
    return text


def _new(words: str) -> Text:
    return Text(words, style=NEW)


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
    table = _numbers("examples", "")
    for fate, count in sorted(fates.items()):
        table.add_row(fate, f"{count:,}")
    for stage, count in sorted(remarks.items()):
        table.add_row(f"remarks at {stage}", f"{count:,}")
    spent = {stage: numbers for stage, *numbers in store.spent()}
    priced = any(cost for *_, cost in spent.values())
    used = _numbers("stage", "calls", "prompt tokens", "answer tokens", *["cost"] * priced)
    for stage in STAGE_NAMES:
        if stage in spent:
            *counts, cost = spent[stage]
            used.add_row(stage, *(f"{count:,}" for count in counts), *[f"{cost:.2f}"] * priced)
    console.print(table)
    console.print(used)
    for name, why in failures[:20]:
        console.print(f"{name}: {why}", markup=False, soft_wrap=True)
    if len(failures) > 20:
        console.print(f"and {len(failures) - 20} more, all of them in failures.jsonl")
    return len(failures)


def _numbers(name: str, *columns: str) -> Table:
    table = Table(name, box=None)
    for column in columns:
        table.add_column(column, justify="right")
    return table
