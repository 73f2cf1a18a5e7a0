"""The package's model against its autoregressive twin, on problems that neither was trained on.

    python benchmark/bundled_model.py --twin RUN

RUN is the folder that training with the twin's recipe wrote. `--multiverse RUN`
measures another model than the package's own. Every problem is asked three
times, greedily: of the model with and without the guard, and of the twin, one
after the other, so that no two models share the cores. Then both are timed on
other problems, one request at a time and in an order that changes from problem
to problem; what is timed is the whole HTTP request, and a pair counts where
both answers are right and the branches are those asked for. Results, per family
and per kind of problem, go to `results/bundled-model.json`, once before the
timing and once after it; `model_card.py` renders them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

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
# Seeds of this benchmark; `training.data` counts up from 0. New ones after every measurement whose
# answers were looked at to decide how to train on (1,000,000 and 5,000,000 so far).
FIRST_SEED = 3_000_000
FIRST_TIMED_SEED = 2_000_000
# Settings in which the runs of a model and of its twin may differ. Precision is one: bf16 where
# the machine has it in hardware, fp32 elsewhere; the card says which.
TWIN = {
    *("attention", "precision", "data", "continue_from"),
    *("out", "threads", "log_every", "save_every", "resume"),
}
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


class Answers(NamedTuple):
    """To one problem: the model's with the guard and without, and the twin's."""

    guarded: Answer
    free: Answer
    plain: Answer


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer's structure is, against what the problem asks for."""

    well_formed: bool
    branches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A model to serve, and how it was trained.

    Attributes:
        passes: the record of its training, after those of the runs that it continues.
    """

    model: Path
    passes: tuple[dict[str, Any], ...]


def packaged_run() -> Run:
    return Run(model_path(), trained(PACKAGE))


def run_of(folder: Path, room: Path) -> Run:
    """The model of a training run, merged into a folder of `room`."""
    return Run(merge(folder / "adapter", room / folder.name), trained(folder))


def trained(folder: Path) -> tuple[dict[str, Any], ...]:
    record = json.loads((folder / "training.json").read_text())
    records = [record]
    while record := record.get("continued"):
        records.append(record)
    return tuple(reversed(records))


def differences(one: Run, other: Run) -> list[str]:
    """The settings, other than those that make a twin, in which two runs differ."""
    if len(one.passes) != len(other.passes):
        return ["number of passes"]
    pairs = [(a["config"], b["config"]) for a, b in zip(one.passes, other.passes, strict=True)]
    return sorted(
        {name for a, b in pairs for name in {*a, *b} - TWIN if a.get(name) != b.get(name)}
    )


def told(run: Run) -> list[dict[str, Any]]:
    """What the results say of each pass; its settings are in the command and its recipe."""
    names = ("command", "steps", "tokens", "learned_tokens", "minutes", "machine", "examples")
    return [
        {**{name: one[name] for name in names}, "precision": one["config"]["precision"]}
        for one in run.passes
    ]


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
    """As many of every family: of each number of branches, nested, and without a block.

    Ordered so that a timing that ends early has met all groups and families, and has about as
    many of each.
    """
    groups: list[tuple[str, Kind, int | None]] = [
        (NONE, "sequential", None),
        *((str(width), "flat", width) for width in PARTS),
        ("nested", "nested", None),
    ]
    families = families_of("flat")
    # As in a Latin square: each shift goes through all groups and all families.
    cells = [
        (group, held_out(kind, family, width))
        for shift in range(len(families))
        for (group, kind, width), family in zip(
            groups, families[shift:] + families[:shift], strict=True
        )
        if family in families_of(kind)
    ]
    return [(group, next(problems)) for _ in range(per_family) for group, problems in cells]


def held_out(kind: Kind, family: str, width: int | None) -> Iterator[Conversation]:
    for seed in count(FIRST_TIMED_SEED):
        problem = generate(seed, "held-out", kind, family)
        if width in (None, problem.width):
            yield problem


def ask_both(
    problems: Sequence[Conversation], model: Model, twin: Model, clients: int
) -> list[Answers]:
    guarded = model.ask_all(problems, "asking", clients, {"guard": True})
    free = model.ask_all(problems, "asking without the guard", clients, {"guard": False})
    plain = twin.ask_all(problems, "asking the twin", clients)
    return [Answers(*three) for three in zip(guarded, free, plain, strict=True)]


def verdict(problem: Conversation, answers: Answers, tokenizer: Any, tags: TagTable) -> Verdict:
    guarded, free, plain = answers
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
    problems: Sequence[tuple[str, Conversation]],
    model: Model,
    twin: Model,
    tags: TagTable,
    minutes: float,
) -> list[Timed]:
    """Both models alone on the machine, one right after the other, from empty caches.

    After `minutes` no further problem is begun.
    """
    timed = []
    end = time.monotonic() + 60 * minutes
    order = [model, twin]
    for group, problem in chain(problems[:1], track(problems, "timing")):  # one to warm up
        if time.monotonic() >= end:
            break
        order.reverse()
        answers: dict[Model, Answer] = {}
        for asked in order:
            asked.flush()
            answers[asked] = asked.ask(problem)
        opened = read(answers[model], model.tokenizer, tags).branches
        timed.append(pair(group, problem, answers[model], answers[twin], opened))
    return timed[1:]


def write_answers(
    path: Path,
    problems: Sequence[Conversation],
    answers: Sequence[Answers],
    verdicts: Sequence[Verdict],
) -> None:
    """A line of JSON for each problem: what was asked, wanted and answered, and the verdict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lines:
        for problem, given, judged in zip(problems, answers, verdicts, strict=True):
            texts = {name: answer.text for name, answer in given._asdict().items()}
            line = {"prompt": problem.prompt, "wanted": problem.solution, **texts, **asdict(judged)}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")


def pair(
    group: str, problem: Conversation, answer: Answer, plain: Answer, opened: tuple[int, ...]
) -> Timed:
    right = check(problem, answer.text) and check(problem, plain.text)
    return Timed(
        group=group,
        family=problem.family,
        comparable=right and opened == problem.branches,
        seconds=answer.seconds,
        twin_seconds=plain.seconds,
        tokens=answer.tokens,
        twin_tokens=plain.tokens,
        degree_of_parallelism=answer.degree_of_parallelism,
    )


def write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


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
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="of timing at most (default: no limit)"
    )
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "bundled-model.json")
    parser.add_argument("--answers", type=Path, help="a file for all answers (default: none)")
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
        problems = choose(args.per_family)
        answers = ask_both(problems, model, twin, args.clients)
        verdicts = [verdict(*one, tokenizer, tags) for one in zip(problems, answers, strict=True)]
        if args.answers:
            write_answers(args.answers, problems, answers, verdicts)
        facts = {
            "command": " ".join(
                ["python benchmark/bundled_model.py", *(sys.argv[1:] if argv is None else argv)]
            ),
            "machine": machine,
            "torch_threads": args.threads,
            "training": {"multiverse": told(multiverse), "twin": told(twin_run)},
        }
        # Twice: if the timing, by far the longer part, is stopped, the answers' part is there.
        write(args.out, {**facts, **summary(verdicts, [])})
        timed = time_pairs(to_time(args.pairs), model, twin, tags, args.minutes)
    result = {**facts, **summary(verdicts, timed)}
    write(args.out, result)
    Console().print_json(json.dumps({k: v for k, v in result.items() if k != "machine"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
