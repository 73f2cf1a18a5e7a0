"""What training reads: JSONL and Parquet, parallel and sequential, split, with a data card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sglang_multiverse.structure import Statistics
from sglang_multiverse.training.data import plots
from sglang_multiverse.training.data.card import Examples, card
from sglang_multiverse.training.data.conversation import SPLITS, Conversation, Split
from sglang_multiverse.training.data.splits import HELD_OUT_PERCENT, split_of
from sglang_multiverse.training.data.verify import Measured

from .store import Store, Stored

ROWS = 256
"""Rows of a Parquet group: what is held in memory."""
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", _MESSAGES),
        ("sequential_messages", _MESSAGES),
        ("kind", pa.string()),
        ("family", pa.string()),
        ("split", pa.string()),
        ("branches", pa.list_(pa.int32())),
        ("depth", pa.int32()),
        ("tokens", pa.int64()),
        ("answer_tokens", pa.int64()),
        ("critical_path_tokens", pa.int64()),
        ("degree_of_parallelism", pa.float64()),
        ("remarks", pa.list_(pa.string())),
        ("reference", pa.string()),
    ]
)


def record(stored: Stored, family: str) -> dict[str, Any]:
    """The row of a finished example, as `SCHEMA` has it."""
    content = stored.content
    user = {"role": "user", "content": content["question"]}
    kept = ("kind", "branches", "depth", "tokens", "answer_tokens", "critical_path_tokens")
    return {
        "id": stored.id,
        "messages": [user, {"role": "assistant", "content": content["parallel"]}],
        "sequential_messages": [user, {"role": "assistant", "content": content["sequential"]}],
        **{name: content[name] for name in kept},
        "family": family,
        "split": split_of(content["question"]),
        "degree_of_parallelism": content["answer_tokens"] / content["critical_path_tokens"],
        "remarks": content["remarks"],
        "reference": content["reference"],
    }


def write(
    store: Store, out: Path, *, family: str, about: str, counted_with: str, with_plots: bool
) -> list[Path]:
    """Write all files of a run; each appears whole or not at all.

    Memory: `ROWS` examples, and some numbers of each for the card.

    Returns:
        The files, in the order of writing.
    """
    made: Examples = {split: [] for split in SPLITS}
    with ExitStack() as files:
        writers = {split: _Writer(out, split, files) for split in SPLITS}
        for position, row in enumerate(_rows(store, family)):
            split: Split = row["split"]
            writers[split].add(row)
            made[split].append(_measured(row, position))
        for writer in writers.values():
            writer.finish()
        failures = _Pending(out / "failures.jsonl", files)
        for name, stored in store.listed():
            if stored is None or stored.status == "failed":
                why = stored.content if stored else {"reason": "not finished"}
                failures.line({"id": name, **why})
        pending = [p for writer in writers.values() for p in writer.pending] + [failures]
        card_file = _Pending(out / "README.md", files)
        names = plots.draw(made, out) if with_plots and any(made.values()) else []
        title = "Multiverse examples curated from sequential reasoning"
        card_file.file.write(
            card(made, title=title, about=about, counted_with=counted_with, plots=names)
        )
        pending.append(card_file)
    paths = [one.replace() for one in pending]
    paths += [writer.replace_parquet() for writer in writers.values()]
    return [*paths, *(out / name for name in names)]


def about(command: str, model: str, store: Store, rules: str) -> str:
    """What the card says before its tables."""
    spent = store.spent()
    calls, tokens = sum(row[1] for row in spent), sum(row[2] + row[3] for row in spent)
    return f"""Written by `{command}`.

- **Source**: sequential reasoning. Its sentences were placed by number, not retyped; only sentences
  in paths have new words, where they referred to other paths or to an order.
- **Model**: {model or "as the command says"}; {calls} calls, {tokens} tokens.
- **Every example** was read back: well formed, with the paths of its tree; the source comes out of
  the tree byte for byte. {rules}
- **Sequential examples** are those without steps that do not need each other, or whose
  degree of parallelism is too small. The `*-sequential` files hold the source's text of every
  example, for the twin.
- **Splits**: a hash of the question keeps about {HELD_OUT_PERCENT} % of all questions out of
  training.
- **Limits**: which steps need each other is the model's word; numbers, formulas and names were
  compared, the sense was not."""


def _rows(store: Store, family: str) -> Iterator[dict[str, Any]]:
    for _, stored in store.listed():
        if stored is not None and stored.status == "done":
            yield record(stored, family)


def _measured(row: dict[str, Any], position: int) -> Measured:
    """The numbers of an example without its texts, for the card."""
    branches = tuple(row["branches"])
    example = Conversation(
        row["family"], row["kind"], position, row["split"], "", "", branches=branches
    )
    numbers = Statistics(
        row["answer_tokens"],
        row["critical_path_tokens"],
        len(branches),
        sum(branches),
        row["depth"],
    )
    return Measured(example, row["tokens"], numbers)


class _Pending:
    """A text file that is written beside its place and moved there at the end."""

    def __init__(self, path: Path, files: ExitStack) -> None:
        self._path, self._beside = path, path.with_name(f".{path.name}.new")
        self.file: TextIO = files.enter_context(self._beside.open("w", encoding="utf-8"))

    def line(self, value: Any) -> None:
        self.file.write(json.dumps(value, ensure_ascii=False) + "\n")

    def replace(self) -> Path:
        return self._beside.replace(self._path)


class _Writer:
    """The files of one split."""

    def __init__(self, out: Path, split: str, files: ExitStack) -> None:
        self._parallel = _Pending(out / f"{split}.jsonl", files)
        self._sequential = _Pending(out / f"{split}-sequential.jsonl", files)
        self.pending = (self._parallel, self._sequential)
        self._path = out / f"{split}.parquet"
        self._beside = self._path.with_name(f".{self._path.name}.new")
        self._table = files.enter_context(pq.ParquetWriter(self._beside, SCHEMA))
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._parallel.line(row)
        rest = {name: row[name] for name in row if not name.endswith("messages")}
        self._sequential.line({"messages": row["sequential_messages"], **rest})
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self.finish()

    def finish(self) -> None:
        if self._rows:
            self._table.write_table(pa.Table.from_pylist(self._rows, SCHEMA))
            self._rows = []

    def replace_parquet(self) -> Path:
        return self._beside.replace(self._path)


def family_of(source: str) -> str:
    """What the examples of a source are called in the card."""
    return Path(source.removeprefix("hf:")).stem if source != "-" else "stdin"
