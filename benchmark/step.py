"""Host time of a decode step, ours and SGLang's, on real scheduler objects without a model.

    python benchmark/step.py --out benchmark/results/step-before.json

Two schedulers take turns, step by step: one forks, the other serves as many plain
rows as SGLang does (`enable=False`). The time of the stand-in for the model is taken
off, so what is left is Python and small tensors; the difference is ours. Time is
that of this thread on its core, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]
os.environ["SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"] = "1"

from machine import describe  # noqa: E402
from rich.console import Console  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

import modelless  # noqa: E402

CONSOLE = Console(stderr=True)
TOKENIZER = AutoTokenizer.from_pretrained(HERE.parent / "test" / "models" / "tiny-multiverse")
WORD = TOKENIZER.encode("a", add_special_tokens=False)[0]
BRANCHES = 16


def tag(name: str) -> int:
    return int(TOKENIZER.convert_tokens_to_ids(name))


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


PLAN = encode(
    "<Parallel>\n<Goal>\n"
    + "".join(f"<Outline>\n{i}: a\n</Outline>\n" for i in range(1, BRANCHES + 1))
)


class Writer:
    """A model that writes `token`, whatever it reads."""

    def __init__(self) -> None:
        self.token = WORD
        self._logits: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, forward: Any, *_: Any) -> torch.Tensor:
        key = (len(forward.seq_lens), self.token)
        if key not in self._logits:
            logits = torch.zeros(key[0], len(TOKENIZER))
            logits[:, self.token] = 1.0
            self._logits[key] = logits
        return self._logits[key]


class Side:
    """One scheduler, and the host time of its steps."""

    def __init__(self, flags: Sequence[str], slots: int, rows: int, *, forks: bool) -> None:
        self.writer = Writer()
        self.scheduler = modelless.scheduler(
            self.writer, *flags, slots=slots, rows=rows, strict=False, enable=forks
        )

    def step(self, token: int | None = None) -> float:
        """Seconds of one step, in which the model writes `token`; without the model's own."""
        self.writer.token = WORD if token is None else token
        worker, step = self.scheduler.tp_worker, self.scheduler.step
        model, start = worker.seconds, time.thread_time()
        # As whenever a row leaves: the head of the queue is looked at again.
        self.scheduler.running_batch.batch_is_full = False
        step()
        return time.thread_time() - start - (worker.seconds - model)

    def until(self, rows: int, most: int = 200) -> None:
        """Step until `rows` rows decode side by side."""
        for _ in range(most):
            self.step()
            batch = self.scheduler.last_batch
            if batch and batch.forward_mode.is_decode() and len(batch.reqs) == rows:
                return
        raise RuntimeError(f"never {rows} rows in {most} steps")


def quartiles(seconds: Sequence[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {"q1": low * 1e3, "median": middle * 1e3, "q3": high * 1e3}


def compare(ours: Side, plain: Side, steps: int) -> dict[str, Any]:
    """Milliseconds of both, step by step in turns, and of the difference within a turn."""
    for side in (ours, plain):
        for _ in range(10):
            side.step()
    gc.collect()
    gc.freeze()
    pairs = []
    for i in range(steps):
        sides = (ours, plain) if i % 2 else (plain, ours)
        took = {side: side.step() for side in sides}
        pairs.append((took[ours], took[plain]))
    return {
        "total_ms": quartiles([a for a, _ in pairs]),
        "plain_ms": quartiles([b for _, b in pairs]),
        "ours_ms": quartiles([a - b for a, b in pairs]),
        "ratio": quartiles([a / b / 1e3 for a, b in pairs]),
        "steps": steps,
    }


def decode(
    rows: int, steps: int, *, forked: bool, stream: bool, live: bool, plan: bool = True
) -> dict[str, Any]:
    """`rows` rows that decode: in prose, amid a plan, or as families of 16 branches each."""
    flags = ("--max-prefill-tokens", "65536", "--chunked-prefill-size", "65536")
    sizes = {"slots": rows * 600, "rows": rows + rows // BRANCHES + 8}
    multiverse = {"stream": "branches"} if live else None
    sides = []
    for forks in (True, False):
        side = Side(flags, **sizes, forks=forks)
        if forks and forked:
            for i in range(rows // BRANCHES):
                prompt = [*encode(f"{i}"), *PLAN, tag("</Goal>")]
                side.scheduler.ask(
                    prompt, stream=stream, multiverse=multiverse, max_new_tokens=BRANCHES * 1000
                )
        else:
            for i in range(rows):
                prompt = [*encode(f"{i}"), *PLAN * plan]
                side.scheduler.ask(prompt, stream=stream, max_new_tokens=400)
        side.until(rows)
        sides.append(side)
    return compare(*sides, steps)


def _once(repeats: int, prepare: Callable[[], Side], tokens: Sequence[int]) -> dict[str, Any]:
    """Milliseconds of a step, and of all of them, in which the model writes `tokens`."""
    worst, all_of_them = [], []
    for _ in range(repeats):
        side = prepare()
        gc.collect()
        took = [side.step(token) for token in tokens]
        worst.append(max(took))
        all_of_them.append(sum(took))
    return {
        "longest_step_ms": quartiles(worst),
        "all_ms": quartiles(all_of_them),
        "steps": len(tokens),
        "repeats": repeats,
    }


LONG = (
    *("--context-length", "131072", "--chunked-prefill-size", "131072"),
    *("--max-prefill-tokens", "131072"),
)


def fork(repeats: int, prefix: int = 32768) -> dict[str, Any]:
    """A prefix of 32k tokens becomes 16 branches: `</Goal>`, its KV, the headers, one step."""

    def prepare() -> Side:
        side = Side(LONG, prefix + 4096, 40, forks=True)
        side.scheduler.ask([*[WORD] * (prefix - len(PLAN)), *PLAN], max_new_tokens=4000)
        side.until(1)
        return side

    return _once(repeats, prepare, [tag("</Goal>"), WORD, WORD, WORD])


def join(repeats: int, branch: int = 2048) -> dict[str, Any]:
    """16 branches of 2k tokens become one sequence: `</Path>`, its KV, the conclusion, one step."""

    def prepare() -> Side:
        side = Side(LONG, BRANCHES * branch + 8192, 40, forks=True)
        text = [*PLAN, tag("</Goal>")]
        for i in range(1, BRANCHES + 1):
            text += [*encode("\n<Path>\n"), *encode(f"{i}:"), *[WORD] * (branch - 10)]
            text += [tag("</Path>")] * (i < BRANCHES)
        side.scheduler.ask(text, max_new_tokens=4000)
        side.until(1)
        return side

    return _once(repeats, prepare, [tag("</Path>"), WORD, WORD, WORD])


def blocked(steps: int, *, block: bool, known: int = 100_000) -> dict[str, Any]:
    """A step of one row while a prompt of 100k tokens waits for room at the head of the queue."""
    text = [WORD] * known
    if block:
        text = [*PLAN, tag("</Goal>"), *encode("\n<Path>\n1:"), *text, tag("</Path>")]
    sides = []
    for forks in (True, False):
        side = Side(LONG, known + 8192, 24, forks=forks)
        side.scheduler.ask([WORD + 1] * 20_000, max_new_tokens=8000)
        side.until(1)
        side.scheduler.ask(text, max_new_tokens=2000)
        side.until(1)
        sides.append(side)
    return compare(*sides, steps)


def measure(steps: int, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def record(name: str, result: dict[str, Any]) -> None:
        found[name] = result
        CONSOLE.print(name, row(result))

    for rows in (256, 512):
        record(f"{rows} rows, prose", decode(rows, steps, forked=False, plan=False, **_QUIET))
        record(f"{rows} rows amid a plan", decode(rows, steps, forked=False, **_QUIET))
        groups = f"{rows // BRANCHES} families of {BRANCHES}"
        record(groups, decode(rows, steps, forked=True, **_QUIET))
        record(f"{groups}, streamed", decode(rows, steps, forked=True, stream=True, live=False))
        record(f"{groups}, live", decode(rows, steps, forked=True, stream=True, live=True))
    record("100k tokens wait", blocked(steps, block=False))
    record("100k tokens with a block wait", blocked(steps, block=True))
    record("32k prefix forks into 16", fork(repeats))
    record("16 branches of 2k join", join(repeats))
    return found


_QUIET = {"stream": False, "live": False}


def row(result: dict[str, Any]) -> str:
    def show(key: str) -> str:
        value = result[key]
        return f"{value['median']:.2f} ({value['q1']:.2f}–{value['q3']:.2f})"

    keys = ("total_ms", "plain_ms", "ours_ms", "ratio")
    if "total_ms" not in result:
        keys = ("longest_step_ms", "all_ms")
    return " | ".join(show(key) for key in keys)


def table(found: dict[str, Any]) -> str:
    """Markdown: medians and quartiles, in milliseconds."""
    steps = {name: result for name, result in found.items() if "total_ms" in result}
    events = {name: result for name, result in found.items() if name not in steps}
    lines = ["| A decode step | total | plain SGLang | ours | ratio |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {row(result)} |" for name, result in steps.items()]
    lines += ["", "| An event | its longest step | all its steps |", "|---|---|---|"]
    lines += [f"| {name} | {row(result)} |" for name, result in events.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100, help="steps measured (default: 100)")
    parser.add_argument("--repeats", type=int, default=7, help="forks and joins (default: 7)")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe()
    found = measure(args.steps, args.repeats)
    machine["load_after"] = round(os.getloadavg()[0], 2)
    if args.out is not None:
        command = f"python benchmark/step.py --steps {args.steps} --repeats {args.repeats}"
        result = {"command": command, "machine": machine, "results": found}
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
