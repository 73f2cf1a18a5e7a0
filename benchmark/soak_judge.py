"""Holds the answers of a soak against those that the same prompts get alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from load import MAX_TOKENS, Answer, Prompt
from transformers import AutoModelForCausalLM, AutoTokenizer

import oracle
from sglang_multiverse.structure import Limits, parse, resolve_tags, walk

if TYPE_CHECKING:
    from server import Server

TIE = 1e-3


class Judge:
    """Holds answers against those that the same prompts get alone, on the same server."""

    def __init__(self, model_path: Path) -> None:
        # Before the load: whoever trains the model anew meanwhile must not be the judge.
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self.tags = resolve_tags(self.tokenizer)
        ends = self.model.generation_config.eos_token_id
        self.eos = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def compare(
        self, server: Server, prompts: Sequence[Prompt], answers: Sequence[Answer]
    ) -> tuple[Counter[str], list[dict[str, Any]]]:
        """What was counted, and each answer that differs where there was no tie."""
        counts: Counter[str] = Counter()
        wrong: list[dict[str, Any]] = []
        solos: dict[int, tuple[list[int], str]] = {}
        for answer in answers:
            ids = list(prompts[answer.prompt].ids)
            if answer.prompt not in solos:
                server.flush()
                found = server.generate(ids, sampling_params={"max_new_tokens": MAX_TOKENS})
                finish = found["meta_info"]["finish_reason"]["type"]
                solos[answer.prompt] = (found["output_ids"], finish)
            solo, finish = solos[answer.prompt]
            if self._cut_in_fork(ids, answer.ids, answer.finish) or self._cut_in_fork(
                ids, solo, finish
            ):
                counts["not_compared"] += 1
                continue
            counts["compared"] += 1
            at = first_difference(answer, solo)
            if at is None:
                continue
            if at < len(solo) and self._gap(ids, solo, at) < TIE:
                counts["ties"] += 1
                continue
            counts["mismatches"] += 1
            wrong.append(
                {
                    "prompt": ids,
                    "at": at,
                    "gap": round(self._gap(ids, solo, at), 6) if at < len(solo) else None,
                    "answer": list(answer.ids),
                    "alone": solo,
                }
            )
        counts["alone"] = len(solos)
        return counts, wrong

    def waves(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Counter[str]:
        """Answers with a block whose branches never all ran at once, by who wanted that."""
        counts: Counter[str] = Counter()
        for answer in answers:
            prompt = prompts[answer.prompt].ids
            blocks = walk(parse([*prompt, *answer.ids], self.tags).blocks)
            widest = max(
                (len(b.branches) for b in blocks if (b.goal_end or 0) > len(prompt)), default=0
            )
            if answer.summary["max_concurrent_branches"] < widest:
                counts["asked_for" if answer.narrow else "under_pressure"] += 1
        return counts

    def _cut_in_fork(self, prompt: list[int], answer: Sequence[int], finish: str) -> bool:
        """Where a budget cuts depends on which branch was ahead."""
        return finish == "length" and bool(parse([*prompt, *answer], self.tags).open_blocks)

    def _gap(self, prompt: list[int], solo: list[int], at: int) -> float:
        whole = [*prompt, *solo]
        scores = oracle.score(self.model, whole, self.tags, len(prompt), Limits(), self.eos)
        return float(scores.gap[at])


def first_difference(answer: Answer, solo: Sequence[int]) -> int | None:
    """Where the two part. One cut by its budget is to be a beginning of the other."""
    for k, (one, other) in enumerate(zip(answer.ids, solo, strict=False)):
        if one != other:
            return k
    if len(answer.ids) == len(solo) or (answer.finish == "length" and len(answer.ids) < len(solo)):
        return None
    return min(len(answer.ids), len(solo))
