"""What may happen to a server, one call each, and what must hold whatever happened."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from transformers import AutoTokenizer

from sglang_multiverse.structure import Limits

from .owners import check_owners
from .scheduler import TINY, scheduler
from .toy import Toy, linear

LIMITS = Limits(2, 3, 65536)
OPTIONS = {
    "max_depth": LIMITS.max_depth,
    "max_branches": LIMITS.max_branches,
    "max_total_branches": LIMITS.max_total_branches,
}
_MOST = 240  # tokens of a text of the toy, after which it is not used


@functools.cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(TINY)


@functools.cache
def texts() -> list[list[int]]:
    """Whole texts of the toy's, prompt and answer, most of them with nested blocks."""
    toy = Toy(tokenizer(), 64)
    found = []
    for n in range(200):
        prompt = tokenizer().encode(f"{'abc' * (n % 4)}{n}", add_special_tokens=False)
        answer = linear(toy, prompt, LIMITS, _MOST)
        if answer is not None and len(answer) > 20 + 10 * (len(found) % 8):
            found.append([*prompt, *answer[:-1]])
    return found


@functools.cache
def expected(prompt: tuple[int, ...], limits: Limits = LIMITS) -> list[int] | None:
    return linear(Toy(tokenizer(), 64), prompt, limits, _MOST)


class Script:
    """A scheduler on the toy model and what was asked of it.

    Attributes:
        steps: iterations of the event loop so far.
    """

    def __init__(
        self, *flags: str, slots: int, rows: int, overlap: bool = False, sees: bool = False
    ) -> None:
        self.toy = Toy(tokenizer(), slots)
        self.scheduler = scheduler(
            self.toy, *flags, slots=slots, rows=rows, overlap=overlap, sees=sees, **OPTIONS
        )
        self.sizes = slots, rows
        # A chain of nested branches holds a row each, and its trunk one.
        self.limits = dataclasses.replace(LIMITS, max_depth=min(LIMITS.max_depth, rows - 1))
        self.steps = 0
        self.prompts: dict[str, tuple[int, ...]] = {}
        self.aborted: set[str] = set()

    def ask(self, text: int, cut: int, **options: Any) -> str | None:
        """Ask for the end of a text that is cut anywhere; `None` if it would not end."""
        whole = texts()[text % len(texts())]
        prompt = tuple(whole[: 1 + cut % len(whole)])
        return self.ask_ids(prompt, **options)

    def ask_ids(self, prompt: tuple[int, ...], **options: Any) -> str | None:
        if expected(prompt, self.limits) is None:
            return None
        rid: str = self.scheduler.ask(prompt, max_new_tokens=_MOST + 60, **options)
        self.prompts[rid] = prompt
        return rid

    def step(self) -> None:
        self.scheduler.step()
        self.steps += 1
        self.check()
        check_owners(self.scheduler, *self.sizes)

    def abort(self, which: int, how: str) -> None:
        from sglang.srt.managers.io_struct import AbortReq

        open_rids = self.scheduler.open
        if how == "all":
            self.scheduler.send(AbortReq(abort_all=True))
            self.aborted.update(open_rids)
        elif open_rids:
            rid = open_rids[which % len(open_rids)]
            rid = rid[:-1] if how == "prefix" and len(rid) > 2 else rid
            self.scheduler.send(AbortReq(rid=rid))
            self.aborted.update(other for other in open_rids if other.startswith(rid))

    def pause(self, mode: str, steps: int, *, flush: bool = False) -> None:
        """Pause, wait, and go on. With `flush`, new weights come in between, if it empties."""
        from sglang.srt.managers.io_struct import (
            ContinueGenerationReqInput,
            PauseGenerationReqInput,
        )

        self.scheduler.send(PauseGenerationReqInput(mode=mode))
        for _ in range(steps + 1):
            self.step()
        if flush and self.flush():
            # Whatever was kept in spite of it would be seen in the texts.
            self.toy.kv.fill_(-1)
        self.scheduler.send(ContinueGenerationReqInput(torch_empty_cache=False))

    def flush(self) -> bool:
        """Flush the cache; whether the scheduler could."""
        from sglang.srt.managers.io_struct import FlushCacheReqInput

        self.scheduler.replies.clear()
        self.scheduler.send(FlushCacheReqInput())
        self.step()
        return any(getattr(reply, "success", False) for reply in self.scheduler.replies)

    def _where(self) -> Iterator[tuple[str, Any]]:
        s = self.scheduler
        for req in s.waiting_queue:
            yield "queue", req
        for req in {*s.running_batch.reqs, *(s.last_batch.reqs if s.last_batch else ())}:
            yield "batch", req
        if s.chunked_req is not None:
            yield "batch", s.chunked_req

    def check(self) -> None:
        """Nothing is queued twice, or queued and in a batch; nobody open is forgotten."""
        places: dict[str, set[str]] = {}
        queued = [req.rid for req in self.scheduler.waiting_queue]
        assert len(queued) == len(set(queued)), f"queued twice: {queued}"
        for place, req in self._where():
            if not req.finished():
                places.setdefault(req.rid, set()).add(place)
        for rid, found in places.items():
            assert len(found) == 1, f"{rid} is in a batch and queued"
        sent = {getattr(message, "rid", None) for message in self.scheduler.inbox}
        for rid in self.scheduler.open:
            known = rid in places or rid in sent or rid in self.scheduler.families
            assert known, f"{rid} is lost"

    def finish(self, most: int = 6000) -> None:
        """Let everything end, and compare all answers."""
        for _ in range(most):
            if not self.scheduler.open and self.scheduler.is_fully_idle():
                break
            self.step()
        else:
            raise AssertionError(f"{self.scheduler.open} still run after {most} steps")
        self.scheduler.check_drained()
        for rid, prompt in self.prompts.items():
            answer = self.scheduler.answers[rid]
            if answer.finish["type"] == "abort":
                assert rid in self.aborted, f"{rid}: {answer.finish}"
            else:
                right = expected(prompt, self.limits)
                text, wanted = (tokenizer().decode(ids) for ids in (answer.ids, right))
                assert answer.ids == right, (
                    f"{tokenizer().decode(prompt)!r} ->\n{text!r}, not\n{wanted!r}"
                )
