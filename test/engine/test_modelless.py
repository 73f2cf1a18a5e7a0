"""The engine writes, under any scheduling, what the language says: SGLang's real scheduler
on a toy model, against the same text written in a line."""

from __future__ import annotations

import random
from typing import Any

import pytest

import modelless
from sglang_multiverse.structure import Limits, Role

OPTIONS = {"max_depth": 2, "max_branches": 3, "max_total_branches": 65536}
LIMITS = Limits(2, 3, 65536)


@pytest.mark.parametrize(
    ("flags", "sizes"),
    [
        ("", {"slots": 4096, "rows": 64}),
        ("--chunked-prefill-size 16", {"slots": 4096, "rows": 64}),
        ("", {"slots": 400, "rows": 64}),
        ("--disable-radix-cache", {"slots": 1000, "rows": 64}),
    ],
    ids=["roomy", "chunked", "few-slots", "no-cache"],
)
def test_answers_are_those_of_the_text_written_in_a_line(
    tiny_tokenizer: Any, flags: str, sizes: dict[str, int]
) -> None:
    toy = modelless.Toy(tiny_tokenizer, sizes["slots"])
    scheduler = modelless.scheduler(toy, *flags.split(), **sizes, **OPTIONS)
    draw = random.Random(0)
    expected = {}
    for _ in range(40):
        words = "".join(draw.choice("abc ") for _ in range(draw.randrange(1, 30)))
        prompt = tiny_tokenizer.encode(words, add_special_tokens=False)
        answer = modelless.linear(toy, prompt, LIMITS, 300)
        if answer is not None:
            expected[scheduler.ask(prompt, max_new_tokens=600)] = answer
    scheduler.drain(20_000)
    assert {rid: answer.ids for rid, answer in scheduler.answers.items()} == expected
    scheduler.check_drained()
    goals = sum(ids.count(toy.tags.id_of[Role.GOAL_CLOSE]) for ids in expected.values())
    assert len(expected) > 30 and goals > 60  # the toy still writes blocks, and ends
