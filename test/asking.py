"""How tests ask a server, and what they look up about it afterwards."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from models.problems import Problem
from server import Server
from sglang_multiverse.structure import Block, TagTable, outline_label, parse, walk

Message = dict[str, str]


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def chat_text(messages: Sequence[Message], tokenizer: Any) -> str:
    """What the chat route makes of messages that hold no tags of a user."""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def chat_ids(problem: Problem, tokenizer: Any) -> list[int]:
    text = chat_text(user(problem.prompt), tokenizer)
    return list(tokenizer.encode(text, add_special_tokens=False))


def check_idle(server: Server) -> None:
    """Nothing runs, waits or is held; the server lives, and its pool checks found nothing.

    Of the log, it judges what is new since it was last called.
    """
    assert server.alive, server.tail
    server.flush()
    # The report is a snapshot that the scheduler renews every few steps.
    for _ in range(50):
        load = server.http.get("/v1/loads").json()["loads"][0]
        if load["num_used_tokens"] == load["num_running_reqs"] == 0:
            break
        time.sleep(0.1)
    assert load["num_running_reqs"] == load["num_waiting_reqs"] == load["num_used_tokens"] == 0
    assert not any(load["queues"].values())
    assert server.alive
    log = server.new_log()
    for sign in ("Traceback", "A family is stuck", "pool memory leak", "leak detected"):
        assert sign not in log, server.tail


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true in {seconds:g} s"
        time.sleep(0.02)


def counters(server: Server) -> dict[str, float]:
    """The `sglang:multiverse_…` counters, by their own name."""
    found: dict[str, float] = {}
    for line in server.http.get("/metrics").text.splitlines():
        match = re.match(r"sglang:multiverse_(\w+)_total\{.*\} (\S+)$", line)
        if match:
            found[match[1]] = found.get(match[1], 0.0) + float(match[2])
    return found


def paths_of(prompt: Sequence[int], answer: Sequence[int], tags: TagTable) -> list[str]:
    """The branch path of each token of a linear answer: `""`, `"1"`, `"2.1"` …"""
    paths = [""] * (len(prompt) + len(answer))

    def mark(blocks: Sequence[Block], above: tuple[int, ...]) -> None:
        for block in blocks:
            for index, branch in enumerate(block.branches, start=1):
                path = (*above, index)
                lo, hi = branch.span
                paths[lo:hi] = [".".join(map(str, path))] * (hi - lo)
                mark(branch.blocks, path)

    mark(parse([*prompt, *answer], tags).blocks, ())
    return paths[len(prompt) :]


def header_tokens(
    prompt: Sequence[int], answer: Sequence[int], tags: TagTable, tokenizer: Any
) -> int:
    """How many tokens of an uncut answer are headers, found by their text."""
    ids = [*prompt, *answer]
    dialect = tags.dialect
    conclusion = tokenizer.encode(dialect.conclusion_header, add_special_tokens=False)
    count = 0
    for block in walk(parse(ids, tags).blocks):
        if block.goal_end <= len(prompt):
            continue
        for number, branch in enumerate(block.branches, start=1):
            outline = block.outlines[number - 1]
            label = outline_label(tokenizer.decode(ids[outline.lo : outline.hi]), number)
            header = tokenizer.encode(dialect.branch_header(label), add_special_tokens=False)
            lo = branch.span.lo
            assert ids[lo : lo + len(header)] == header
            count += len(header)
        end = block.branches[-1].span.hi
        assert ids[end : end + len(conclusion)] == conclusion
        count += len(conclusion)
    return count
