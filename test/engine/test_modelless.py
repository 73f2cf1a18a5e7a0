"""The engine writes, under any scheduling, what the language says: SGLang's real scheduler
on a toy model, against the same text written in a line."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest

import modelless
from modelless.script import Script
from sglang_multiverse.engine.family import Family
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


@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
def test_an_ended_request_is_gone_without_the_garbage_collector(overlap: bool) -> None:
    """Whole, aborted, or ended amid its branches."""
    script = Script(slots=4096, rows=64, overlap=overlap)
    gc.collect()
    gc.disable()
    try:
        alive: weakref.WeakSet[Family] = weakref.WeakSet()
        made = Family.__init__

        def note(family: Family, *args: Any, **kwargs: Any) -> None:
            made(family, *args, **kwargs)
            alive.add(family)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Family, "__init__", note)
            for text in range(12):
                script.ask(text, 7 * text)
            script.scheduler.ask(script.prompts[next(iter(script.prompts))], max_new_tokens=30)
            for _ in range(40):
                script.step()
            assert len(alive) >= 10
            script.abort(0, "rid")
            script.finish(4000)
            script.ask(0, 0)  # what the last batches still held
            script.finish(4000)
        assert len(alive) <= 1
    finally:
        gc.enable()
