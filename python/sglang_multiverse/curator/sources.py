"""Rows of a source as examples. A source is checked as a whole before the first call."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..records import digest
from .config import RunConfig, column_map
from .draft import Example
from .errors import CuratorError

HUB = "hf:"


class Source:
    """The examples of a JSONL file, of standard input (`-`) or of a data set (`hf:NAME`).

    It can be read again and again. `len` is known after `check`.

    Attributes:
        repeated: rows left out by the last reading, because they repeat an earlier one.
    """

    def __init__(self, where: str, config: RunConfig) -> None:
        self._where, self._limit = where, config.limit
        self._split = config.split
        self._columns = column_map(config)
        self._optional = {"answer", "reference", "id"} - {
            pair.partition("=")[0] for pair in config.columns
        }
        if config.preset != "plain":
            self._optional -= set(self._columns)
        self._path = Path(where)
        # What comes from standard input, to be read again; it goes with this object.
        self._kept: Any = None
        self._count = 0
        self._data: Any = None
        self.repeated = 0

    def __len__(self) -> int:
        return self._count

    def check(self) -> None:
        """Read everything once.

        Raises:
            CuratorError: a row cannot be read; the message names it.
        """
        if self._where == "-":
            self._kept = tempfile.NamedTemporaryFile(  # noqa: SIM115 - it outlives this call
                "w", encoding="utf-8", suffix=".jsonl"
            )
            self._path = Path(self._kept.name)
            try:
                shutil.copyfileobj(sys.stdin, self._kept)
            except UnicodeError as error:
                raise CuratorError("source: cannot read -: it is not UTF-8") from error
            self._kept.flush()
        elif self._where.startswith(HUB):
            self._data = _load(self._where.removeprefix(HUB), self._split)
        self._count = sum(1 for _ in self)
        if not self._count:
            raise CuratorError(f"source: {self._where} holds no rows")

    def __iter__(self) -> Iterator[Example]:
        """The examples, each once; rows that repeat an earlier one are left out."""
        seen: dict[str, str] = {}
        self.repeated = 0
        for number, (where, row) in enumerate(self._rows(), 1):
            if self._limit and number > self._limit:
                return
            example = self._example(row, where)
            content = digest(dataclasses.astuple(example))
            if example.id not in seen:
                seen[example.id] = content
                yield example
            elif seen[example.id] == content:
                self.repeated += 1
            else:
                raise CuratorError(f"source: {where}: another row has the id {example.id!r} too")

    def _rows(self) -> Iterator[tuple[str, Any]]:
        if self._data is not None:
            for number, row in enumerate(self._data, 1):
                yield f"{self._where} row {number}", row
            return
        try:
            # Some programs begin a file with a byte order mark, which is no part of its first row.
            with self._path.open(encoding="utf-8-sig", newline="\n") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield f"{self._where}:{number}", _parse(line, f"{self._where}:{number}")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise CuratorError(f"source: cannot read {self._where}: {reason}") from error

    def _example(self, row: Any, where: str) -> Example:
        if not isinstance(row, Mapping):
            raise CuratorError(f"source: {where} is no object with columns")
        texts = {}
        for name, column in self._columns.items():
            if column not in row and name in self._optional:
                continue
            if column not in row:
                raise CuratorError(
                    f"columns: {where} has no column {column!r} for {name}; "
                    f"there are: {', '.join(map(str, row))}"
                )
            value = row[column]
            if value is None and name not in ("question", "thinking"):
                continue
            if name == "id" and type(value) is int:
                value = str(value)
            if not isinstance(value, str):
                raise CuratorError(f"columns: {where}: {column!r} is no text but {value!r:.60}")
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise CuratorError(f"columns: {where}: {column!r} is no text: {error}") from error
            texts[name] = value
        for name in ("question", "thinking"):
            if not texts[name].strip():
                raise CuratorError(f"columns: {where}: {self._columns[name]!r} is empty")
        if not texts.get("id"):
            texts["id"] = digest([texts["question"], texts["thinking"]])[:12]
        return Example(**texts)


def _parse(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CuratorError(f"source: {where} is no JSON: {error}") from error


def _load(name: str, split: str) -> Iterable[Any]:
    """A data set of the hub, or of a local directory, by the library's own loader."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise CuratorError("source: hf: needs datasets: pip install '.[curator]'") from error
    if not name:
        raise CuratorError("source: hf: needs the name of a data set after it")
    try:
        found: Iterable[Any] = datasets.load_dataset(name, split=split)
    except Exception as error:  # the loader raises errors of many libraries
        line = " ".join(str(error).split())[:300]
        raise CuratorError(
            f"source: {HUB}{name} split {split!r} cannot be loaded: {line}"
        ) from error
    return found
