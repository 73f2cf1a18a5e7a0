"""Every bound holds, and what ends a branch does not end the request."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from asking import chat_ids, user
from models import problems
from server import Server
from sglang_multiverse.structure import Interval, Role, TagTable, Trace, parse, walk

pytestmark = pytest.mark.server

HEADER = "\n<Path>\n1:"


class Asker:
    """One prompt, asked with different options; answers are read as text behind it."""

    def __init__(self, server: Server, ids: list[int], tags: TagTable) -> None:
        self.server, self.ids, self.tags = server, ids, tags
        self.full = self.ask()
        assert self.full["meta_info"]["finish_reason"]["type"] == "stop"

    def ask(self, multiverse: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        answer = self.server.generate(
            self.ids,
            sampling_params={"max_new_tokens": 900, **params},
            return_logprob=True,
            multiverse=multiverse or {},
        )
        meta = answer["meta_info"]
        rows = meta["output_token_logprobs"]
        assert [row[1] for row in rows] == answer["output_ids"]
        assert meta["completion_tokens"] == len(answer["output_ids"])
        assert meta["multiverse"]["tokens"] == meta["completion_tokens"]
        return answer

    def sweep(self, name: str, values: Iterable[int]) -> list[tuple[int, dict[str, Any]]]:
        """An answer for each value of a bound, several at a time."""
        values = list(values)
        with ThreadPoolExecutor(8) as clients:
            if name == "max_new_tokens":
                answers = clients.map(lambda n: self.ask(max_new_tokens=n), values)
            else:
                answers = clients.map(lambda n: self.ask({name: n}), values)
            return list(zip(values, answers, strict=True))

    def trace(self, answer: dict[str, Any]) -> Trace:
        return parse([*self.ids, *answer["output_ids"]], self.tags)

    @property
    def goal(self) -> int:
        """Tokens of the whole answer up to its first `</Goal>`."""
        out: list[int] = self.full["output_ids"]
        return out.index(self.tags.id_of[Role.GOAL_CLOSE]) + 1

    @property
    def branches(self) -> int:
        return len(self.trace(self.full).blocks[0].branches)


@pytest.fixture(scope="module")
def flat(server: Server, tiny_tokenizer: Any, tiny_tags: TagTable) -> Asker:
    """Four parts or more, each one path, and one block."""
    problem = problems.generate(0, "held-out", "flat")
    asker = Asker(server, chat_ids(problem, tiny_tokenizer), tiny_tags)
    assert asker.full["meta_info"]["multiverse"]["blocks"] == 1
    assert asker.branches >= 3
    return asker


@pytest.fixture(scope="module")
def nested(server: Server, tiny_tokenizer: Any, tiny_tags: TagTable) -> Asker:
    """A path of it opens a block of its own."""
    problem = problems.generate(0, "held-out", "nested")
    asker = Asker(server, chat_ids(problem, tiny_tokenizer), tiny_tags)
    assert asker.full["meta_info"]["multiverse"]["depth"] == 2
    return asker


def reason(answer: dict[str, Any]) -> str:
    return str(answer["meta_info"]["finish_reason"]["type"])


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["meta_info"]["multiverse"]
    return found


def path_spans(trace: Trace) -> list[Interval]:
    return [branch.span for block in walk(trace.blocks) for branch in block.branches]


# --- budgets -----------------------------------------------------------------


def test_max_tokens_cuts_exactly(flat: Asker, tiny_tokenizer: Any) -> None:
    """To the token, in plan, branches and conclusion.

    One gap is by design: branches start all or none, so where their headers do
    not fit, the answer ends at `</Goal>`.
    """
    goal, length = flat.goal, len(flat.full["output_ids"])
    header = len(tiny_tokenizer.encode(HEADER, add_special_tokens=False))
    headers = header * flat.branches
    around = range(goal - 2, goal + headers + 12)
    last = range(flat.trace(flat.full).blocks[0].branches[-1].span.hi - len(flat.ids) - 3, length)
    for n, answer in flat.sweep("max_new_tokens", {1, 2, 9, *around, *last[:8], length - 1}):
        expected = goal if goal < n < goal + headers else n
        assert answer["meta_info"]["completion_tokens"] == expected, n
        assert reason(answer) == "length"
        if expected <= goal:
            assert answer["output_ids"] == flat.full["output_ids"][:expected]
    (_, whole), (_, more) = flat.sweep("max_new_tokens", (length, length + 1))
    assert reason(whole) == reason(more) == "stop"
    assert whole["output_ids"] == more["output_ids"] == flat.full["output_ids"]


def test_max_tokens_amid_nested_branches(nested: Asker) -> None:
    length = len(nested.full["output_ids"])
    # The headers of the widest block are what may be missing.
    widest = max(len(block.branches) for block in walk(nested.trace(nested.full).blocks))
    exact = 0
    values = range(nested.goal + 20, length, 9)
    for n, answer in nested.sweep("max_new_tokens", values):
        used = answer["meta_info"]["completion_tokens"]
        assert n - 8 * widest < used <= n
        assert reason(answer) == "length"
        exact += used == n
    assert exact >= 0.7 * len(values)


def test_max_new_tokens_zero(server: Server, flat: Asker, tiny_tokenizer: Any) -> None:
    """Nothing is generated: behind a plain prompt, within a branch, at a fork, after one."""
    cuts = [
        0,
        flat.goal,
        flat.goal + 7,
        *(span.hi - len(flat.ids) for span in path_spans(flat.trace(flat.full))),
        len(flat.full["output_ids"]) - 1,
    ]
    for cut in cuts:
        ids = [*flat.ids, *flat.full["output_ids"][:cut]]
        answer = server.generate(ids, sampling_params={"max_new_tokens": 0})
        assert answer["output_ids"] == []
        assert answer["text"] == ""
        told = summary(answer)
        assert told["tokens"] == told["critical_path_tokens"] == 0
        assert answer["meta_info"]["completion_tokens"] == 0


def test_max_critical_tokens(flat: Asker, tiny_tokenizer: Any) -> None:
    header = len(tiny_tokenizer.encode(HEADER, add_special_tokens=False))
    whole = summary(flat.full)["critical_path_tokens"]
    # What follows the branches has a place of its own for each token.
    tail = len(flat.ids) + len(flat.full["output_ids"]) - path_spans(flat.trace(flat.full))[-1].hi
    at_goal = range(flat.goal - 1, flat.goal + header + 3)
    at_join = range(whole - tail - 2, whole - tail + 6)
    values = {1, 20, *at_goal, *at_join, whole - 1}
    for limit, answer in flat.sweep("max_critical_tokens", values):
        told = summary(answer)
        expected = flat.goal if flat.goal < limit < flat.goal + header else limit
        assert told["critical_path_tokens"] == expected, limit
        assert reason(answer) == "length"
        assert told["tokens"] == expected or told["tokens"] > flat.goal
    ((_, answer),) = flat.sweep("max_critical_tokens", [whole])
    assert answer["output_ids"] == flat.full["output_ids"]


def test_max_critical_tokens_with_nested_blocks(nested: Asker) -> None:
    whole = summary(nested.full)["critical_path_tokens"]
    for limit, answer in nested.sweep("max_critical_tokens", range(nested.goal, whole, 7)):
        assert limit - 10 < summary(answer)["critical_path_tokens"] <= limit
        assert reason(answer) == "length"


@pytest.mark.parametrize("limit", [16, 21])
def test_max_path_tokens_closes_a_branch(flat: Asker, tiny_tags: TagTable, limit: int) -> None:
    longest = max(span.hi - span.lo for span in path_spans(flat.trace(flat.full)))
    assert longest > limit
    answer = flat.ask({"max_path_tokens": limit})
    trace = flat.trace(answer)
    spans = path_spans(trace)
    assert len(spans) == flat.branches
    assert max(span.hi - span.lo for span in spans) == limit
    assert all(b.closed for block in trace.blocks for b in block.branches)
    # The tag is forced, and says so; a shorter branch wrote its own.
    rows = answer["meta_info"]["output_token_logprobs"]
    for span in spans:
        logprob, token, *_ = rows[span.hi - 1 - len(flat.ids)]
        assert token == tiny_tags.id_of[Role.BRANCH_CLOSE]
        if span.hi - span.lo == limit:
            assert logprob is None or logprob > -1
        else:
            assert logprob is not None
    assert sum(rows[s.hi - 1 - len(flat.ids)][0] is None for s in spans) >= 1


# --- structure ---------------------------------------------------------------


def test_max_branches(flat: Asker) -> None:
    answer = flat.ask({"max_branches": 2})
    trace = flat.trace(answer)
    assert trace.blocks
    assert max(len(block.branches) for block in walk(trace.blocks)) == 2
    assert summary(answer)["max_concurrent_branches"] == 2


def test_max_depth(nested: Asker) -> None:
    answer = nested.ask({"max_depth": 1})
    assert summary(answer)["depth"] == 1
    assert all(not b.blocks for block in nested.trace(answer).blocks for b in block.branches)
    assert summary(answer)["branches"] < summary(nested.full)["branches"]


def test_max_total_branches(nested: Asker) -> None:
    first = len(nested.trace(nested.full).blocks[0].branches)
    answer = nested.ask({"max_total_branches": first})
    assert summary(answer)["branches"] == first
    assert summary(answer)["depth"] == 1
    # One after another or side by side, plans know of each other: the bound is exact.
    for room in range(first + 1, summary(nested.full)["branches"]):
        for width in (1, 16):
            answer = nested.ask({"max_total_branches": room, "max_parallel_branches": width})
            assert first <= summary(answer)["branches"] <= room


def test_one_branch_at_a_time_gives_the_same_text(nested: Asker, flat: Asker) -> None:
    for asker in (nested, flat):
        answer = asker.ask({"max_parallel_branches": 1})
        assert summary(answer)["max_concurrent_branches"] == 1
        assert summary(asker.full)["max_concurrent_branches"] >= 3
        assert answer["text"] == asker.full["text"]
        same = ("tokens", "critical_path_tokens", "blocks", "branches", "depth")
        assert [summary(answer)[k] for k in same] == [summary(asker.full)[k] for k in same]


def test_the_guard_decides_what_may_come_next(flat: Asker, tiny_tags: TagTable) -> None:
    """A model pushed towards a tag that is out of place writes it only without the guard."""
    pushed = {str(tiny_tags.id_of[Role.CONCLUSION_CLOSE]): 100.0}
    free = flat.ask({"guard": False}, logit_bias=pushed, max_new_tokens=10)
    assert set(free["output_ids"]) == {tiny_tags.id_of[Role.CONCLUSION_CLOSE]}
    guarded = flat.ask({"guard": True}, logit_bias=pushed, max_new_tokens=10)
    assert guarded["output_ids"] == flat.full["output_ids"][:10]
    # A model that writes well needs no guard.
    assert flat.ask({"guard": False})["text"] == flat.full["text"]


# --- stops -------------------------------------------------------------------


def branch_texts(asker: Asker, answer: dict[str, Any], tokenizer: Any) -> list[str]:
    ids = [*asker.ids, *answer["output_ids"]]
    return [tokenizer.decode(ids[span.lo : span.hi]) for span in path_spans(asker.trace(answer))]


def test_a_stop_string_ends_its_branch_only(flat: Asker, tiny_tokenizer: Any) -> None:
    texts = branch_texts(flat, flat.full, tiny_tokenizer)
    # Every branch says it once; the plan and the conclusion do not.
    stop = "Result"
    assert [text.count(stop) for text in texts] == [1] * flat.branches
    assert flat.full["text"].count(stop) == flat.branches
    answer = flat.ask(stop=[stop])
    assert reason(answer) == "stop"
    for whole, cut in zip(texts, branch_texts(flat, answer, tiny_tokenizer), strict=True):
        # Within a branch the stop string stays, since the text goes on behind it.
        body = cut.removesuffix("</Path>")
        assert body != cut
        assert whole.startswith(body)
        assert len(body) - len(whole.partition(stop)[0] + stop) in range(3)
    assert "</Conclusion>\n</Parallel>" in answer["text"]


def test_a_stop_string_outside_branches_ends_the_answer(flat: Asker) -> None:
    answer = flat.ask(stop=["</Conclusion>"])
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": "</Conclusion>"}
    assert answer["text"] == flat.full["text"].partition("</Conclusion>")[0]
    # A header is no place to stop at: its words are not the model's.
    assert flat.ask(stop=["<Path>\n1:"])["text"] == flat.full["text"]
    assert flat.ask(stop=["<Outline>"])["text"] == flat.full["text"].partition("<Outline>")[0]


def test_eos_in_a_branch_is_its_closing_tag(
    flat: Asker, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """`min_new_tokens` keeps the plan going; the first token of a branch then is EOS."""
    eos = tiny_tokenizer.eos_token_id
    answer = flat.ask(
        min_new_tokens=flat.goal + 1, logit_bias={str(eos): 100.0}, max_new_tokens=300
    )
    trace = flat.trace(answer)
    header = len(tiny_tokenizer.encode(HEADER, add_special_tokens=False))
    spans = path_spans(trace)
    assert len(spans) == flat.branches
    assert [span.hi - span.lo for span in spans] == [header + 1] * len(spans)
    rows = answer["meta_info"]["output_token_logprobs"]
    for span in spans:
        logprob, token, *_ = rows[span.hi - 1 - len(flat.ids)]
        assert (logprob, token) == (None, tiny_tags.id_of[Role.BRANCH_CLOSE])
    assert eos not in answer["output_ids"][:-1]


def test_ignore_eos_and_min_new_tokens(flat: Asker) -> None:
    length = len(flat.full["output_ids"])
    answer = flat.ask(ignore_eos=True, max_new_tokens=length + 20)
    assert reason(answer) == "length"
    assert answer["meta_info"]["completion_tokens"] == length + 20
    answer = flat.ask(min_new_tokens=length + 10, max_new_tokens=length + 60)
    assert answer["meta_info"]["completion_tokens"] >= length + 10
    assert answer["output_ids"][: length - 1] == flat.full["output_ids"][:-1]


def test_stop_token_ids(flat: Asker, tiny_tags: TagTable) -> None:
    stop = tiny_tags.id_of[Role.BLOCK_CLOSE]
    answer = flat.ask(stop_token_ids=[stop])
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}
    assert answer["output_ids"][-1] == stop


# --- other features of SGLang ------------------------------------------------


@pytest.mark.parametrize(
    ("penalty", "size"), [("frequency_penalty", 0.3), ("presence_penalty", 2.0)]
)
def test_penalties_work_in_branches(flat: Asker, penalty: str, size: float) -> None:
    """Small enough that the same text is written, with other probabilities in every branch."""
    answer = flat.ask(**{penalty: size})
    assert answer["output_ids"] == flat.full["output_ids"]
    rows = answer["meta_info"]["output_token_logprobs"]
    plain = flat.full["meta_info"]["output_token_logprobs"]
    for span in path_spans(flat.trace(flat.full)):
        inside = range(span.lo - len(flat.ids), span.hi - len(flat.ids))
        pairs = [(rows[i][0], plain[i][0]) for i in inside if plain[i][0] is not None]
        assert max(abs(new - old) for new, old in pairs) > 1e-5


def test_structured_output_is_served_without_forks(server: Server) -> None:
    body = {"model": "m", "messages": user("Amy has 2 apples and gets 3."), "max_tokens": 100}
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Amy", "Ben"]}, "total": {"enum": [5, 6]}},
        "required": ["name", "total"],
        "additionalProperties": False,
    }
    asked = [
        {"regex": r"Answer: (Amy|Ben) [0-9]"},
        # Blank space without end is allowed by a schema, and small models like it.
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            },
            "logit_bias": {},
        },
        {"regex": r"<Parallel><Goal><Outline>1: a</Outline></Goal>"},
    ]
    texts = []
    for extra in asked:
        answer = server.http.post("/v1/chat/completions", json={**body, **extra}).json()
        (choice,) = answer["choices"]
        assert choice["multiverse"]["branches"] == 0
        texts.append((choice["message"]["content"], choice["finish_reason"]))
    assert texts[0][0].startswith("Answer: ")
    assert texts[0][1] == "stop"
    assert texts[1][1] == "length" or json.loads(texts[1][0])["name"] in ("Amy", "Ben")
