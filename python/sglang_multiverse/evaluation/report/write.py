"""Writes a report. What was there of an earlier one is written over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..store import Store
from . import figures, markdown


def write_report(results: Mapping[str, Any], out: Path) -> list[Path]:
    """The files written: results.json, figures as SVG and PNG, report.md.

    Raises:
        MissingPackageError: matplotlib is not there; results.json is written before.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = [_write(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False))]
    drawn = figures.draw(results, out)
    text = markdown.render(results, [path.name for path in drawn if path.suffix == ".svg"])
    return [*written, *drawn, _write(out / "report.md", text)]


def write_answers(store: Store, path: Path) -> Path:
    """Every answer with its metadata, a line of JSON each."""
    with path.open("w", encoding="utf-8") as lines:
        for number, about in store.all_series():
            series = {name: about[name] for name in ("role", "model", "ladder", "budget")}
            for answer in store.answers(number):
                line = {"task": about["task"]["name"], **series, **answer}
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


def _write(path: Path, text: str) -> Path:
    path.write_text(text.rstrip() + "\n", encoding="utf-8")
    return path
