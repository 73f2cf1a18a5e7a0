"""No log probability of a streamed chat answer is lost, or sent twice."""

from __future__ import annotations

from types import SimpleNamespace

from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat

from sglang_multiverse.engine.http.logprobs import Owed

SERVING = object.__new__(OpenAIServingChat)
SERVING.tokenizer_manager = SimpleNamespace(tokenizer=object())
ROWS = [(-0.1, 1, "a"), (-0.2, 2, "\ufffd"), (-0.3, 3, "é"), (-0.4, 4, "<end>")]


def out(text, n, finish=None, index=0):
    meta = {"output_token_logprobs": ROWS[:n], "finish_reason": finish}
    return {"text": text, "index": index, "meta_info": meta}


def closing(index=0):
    return {"index": index, "finish_reason": "stop", "logprobs": None}


def test_tokens_without_text_wait_for_the_next_chunk():
    owed = Owed()
    assert [owed.waits(o) for o in (out("a", 1), out("a", 2), out("aé", 3))] == [False, True, False]


def test_the_closing_chunk_brings_what_no_chunk_has_brought():
    owed, chunk = Owed(), {"index": 0, "finish_reason": None, "logprobs": {"content": []}}
    assert not owed.waits(out("aé", 3))
    assert not owed.settle(SERVING, chunk)
    assert not owed.waits(out("aé", 4, "stop"))
    last = closing()
    assert owed.settle(SERVING, last)
    assert [row["token"] for row in last["logprobs"]["content"]] == ["<end>"]
    assert last["logprobs"]["content"][0]["logprob"] == -0.4
    assert not owed.settle(SERVING, closing())


def test_a_parsers_own_chunk_is_not_repeated():
    """With a reasoning or tool parser SGLang sends the rest in a chunk of its own."""
    owed = Owed()
    owed.waits(out("aé", 4, "stop"))
    owed.settle(SERVING, {"index": 0, "finish_reason": None, "logprobs": {"content": [1]}})
    assert not owed.settle(SERVING, closing())


def test_choices_are_apart():
    owed = Owed()
    owed.waits(out("a", 1, index=1))
    owed.settle(SERVING, {"index": 1, "finish_reason": None, "logprobs": {"content": [1]}})
    owed.waits(out("", 2, "stop", index=0))
    owed.waits(out("a", 2, "stop", index=1))
    first, second = closing(0), closing(1)
    assert owed.settle(SERVING, second)
    assert owed.settle(SERVING, first)
    assert [len(c["logprobs"]["content"]) for c in (first, second)] == [2, 1]


def test_where_outputs_hold_only_what_is_new_the_waiting_goes_before_the_next():
    def delta(text, rows, finish=None):
        meta = {"output_token_logprobs": rows, "finish_reason": finish}
        return {"text": text, "index": 0, "output_ids": [r[1] for r in rows], "meta_info": meta}

    owed = Owed(incremental=True)
    assert not owed.waits(delta("a", ROWS[:1]))
    owed.settle(SERVING, {"index": 0, "finish_reason": None, "logprobs": {"content": [1]}})
    assert owed.waits(delta("", ROWS[1:2]))
    both = delta("é", ROWS[2:3])
    assert not owed.waits(both)
    assert both["meta_info"]["output_token_logprobs"] == ROWS[1:3]
    assert both["output_ids"] == [2, 3]
    owed.settle(SERVING, {"index": 0, "finish_reason": None, "logprobs": {"content": [1, 2]}})
    assert not owed.waits(delta("", ROWS[3:], "stop"))
    last = closing()
    assert owed.settle(SERVING, last)
    assert [row["token"] for row in last["logprobs"]["content"]] == ["<end>"]
