"""The reports that `measure.py` left, and whether they are of these two models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lineage import TwinError, served_as


class Reports(NamedTuple):
    """The results of each command, as its `results.json` has them."""

    model: Mapping[str, Any]
    unguarded: Mapping[str, Any]
    twin: Mapping[str, Any]
    compare: Mapping[str, Any]
    budget: Mapping[str, Any]
    latency: Mapping[str, Any]


def read(folder: Path, bundle: Path, twin: Path) -> Reports:
    """The reports below a folder.

    Raises:
        TwinError: one is not there, or is of other models than the bundles'.
        BundledModelError: a bundle cannot be read.
    """
    found = {}
    for name in Reports._fields:
        path = folder / name / "results.json"
        try:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TwinError(f"{path} cannot be read: {error}") from error
    reports = Reports(**found)
    ours, theirs = (served_as(one) for one in (bundle, twin))
    timed = reports.latency["latency"]["models"]
    asked = {
        "model": [(ours, one["about"]["model"]) for one in reports.model["series"]],
        "unguarded": [(ours, one["about"]["model"]) for one in reports.unguarded["series"]],
        "twin": [(theirs, one["about"]["model"]) for one in reports.twin["series"]],
        "compare": list(zip((theirs, ours), reports.compare["tasks"][0]["models"], strict=True)),
        "budget": [
            (theirs if one["about"]["role"] == "baseline" else ours, one["about"]["model"])
            for one in reports.budget["series"]
        ],
        "latency": [(theirs if way == "sequential" else ours, timed[way]) for way in timed],
    }
    for name, models in asked.items():
        for wanted, model in models:
            if wanted != model:
                raise TwinError(f"{name}: is of {model}, not of {wanted}: measure again")
    _check_guard(reports)
    return reports


def _check_guard(reports: Reports) -> None:
    for name, on in (("model", True), ("unguarded", False)):
        for one in getattr(reports, name)["series"]:
            if one["about"]["multiverse"] != {"guard": on}:
                raise TwinError(f"{name}: asked with {one['about']['multiverse']}")
