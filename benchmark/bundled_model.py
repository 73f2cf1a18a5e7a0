"""The package's model against its autoregressive twin, on problems that neither was trained on.

    python benchmark/bundled_model.py --twin RUN

RUN is the folder that training with the twin's recipe wrote. `--multiverse RUN`
measures another model than the package's own. Every problem is asked three
times, greedily: of the model with and without the guard, and of the twin, one
after the other, so that no two models share the cores. Then both are timed on
some of the problems, one request at a time and in an order that changes from
problem to problem; what is timed is the whole HTTP request, and a pair counts
where both answers are right. Results, per family and per kind of problem, go
to `results/bundled-model.json`; `model_card.py` renders them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "test")]

from machine import describe  # noqa: E402
from twin_figures import Timed, Verdict, summary  # noqa: E402

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
from sglang_multiverse.training.merge import merge  # noqa: E402

MAX_TOKENS = 700
# Seeds of this benchmark; `training.data` counts up from 0.
FIRST_SEED = 1_000_000
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


def run_of(folder: Path) -> Run:
    """The model of a training run, merged beside its adapter at the first time."""
    model = folder / "merged"
    if not model.exists():
        merge(folder / "adapter", model)
    return Run(model, trained(folder))


def packaged_run() -> Run:
    return Run(model_path(), trained(PACKAGE))


def trained(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "training.json").read_text())
    names = ("command", "steps", "tokens", "learned_tokens", "minutes", "machine", "examples")
    return {name: told[name] for name in names}


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
    shares: dict[Kind, int] = {"flat": 3, "nested": 1, "sequential": 1, "single": 1}
    return [
        generate(FIRST_SEED + i, "held-out", kind, family)
        for kind, times in shares.items()
        for family in families_of(kind)
        for i in range(per_family * times)
    ]


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


def to_time(problems: Sequence[Conversation], pairs: int) -> list[Conversation]:
    """Up to `pairs` flat problems of each number of branches, and as many sequential ones."""
    found: dict[int, list[Conversation]] = {}
    for problem in problems:
        if problem.kind in ("flat", "sequential"):
            found.setdefault(problem.width, []).append(problem)
    return [
        problem
        for _, some in sorted(found.items())
        for problem in some[:: max(1, len(some) // pairs)][:pairs]
    ]


def time_pairs(problems: Sequence[Conversation], model: Model, twin: Model) -> list[Timed]:
    """Both models alone on the machine, one right after the other, from empty caches."""
    timed = []
    order = [model, twin]
    for problem in [problems[0], *track(problems, "timing")]:  # the first one warms both up
        order.reverse()
        answers: dict[Model, Answer] = {}
        for asked in order:
            asked.flush()
            answers[asked] = asked.ask(problem)
        timed.append(pair(problem, answers[model], answers[twin]))
    return timed[1:]


def pair(problem: Conversation, answer: Answer, plain: Answer) -> Timed:
    return Timed(
        branches=problem.width,
        both_right=check(problem, answer.text) and check(problem, plain.text),
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
        "--per-family", type=int, default=8, help="problems of each kind and family; flat: 3 times"
    )
    parser.add_argument("--pairs", type=int, default=8, help="timed, of each number of branches")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bundled-model.json")
    args = parser.parse_args(argv)

    from transformers import AutoTokenizer

    machine = describe()
    multiverse = run_of(args.multiverse) if args.multiverse else packaged_run()
    twin_run = run_of(args.twin)
    tokenizer = AutoTokenizer.from_pretrained(multiverse.model)
    tags = resolve_tags(tokenizer)
    env = {"OMP_NUM_THREADS": str(args.threads), **NO_CHECKS}
    problems = choose(args.per_family)
    with (
        Server(model=multiverse.model, **env) as first,
        Server(model=twin_run.model, **env) as second,
    ):
        model, twin = Model(first.url, tokenizer), Model(second.url, None)
        verdicts = measure(problems, model, twin, tags, args.clients)
        timed = time_pairs(to_time(problems, args.pairs), model, twin)
    result = {
        "command": " ".join(
            ["python benchmark/bundled_model.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "machine": machine,
        "torch_threads": args.threads,
        "training": {"multiverse": multiverse.training, "twin": twin_run.training},
        **summary(verdicts, timed),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    Console().print_json(json.dumps({k: v for k, v in result.items() if k != "machine"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
