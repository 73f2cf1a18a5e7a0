"""Which `multiverse` options a request may carry, and what becomes of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sglang_multiverse.engine.http.admission import (
    admit,
    batch_size,
    contract_error,
    live,
    requested_options,
)
from sglang_multiverse.engine.http.support import Support, support_of
from sglang_multiverse.engine.options import MultiverseArgs, OptionError
from sglang_multiverse.structure import MULTIVERSE

SERVED = Support(MultiverseArgs(), MULTIVERSE)
PLAIN = Support(MultiverseArgs(), None, "the served model's tokenizer lacks the tags")


def run(params, value, *, support=SERVED, batch=None, stream=False, live_route=True):
    return admit(support, params, value, batch=batch, stream=stream, live_route=live_route)


def options(params):
    return params["custom_params"]["multiverse"]


def test_options_travel_in_custom_params_beside_the_users_own():
    given = {"temperature": 0.5, "custom_params": {"mine": 1}}
    admitted = run(given, {"max_depth": 2})
    assert admitted == {
        "temperature": 0.5,
        "custom_params": {"mine": 1, "multiverse": {"max_depth": 2}},
    }
    assert given == {"temperature": 0.5, "custom_params": {"mine": 1}}, "the input was changed"


def test_without_options_nothing_is_added():
    params = {"temperature": 0.5}
    assert run(params, None) is params
    assert run(None, None) is None


def test_admission_may_run_twice():
    once = run({}, {"max_depth": 2, "guard": None})
    assert run(once, {"max_depth": 2, "guard": None}) == once


@pytest.mark.parametrize(
    ("value", "named", "allowed"),
    [
        ({"max_dept": 2}, "multiverse.max_dept", "max_depth"),
        ({"max_depth": 0}, "multiverse.max_depth=0:", "[1, 4]"),
        ({"max_depth": 5}, "multiverse.max_depth", "[1, 4]"),
        ({"max_depth": True}, "multiverse.max_depth", "[1, 4]"),
        ({"max_depth": "2"}, "multiverse.max_depth", "[1, 4]"),
        ({"max_path_tokens": 15}, "multiverse.max_path_tokens", "[16, 1048576]"),
        ({"max_critical_tokens": -1}, "multiverse.max_critical_tokens", "[1, 16777216]"),
        ({"stream": "all"}, "multiverse.stream", '"branches"'),
        ({"guard": 1}, "multiverse.guard", "true or false"),
        ("fast", "multiverse", "object"),
        (7, "multiverse", "object"),
    ],
)
def test_bad_options_are_named_with_what_is_allowed(value, named, allowed):
    with pytest.raises(OptionError) as error:
        run({}, value)
    assert str(error.value).startswith(named)
    assert allowed in str(error.value)


@pytest.mark.parametrize("asked", [{"x" * 10_000: 1}, {"guard": "x" * 10_000}])
def test_an_error_does_not_echo_a_request_at_length(asked):
    with pytest.raises(OptionError) as error:
        run({}, asked)
    assert len(str(error.value)) < 300


def test_options_put_into_custom_params_by_hand_are_checked_too():
    with pytest.raises(OptionError, match=r"multiverse\.max_depth"):
        run({"custom_params": {"multiverse": {"max_depth": 99}}}, None)
    with pytest.raises(OptionError, match=r"multiverse\.sample: unknown"):
        run({"custom_params": {"multiverse": {"sample": 3}}}, None)
    with pytest.raises(OptionError, match="given twice"):
        run({"custom_params": {"multiverse": {"max_depth": 1}}}, {"max_depth": 2})


def test_one_object_holds_for_a_whole_batch():
    admitted = run([{"n": 1}, {"n": 2}], {"max_depth": 2}, batch=2)
    assert [options(one) for one in admitted] == [{"max_depth": 2}] * 2
    assert [one["n"] for one in admitted] == [1, 2]


def test_a_list_gives_each_prompt_its_own():
    admitted = run({"temperature": 0}, [{"max_depth": 1}, None, {"max_depth": 2}], batch=3)
    assert options(admitted[0]) == {"max_depth": 1}
    assert admitted[1] == {"temperature": 0}
    assert options(admitted[2]) == {"max_depth": 2}


@pytest.mark.parametrize(("batch", "params"), [(None, {}), (3, {}), (2, [{}])])
def test_a_list_must_match_the_batch(batch, params):
    with pytest.raises(OptionError, match=r"batch of prompts|expected"):
        run(params, [{"max_depth": 1}, {}], batch=batch)


def test_live_branches_need_a_stream_and_a_route_that_can_label_them():
    asked = {"stream": "branches"}
    assert live(run({}, asked, stream=True))
    assert not live(run({}, {"stream": "linear"}, stream=True))
    assert live([None, run({}, asked, stream=True)])
    with pytest.raises(OptionError, match='"stream": true'):
        run({}, asked, stream=False)
    with pytest.raises(OptionError, match="/v1/completions"):
        run({}, asked, stream=True, live_route=False)


def test_a_plain_model_refuses_options_and_leaves_everything_else_alone():
    with pytest.raises(OptionError, match="lacks the tags"):
        run({}, {}, support=PLAIN)
    theirs = {"custom_params": {"multiverse": "a logit processor's own business"}}
    assert run(theirs, None, support=PLAIN) is theirs


@pytest.mark.parametrize(
    ("text", "ids", "embeds", "size"),
    [
        ("a", None, None, None),
        (["a", "b"], None, None, 2),
        (None, [1, 2, 3], None, None),
        (None, [[1], [2], [3]], None, 3),
        (None, None, [[0.1, 0.2]], None),
        (None, None, [[[0.1]], [[0.2]]], 2),
    ],
)
def test_batch_size(text, ids, embeds, size):
    assert batch_size(text, ids, embeds) == size


class Request:
    """The part of a Starlette request that is read."""

    method = "POST"

    def __init__(self, body, content_type="application/json"):
        self.body = body
        self.headers = {"content-type": content_type} if content_type else {}

    async def json(self):
        if isinstance(self.body, Exception):
            raise self.body
        return self.body


@pytest.mark.parametrize(
    ("request_", "found"),
    [
        (Request({"multiverse": {"guard": True}}), {"guard": True}),
        (Request({"multiverse": {}}, "application/json; charset=utf-8"), {}),
        (Request({"multiverse": {}}, None), {}),
        (Request({"model": "m"}), None),
        (Request([1]), None),
        (Request({"multiverse": {}}, "multipart/form-data; boundary=x"), None),
        (Request(ValueError("not JSON")), None),
        (Request(RuntimeError("stream consumed")), None),
        (None, None),
    ],
)
async def test_requested_options(request_, found):
    assert await requested_options(request_) == found


def test_support_is_found_once(monkeypatch):
    looked = []

    class Tokenizer:
        def convert_tokens_to_ids(self, tag):
            looked.append(tag)

    manager = SimpleNamespace(tokenizer=Tokenizer())
    assert support_of(manager).dialect is None
    count = len(looked)
    assert count
    assert support_of(manager).reason == "the served model's tokenizer lacks the tags"
    assert len(looked) == count


def test_the_switch_makes_every_model_plain(monkeypatch):
    for name, value in MultiverseArgs(enable=False).to_env().items():
        monkeypatch.setenv(name, value)
    assert "switched off" in support_of(SimpleNamespace(tokenizer=None)).reason


class TestContract:
    """The native route checks its body before the status line of a stream is sent."""

    @pytest.fixture(autouse=True)
    def served(self, monkeypatch):
        from sglang.srt.entrypoints import http_server

        manager = SimpleNamespace(multiverse_support=SERVED)
        state = SimpleNamespace(tokenizer_manager=manager)
        monkeypatch.setattr(http_server, "_global_state", state)

    def test_good_bodies_pass(self):
        body = {"text": "a", "stream": True, "multiverse": {"stream": "branches"}}
        assert contract_error(lambda _: None, body) is None
        assert contract_error(lambda _: None, {"text": "a"}) is None

    def test_sglangs_own_findings_come_first(self):
        assert contract_error(lambda _: "theirs", {"multiverse": {"x": 1}}) == "theirs"

    def test_bad_options_are_refused_in_the_routes_shape(self):
        error = contract_error(lambda _: None, {"text": "a", "multiverse": {"max_depth": 9}})
        assert error["message"].startswith("multiverse.max_depth=9: allowed")
