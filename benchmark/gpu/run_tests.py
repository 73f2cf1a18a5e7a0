"""Tests as a stage: the result of each is on disk as soon as it is known."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest


class Recorder:
    """A pytest plugin. With several workers it sees what they report."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.tests: dict[str, Any] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        said: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.failed:
            said["why"] = report.longreprtext[-3000:]
        self.tests[report.nodeid] = said
        self.write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tests[report.nodeid] = {"outcome": "failed", "why": report.longreprtext[-3000:]}
            self.write()

    def write(self) -> None:
        outcomes = [said["outcome"] for said in self.tests.values()]
        counts = {name: outcomes.count(name) for name in ("passed", "failed", "skipped")}
        self.out.write_text(json.dumps({**counts, "tests": self.tests}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args, rest = parser.parse_known_args()
    # A GPU's kernels are compiled by as many processes as there is work for.
    workers = min(8, len(os.sched_getaffinity(0)) // 2)
    many = "kernels" in " ".join(rest) and importlib.util.find_spec("xdist") and workers > 1
    spread = ["-n", str(workers), "--dist", "worksteal"] if many else []
    code = pytest.main(
        ["-q", "-p", "no:cacheprovider", *spread, *rest], plugins=[Recorder(args.out)]
    )
    sys.exit(int(code))


if __name__ == "__main__":
    main()
