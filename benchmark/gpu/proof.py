"""Runs the stages of `stages.py`: each in a process of its own, killed at its limit.

Whatever fails or is cut, the others run, and what was written is kept: in `<out>/<stage>.json`
while the stage runs, in `<out>/proof.json` from then on. Called by `proof.sh`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
from stages import ROOT, Stage, stages

# fp32 throughout: products in full, and torch's operators, because SGLang's are for half precision.
EXACT = {"TRITON_F32_DEFAULT": "ieee", "SGLANG_FORCE_FUSED_OP_BACKEND": "torch"}
TAIL = 4000  # characters of a stage's output that the summary repeats


class Running:
    """A stage that was begun, with its output in `<out>/<name>.log`."""

    def __init__(self, stage: Stage, out: Path, seconds: float) -> None:
        self.stage = stage
        self.log = out / f"{stage.name}.log"
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.result = out / f"{stage.name}.json"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*stage.command, "--out", str(self.result)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(EXACT if stage.exact else {})},
                start_new_session=True,
            )

    def ended(self) -> dict[str, Any]:
        """Wait, to the limit at most, and say how it ended."""
        try:
            code: int | None = self.process.wait(max(0.0, self.until - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        self.kill()
        log = self.log.read_text(errors="replace")
        self.log.unlink()  # few files come back from some machines
        result = _take(self.result)
        return {
            "status": "cut" if code is None else "done" if code == 0 else "failed",
            "code": code,
            "seconds": round(time.monotonic() - self.began, 1),
            "tail": log[-TAIL:],
            "result": result,
        }

    def kill(self) -> None:
        """With all that it started: servers have sessions of their own, and hold memory."""
        begun = self.family()
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for process in begun:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(begun, timeout=10)
        self.process.wait()

    def family(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:  # ended, and what it left is in its group
            return []


def run(chosen: list[Stage], out: Path, until: float) -> dict[str, Any]:
    """All stages, group by group; the summary is written after each."""
    summary: dict[str, Any] = {}
    for _, group in groupby(chosen, key=lambda stage: stage.group):
        running = []
        for stage in group:
            left = until - time.monotonic()
            if left < stage.least:
                summary[stage.name] = {"status": "skipped", "why": f"{left:.0f} s are left"}
                continue
            running.append(Running(stage, out, min(stage.limit, left)))
        for one in running:
            summary[one.stage.name] = one.ended()
        for one in running:
            stage, left = one.stage, until - time.monotonic()
            if summary[stage.name]["status"] == "failed" and stage.again and left >= stage.least:
                first = summary[stage.name]
                other = stage._replace(command=(*stage.command, *stage.again))
                second = Running(other, out, min(stage.limit, left)).ended()
                summary[stage.name] = {**second, "again": list(stage.again), "first": first}
        (out / "proof.json").write_text(json.dumps(summary, indent=1) + "\n")
        for one in running:
            said = summary[one.stage.name]
            print(f"{one.stage.name}: {said['status']}, {said['seconds']} s", flush=True)
            if said["status"] != "done":
                print(said["tail"], flush=True)
    return summary


def _take(path: Path) -> Any:
    """What a stage wrote, which is in the summary from now on; None where there is nothing."""
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
    except ValueError:  # cut amid writing; the file stays
        return None
    path.unlink()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [stage.name for stage in stages(rehearse=False)]
    parser.add_argument("--out", type=Path, required=True, help="a folder for the results")
    parser.add_argument("--began", type=float, default=time.time(), help="when time began to count")
    parser.add_argument("--seconds", type=float, help="in all (default: 480; to rehearse: 1800)")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, interpreted on a CPU")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STAGE")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seconds = args.seconds or (1800 if args.rehearse else 480)
    until = time.monotonic() + seconds - (time.time() - args.began)
    chosen = [stage for stage in stages(rehearse=args.rehearse) if stage.name in args.only]
    summary = run(chosen, args.out, until)
    sys.exit(any(said["status"] != "done" for said in summary.values()))


if __name__ == "__main__":
    main()
