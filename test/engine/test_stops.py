"""Stop strings and stop tokens on forked text: what each ends, and where the text is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asking import chat_ids
from models import problems
from server import Server
from sglang_multiverse.structure import Role, TagTable

pytestmark = pytest.mark.server()


class Problem:
    """Two branches; the second and, later, the conclusion say "Ivy 7 apples."."""

    def __init__(self, server: Server, tokenizer: Any) -> None:
        self.server = server
        self.ids = chat_ids(problems.generate(3, "held-out", "flat"), tokenizer)
        self.full = self.ask()["text"]
        assert self.full.count(" apples.") == 2

    def ask(self, multiverse: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
        options = {} if multiverse is None else {"multiverse": multiverse}
        return self.server.generate(self.ids, sampling_params=params, **options)


@pytest.fixture(scope="module")
def problem(server: Server, tiny_tokenizer: Any) -> Problem:
    return Problem(server, tiny_tokenizer)


def test_the_text_is_cut_where_the_answer_ended_not_where_a_branch_did(problem: Problem) -> None:
    answer = problem.ask(stop=[" apples."])
    reason = answer["meta_info"]["finish_reason"]
    assert reason == {"type": "stop", "matched": " apples."}
    branch, conclusion = answer["text"].split("<Conclusion>")
    assert branch.count(" apples.") == 1
    assert conclusion.endswith("Ivy 7")
    kept = problem.ask(stop=[" apples."], no_stop_trim=True)["text"]
    assert kept == answer["text"] + " apples."


def test_a_streamed_answer_ends_at_the_same_place(problem: Problem) -> None:
    whole = problem.ask(stop=[" apples."])["text"]
    client = problem.server.http
    body = {
        "input_ids": problem.ids,
        "sampling_params": {"temperature": 0, "max_new_tokens": 1024, "stop": [" apples."]},
        "stream": True,
    }
    with client.stream("POST", "/generate", json=body) as events:
        lines = [line for line in events.iter_lines() if line.startswith("data: {")]
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["text"] == whole


def test_dormant_stops_mean_nothing_inside_blocks(problem: Problem, tiny_tags: TagTable) -> None:
    dormant = {"stop_in_blocks": False}
    inside = ["Result", " apples.", "<Outline>", "</Parallel>"]
    assert problem.ask(dormant, stop=inside)["text"] == problem.full
    tags = [tiny_tags.id_of[role] for role in (Role.OUTLINE_CLOSE, Role.BLOCK_CLOSE)]
    assert problem.ask(dormant, stop_token_ids=tags)["text"] == problem.full
    # Outside they mean what they always do.
    answer = problem.ask(dormant, stop=["Ivy"])
    assert answer["text"] == problem.full[: problem.full.rindex("Ivy")]
    assert problem.ask(dormant, stop=["think"])["text"] == problem.full.partition("think")[0]


def test_stops_are_awake_by_default(problem: Problem) -> None:
    assert problem.ask({"stop_in_blocks": True}, stop=["<Outline>"])["text"].endswith("<Goal>\n")


def test_beam_search_is_answered_without_forking(problem: Problem) -> None:
    answer = problem.ask(beam_width=2, max_new_tokens=40)
    assert answer["meta_info"]["completion_tokens"] == 40
    assert "multiverse" not in answer["meta_info"]
    assert problem.ask()["text"] == problem.full
