"""Real servers with the tests' small model, held against the oracle: every way to serve it.

All servers start at the same time and share the card; one that does not start is reported with
the end of its log, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import oracle
from asking import chat_ids
from models import problems
from server import MODEL, Server
from sglang_multiverse.structure import Limits, parse, resolve_tags

TOLERANCE = 1e-3
COUNTS = ("mismatches", "ties", "blocks", "tokens", "chosen")
SAFE = "--sampling-backend pytorch --grammar-backend none --max-running-requests 24".split()
OURS = ["--attention-backend", "multiverse_triton"]
NO_PREFILL_GRAPH = ["--cuda-graph-backend-prefill", "disabled"]
ON_GPU = ["--mem-fraction-static", "0.1", "--cuda-graph-max-bs-decode", "24"]


@dataclass(frozen=True)
class Way:
    """Attributes:
    backend: that it must turn out to serve with.
    """

    name: str
    flags: Sequence[str]
    backend: str


WAYS = (
    Way("ours, graphs, overlap", [*OURS, *NO_PREFILL_GRAPH, *ON_GPU], "multiverse_triton"),
    Way(
        "ours, eager",
        [*OURS, "--disable-cuda-graph", "--disable-overlap-schedule", *ON_GPU[:2]],
        "multiverse_triton",
    ),
    Way("triton", ["--attention-backend", "triton", *NO_PREFILL_GRAPH, *ON_GPU], "triton"),
    Way("as a user starts it", ON_GPU, "multiverse_triton"),
)
TINY_WAYS = (Way("ours, interpreted", OURS, "multiverse_triton"),)


@dataclass(frozen=True)
class Case:
    ids: list[int]
    most: int


def cases(tokenizer: Any, *, tiny: bool) -> list[Case]:
    """Problems from their beginning, and answers cut anywhere, whose prompts have blocks."""
    if tiny:
        problem = problems.generate(100, "held-out", "flat")
        solution = tokenizer.encode(problem.solution, add_special_tokens=False)
        return [Case(chat_ids(problem, tokenizer) + solution[: int(len(solution) * 0.9)], 6)]
    found = []
    for seed in range(36):
        problem = problems.generate(900 + seed, "held-out", problems.KINDS[seed % 4])
        solution = tokenizer.encode(problem.solution, add_special_tokens=False)
        kept = int(len(solution) * (0.0, 0.0, 0.3, 0.6, 0.9)[seed % 5])
        found.append(Case(chat_ids(problem, tokenizer) + solution[:kept], 900))
    return found


class Judge:
    """The oracle, on the CPU, for one answer at a time."""

    def __init__(self) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.tags = resolve_tags(self.tokenizer)
        self.model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
        self.eos = oracle.eos_ids(self.model, self.tokenizer)
        self.lock = Lock()

    def judge(self, case: Case, answer: dict[str, Any]) -> dict[str, Any]:
        out = answer["output_ids"]
        rows = answer["meta_info"]["output_token_logprobs"]
        forced = [row[0] is None for row in rows]
        ids = [*case.ids, *out]
        with self.lock:
            scores = oracle.score(
                self.model, ids, self.tags, len(case.ids), Limits(), self.eos, forced
            )
        chosen = [k for k in range(len(out)) if not forced[k]]
        others = [k for k in chosen if out[k] != int(scores.choice[k])]
        return {
            "error": max(
                (abs(rows[k][0] - float(scores.guarded_logprobs[k])) for k in chosen), default=0.0
            ),
            "ties": sum(float(scores.gap[k]) < TOLERANCE for k in others),
            "mismatches": sum(float(scores.gap[k]) >= TOLERANCE for k in others),
            "blocks": len(parse(ids, self.tags).blocks),
            "tokens": len(out),
            "chosen": len(chosen),
        }


def hold(server: Server, judge: Judge, asked: list[Case]) -> dict[str, Any]:
    """All cases, eight at a time."""

    def ask(case: Case) -> dict[str, Any]:
        params = {"max_new_tokens": case.most}
        answer = server.generate(case.ids, sampling_params=params, return_logprob=True)
        return judge.judge(case, answer)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as clients:
        judged = list(clients.map(ask, asked))
    server.flush()  # fails where something was lost
    return {
        "answers": len(judged),
        "seconds": round(time.monotonic() - began, 1),
        "error": max(one["error"] for one in judged),
        **{n: sum(one[n] for one in judged) for n in COUNTS},
    }


def serve(way: Way, judge: Judge, asked: list[Case]) -> dict[str, Any]:
    began = time.monotonic()
    server = Server(*SAFE, *way.flags)
    try:
        server.start()
        said: dict[str, Any] = {"up_after": round(time.monotonic() - began, 1)}
        info = server.http.get("/server_info").json()
        said["backend"] = info["attention_backend"]
        said["overlap"] = not info["disable_overlap_schedule"]
        said |= hold(server, judge, asked)
        said["right"] = (
            said["backend"] == way.backend
            and said["mismatches"] == 0
            and said["error"] < TOLERANCE
            and said["blocks"] > 0
            and said["chosen"] > 0
        )
    except Exception:  # one way's fault must not end the others
        return {
            "right": False,
            "failed": traceback.format_exc()[-1500:],
            "log": server.tail[-6000:],
        }
    else:
        return said
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="one server, one short answer")
    args = parser.parse_args()
    ways = TINY_WAYS if args.tiny else WAYS
    judge = Judge()
    asked = cases(judge.tokenizer, tiny=args.tiny)
    found: dict[str, Any] = {}
    lock = Lock()

    def one(way: Way) -> None:
        said = serve(way, judge, asked)
        with lock:
            found[way.name] = {"flags": " ".join([*SAFE, *way.flags]), **said}
            args.out.write_text(json.dumps(found, indent=1) + "\n")
            print(way.name, {key: said[key] for key in said if key != "log"}, flush=True)

    with ThreadPoolExecutor(len(ways)) as pool:
        list(pool.map(one, ways))
    sys.exit(not all(said["right"] for said in found.values()))


if __name__ == "__main__":
    main()
