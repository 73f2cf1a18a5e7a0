"""Rows of a task: from a local JSONL file, or from the Hugging Face hub by `datasets`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EvaluationError, MissingPackageError

Row = Mapping[str, Any]


def load(file: str, hub: Sequence[str], split: str, columns: Sequence[str], task: str) -> list[Row]:
    """The rows of `file`, or of a hub's data set where that is empty.

    Args:
        hub: name of the data set, and its configuration if it has several.
        columns: that every row must have, as texts.

    Raises:
        EvaluationError: they cannot be had, or a row lacks a column.
    """
    rows = _from_file(Path(file)) if file else _from_hub(hub, split, task)
    for number, row in enumerate(rows, 1):
        for name in columns:
            if not isinstance(row.get(name), str):
                raise EvaluationError(
                    f"task_file: row {number} of {file or hub[0]} has no text {name!r}; "
                    f"{task} needs {', '.join(columns)}"
                )
    if not rows:
        raise EvaluationError(f"task_file: {file or hub[0]} has no rows")
    return rows


def _from_file(path: Path) -> list[Row]:
    rows: list[Row] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"task_file: {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise EvaluationError(f"task_file: {path}:{number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise EvaluationError(f"task_file: {path}:{number}: no JSON object")
        rows.append(row)
    return rows


def _from_hub(hub: Sequence[str], split: str, task: str) -> list[Row]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise MissingPackageError(f"task {task}", "datasets") from error
    try:
        return list(datasets.load_dataset(*hub, split=split))
    except Exception as error:  # the hub, its client and its formats fail in many ways
        said = " ".join(str(error).split())[:200]
        raise EvaluationError(
            f"task: {task} cannot be loaded from {'/'.join(hub)}: {said}; "
            "give its rows by --task-file"
        ) from error
