"""What the scheduler attached, on its way into `meta_info`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sglang.srt.managers.tokenizer_manager import TokenizerManager

from sglang_multiverse.engine.http.outputs import NO_LOGPROB, chat_logprobs, deliver, take_results
from sglang_multiverse.engine.http.support import Support
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.structure import MULTIVERSE

SUMMARY = {"critical_path_tokens": 7, "branch_paths": ["1", "2"]}


class Manager:
    """A tokenizer manager with nothing but what these hooks touch."""

    _accumulate_request_meta_info = staticmethod(TokenizerManager._accumulate_request_meta_info)

    preferred_sampling_params = None

    def __init__(self, tokenizer):
        tag = tokenizer.convert_tokens_to_ids("<Goal>")
        self.multiverse_support = Support(MultiverseArgs(), MULTIVERSE, tag_ids=frozenset({tag}))
        self.tokenizer = tokenizer
        self.rid_to_state = {}

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture
def manager(tiny_tokenizer):
    return Manager(tiny_tokenizer)


@pytest.fixture
def state():
    return SimpleNamespace(
        obj=SimpleNamespace(sampling_params={}),
        customized_info_accumulated={},
        customized_info_reported_keys=set(),
    )


def take(manager, state, info, index=0, finish=None):
    meta, original = {}, TokenizerManager.update_request_meta_info
    take_results(original, manager, meta, state, info, index, finish)
    return meta


def test_the_summary_arrives_as_it_was_sent(manager, state):
    assert take(manager, state, {"multiverse": [None, SUMMARY]}, 1) == {"multiverse": SUMMARY}
    assert take(manager, state, {"multiverse": [None, SUMMARY]}, 0) == {}
    assert not state.customized_info_accumulated, "SGLang would slice it like a list of tokens"


def test_other_keys_stay_sglangs(manager, state):
    meta = take(manager, state, {"multiverse": [SUMMARY], "theirs": [[1, 2]]})
    assert meta == {"multiverse": SUMMARY, "theirs": [1, 2]}
    assert take(manager, state, {"theirs": [[3]]}) == {"theirs": [1, 2, 3]}


async def outputs(*texts):
    for text in texts:
        yield {"text": text, "meta_info": {}}


async def delivered(manager, state, produce):
    manager.rid_to_state["r"] = state
    return [
        out async for out in deliver(lambda *_: produce(), manager, SimpleNamespace(rid="r"), None)
    ]


async def test_each_delta_is_delivered_once(manager, state):
    async def produce():
        take(manager, state, {"multiverse_deltas": [[("", manager.ids("a"))]]})
        yield {"meta_info": {}}
        take(manager, state, {"multiverse_deltas": [None]})
        yield {"meta_info": {}}
        both = [("1", manager.ids("b")), ("2", manager.ids("c"))]
        take(manager, state, {"multiverse_deltas": [both]})
        yield {"meta_info": {}}

    got = [out["meta_info"] for out in await delivered(manager, state, produce)]
    assert got == [
        {"multiverse_deltas": [["", "a"]]},
        {},
        {"multiverse_deltas": [["1", "b"], ["2", "c"]]},
    ]


async def test_a_slow_client_misses_no_delta(manager, state):
    """SGLang drops all but the last of the outputs that pile up."""

    async def produce():
        for text in "abc":
            take(manager, state, {"multiverse_deltas": [[("1", manager.ids(text))]]})
        yield {"meta_info": {}}

    (out,) = await delivered(manager, state, produce)
    assert out["meta_info"]["multiverse_deltas"] == [["1", "a"], ["1", "b"], ["1", "c"]]


async def test_deltas_end_where_the_text_ends(manager, state):
    """What the client asked for, and the server's own defaults, decide it."""

    async def produce():
        finish = {"type": "stop", "matched": "cd"}
        take(manager, state, {"multiverse_deltas": [[("", manager.ids("abc"))]]})
        take(manager, state, {"multiverse_deltas": [[("", manager.ids("d"))]]}, finish=finish)
        yield {"meta_info": {}}

    state.obj.sampling_params = {"stop": "cd"}
    (out,) = await delivered(manager, state, produce)
    assert out["meta_info"]["multiverse_deltas"] == [["", "ab"]]

    del state.multiverse_live
    manager.preferred_sampling_params = {"no_stop_trim": True}
    (out,) = await delivered(manager, state, produce)
    assert out["meta_info"]["multiverse_deltas"] == [["", "ab"], ["", "cd"]]


async def test_the_wrapped_outputs_are_closed_with_it(manager, state):
    closed = []

    async def produce():
        try:
            yield {"meta_info": {}}
            yield {"meta_info": {}}
        finally:
            closed.append(True)

    manager.rid_to_state["r"] = state
    stream = deliver(lambda *_: produce(), manager, SimpleNamespace(rid="r"), None)
    await anext(stream)
    await stream.aclose()
    assert closed


def test_a_plain_model_gets_sglangs_own_generator(manager):
    vars(manager)["multiverse_support"] = Support(MultiverseArgs(), None)
    mine = object()
    assert deliver(lambda *_: mine, manager, SimpleNamespace(rid="r"), None) is mine


def test_forced_tokens_get_a_number_in_chat():
    seen = []
    rows = [(None, 5, "<Path>"), (-0.5, 6, "a")]
    chat_logprobs(lambda _, values, tops: seen.append((values, tops)), None, rows, [None, []])
    assert seen == [([(NO_LOGPROB, 5, "<Path>"), (-0.5, 6, "a")], [None, []])]
    assert rows[0] == (None, 5, "<Path>"), "the list belongs to the answer of /generate"


def test_without_forced_tokens_nothing_is_copied():
    rows = [(-0.5, 6, "a")]
    chat_logprobs(lambda _, values, __: None if values is rows else 1 / 0, None, rows, None)
