"""The package's model against its autoregressive twin, on problems that neither was trained on.

    python benchmark/bundled_model.py --twin RUN

RUN is the folder that training with the twin's recipe wrote. `--multiverse RUN`
measures another model than the package's own. Every problem is asked three
times, greedily: of the model with and without the guard, and of the twin, one
after the other, so that no two models share the cores. Then both are timed on
other problems, one request at a time and in an order that changes from problem
to problem; what is timed is the whole HTTP request, and a pair counts where
both answers are right and the branches are those asked for. Results, per family
and per kind of problem, go to `results/bundled-model.json`; `model_card.py`
renders them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "test")]

from machine import describe  # noqa: E402
from twin_figures import NONE, Timed, Verdict, summary  # noqa: E402

from server import Server  # noqa: E402
from sglang_multiverse.bundled import model_path  # noqa: E402
from sglang_multiverse.bundled.manifest import PACKAGE  # noqa: E402
from sglang_multiverse.structure import TagTable, parse, resolve_tags, walk  # noqa: E402
from sglang_multiverse.training.data import (  # noqa: E402
    Conversation,
    Kind,
    check,
    families_of,
    generate,
)
from sglang_multiverse.training.data.generate import PARTS  # noqa: E402
from sglang_multiverse.training.merge import merge  # noqa: E402

MAX_TOKENS = 700
# Seeds of this benchmark; `training.data` counts up from 0.
FIRST_SEED = 1_000_000
FIRST_TIMED_SEED = 2_000_000
# Settings in which the runs of a model and of its twin may differ. Precision is one: bf16 where
# the machine has it in hardware, fp32 elsewhere; the card says which.
TWIN = {"attention", "precision", "out", "data", "threads", "log_every", "save_every", "resume"}
NO_CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int
    degree_of_parallelism: float
    seconds: float
    finished: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer's structure is, against what the problem asks for."""

    well_formed: bool
    branches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A model to serve, and how it was trained."""

    model: Path
    training: dict[str, Any]


def packaged_run() -> Run:
    return Run(model_path(), trained(PACKAGE))


def run_of(folder: Path, room: Path) -> Run:
    """The model of a training run, merged into a folder of `room`."""
    return Run(merge(folder / "adapter", room / folder.name), trained(folder))


def trained(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return told


def differences(one: Run, other: Run) -> list[str]:
    """The settings, other than those that make a twin, in which two runs differ."""
    a, b = one.training["config"], other.training["config"]
    return sorted(name for name in {*a, *b} - TWIN if a.get(name) != b.get(name))


def told(run: Run) -> dict[str, Any]:
    """What the results say of a training run; its settings are those of its recipe."""
    names = ("command", "steps", "tokens", "learned_tokens", "minutes", "machine", "examples")
    precision = run.training["config"]["precision"]
    return {**{name: run.training[name] for name in names}, "precision": precision}


class Model:
    """One served model."""

    def __init__(self, url: str, tokenizer: Any) -> None:
        self.http = httpx.Client(base_url=url, timeout=600, trust_env=False)
        self.tokenizer = tokenizer

    def ask(self, problem: Conversation, multiverse: dict[str, Any] | None = None) -> Answer:
        body: dict[str, Any] = {
            "model": "default",
            "messages": problem.messages[:-1],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        if multiverse is not None:
            body["multiverse"] = multiverse
        begun = time.perf_counter()
        response = self.http.post("/v1/chat/completions", json=body)
        seconds = time.perf_counter() - begun
        response.raise_for_status()
        told = response.json()
        choice = told["choices"][0]
        structure = choice.get("multiverse") or {"degree_of_parallelism": 1.0}
        return Answer(
            choice["message"]["content"],
            told["usage"]["completion_tokens"],
            structure["degree_of_parallelism"],
            seconds,
            choice["finish_reason"] == "stop",
        )

    def ask_all(
        self,
        problems: Sequence[Conversation],
        what: str,
        clients: int,
        multiverse: dict[str, Any] | None = None,
    ) -> list[Answer]:
        """The answers in the problems' order, `clients` of them at a time."""
        with ThreadPoolExecutor(clients) as pool:
            answers = pool.map(lambda problem: self.ask(problem, multiverse), problems)
            return list(track(answers, what, total=len(problems)))

    def flush(self) -> None:
        self.http.post("/flush_cache", params={"timeout": 30}).raise_for_status()


def read(answer: Answer, tokenizer: Any, tags: TagTable) -> Reading:
    trace = parse(tokenizer.encode(answer.text, add_special_tokens=False), tags)
    counts = tuple(len(block.branches) for block in walk(trace.blocks))
    return Reading(answer.finished and trace.well_formed, counts)


def choose(per_family: int) -> list[Conversation]:
    """Three flat problems to one nested, one sequential and one single one, of every family."""
    shares: dict[Kind, int] = {"flat": 3, "nested": 1, "sequential": 1, "single": 1, "chat": 3}
    return [
        generate(FIRST_SEED + i, "held-out", kind, family)
        for kind, times in shares.items()
        for family in families_of(kind)
        for i in range(per_family * times)
    ]


def to_time(per_family: int) -> list[tuple[str, Conversation]]:
    """As many of every family: of each number of branches, nested, and without a block."""
    groups: list[tuple[str, Kind, int | None]] = [
        (NONE, "sequential", None),
        *((str(width), "flat", width) for width in PARTS),
        ("nested", "nested", None),
    ]
    return [
        (group, problem)
        for group, kind, width in groups
        for family in families_of(kind)
        for problem in islice(held_out(kind, family, width), per_family)
    ]


def held_out(kind: Kind, family: str, width: int | None) -> Iterator[Conversation]:
    for seed in count(FIRST_TIMED_SEED):
        problem = generate(seed, "held-out", kind, family)
        if width in (None, problem.width):
            yield problem


def measure(
    problems: Sequence[Conversation], model: Model, twin: Model, tags: TagTable, clients: int
) -> list[Verdict]:
    guarded = model.ask_all(problems, "asking", clients, {"guard": True})
    free = model.ask_all(problems, "asking without the guard", clients, {"guard": False})
    plain = twin.ask_all(problems, "asking the twin", clients)
    answers = zip(problems, guarded, free, plain, strict=True)
    return [verdict(*one, model.tokenizer, tags) for one in answers]


def verdict(
    problem: Conversation,
    guarded: Answer,
    free: Answer,
    plain: Answer,
    tokenizer: Any,
    tags: TagTable,
) -> Verdict:
    reading = read(guarded, tokenizer, tags)
    return Verdict(
        family=problem.family,
        kind=problem.kind,
        right=check(problem, guarded.text),
        right_unguarded=check(problem, free.text),
        twin_right=check(problem, plain.text),
        branches_as_asked=reading.branches == problem.branches,
        opened_none=not reading.branches,
        well_formed=reading.well_formed,
        well_formed_unguarded=read(free, tokenizer, tags).well_formed,
        finished=guarded.finished,
    )


def time_pairs(
    problems: Sequence[tuple[str, Conversation]], model: Model, twin: Model, tags: TagTable
) -> list[Timed]:
    """Both models alone on the machine, one right after the other, from empty caches."""
    timed = []
    order = [model, twin]
    for group, problem in chain(problems[:1], track(problems, "timing")):  # one to warm up
        order.reverse()
        answers: dict[Model, Answer] = {}
        for asked in order:
            asked.flush()
            answers[asked] = asked.ask(problem)
        opened = read(answers[model], model.tokenizer, tags).branches
        timed.append(pair(group, problem, answers[model], answers[twin], opened))
    return timed[1:]


def pair(
    group: str, problem: Conversation, answer: Answer, plain: Answer, opened: tuple[int, ...]
) -> Timed:
    right = check(problem, answer.text) and check(problem, plain.text)
    return Timed(
        group=group,
        comparable=right and opened == problem.branches,
        seconds=answer.seconds,
        twin_seconds=plain.seconds,
        tokens=answer.tokens,
        twin_tokens=plain.tokens,
        degree_of_parallelism=answer.degree_of_parallelism,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--twin", type=Path, required=True, help="the folder of a training run")
    parser.add_argument("--multiverse", type=Path, help="another (default: the package's model)")
    parser.add_argument(
        "--per-family", type=int, default=6, help="problems of each kind and family; flat: 3 times"
    )
    parser.add_argument(
        "--pairs", type=int, default=2, help="timed, of each number of branches and family"
    )
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bundled-model.json")
    args = parser.parse_args(argv)

    from transformers import AutoTokenizer

    machine = describe()
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        multiverse = run_of(args.multiverse, room) if args.multiverse else packaged_run()
        twin_run = run_of(args.twin, room)
        if differ := differences(multiverse, twin_run):
            parser.error(f"--twin: trained with other settings: {', '.join(differ)}")
        tokenizer = AutoTokenizer.from_pretrained(multiverse.model)
        tags = resolve_tags(tokenizer)
        env = {"OMP_NUM_THREADS": str(args.threads), **NO_CHECKS}
        first = stack.enter_context(Server(model=multiverse.model, **env))
        second = stack.enter_context(Server(model=twin_run.model, **env))
        model, twin = Model(first.url, tokenizer), Model(second.url, None)
        verdicts = measure(choose(args.per_family), model, twin, tags, args.clients)
        timed = time_pairs(to_time(args.pairs), model, twin, tags)
    result = {
        "command": " ".join(
            ["python benchmark/bundled_model.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "machine": machine,
        "torch_threads": args.threads,
        "training": {"multiverse": told(multiverse), "twin": told(twin_run)},
        **summary(verdicts, timed),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    Console().print_json(json.dumps({k: v for k, v in result.items() if k != "machine"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
