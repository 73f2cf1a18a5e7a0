"""What one client's id stands for, and for how long."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sglang_multiverse.engine.http.aborts import (
    abort_late,
    abort_request,
    check_rid,
    handle_batch,
    note_rid,
)
from sglang_multiverse.engine.options import OptionError


class Manager:
    def __init__(self):
        self.rid_to_state = {}
        self.aborted = []

    def _abort(self, rid="", abort_all=False):
        self.aborted.append(rid)

    def abort_request(self, rid="", abort_all=False):
        abort_request(Manager._abort, self, rid, abort_all)

    def send(self, states, rid):
        states[rid] = self.rid_to_state[rid] = object()
        abort_late(self, rid)


def begin(manager, rid="mine"):
    obj, states = SimpleNamespace(rid=rid), {}
    note_rid(obj)
    obj.rid = ["mine_0"]  # as SGLang expands it

    async def outputs(manager, obj, request, states):
        yield "out"

    return handle_batch(outputs, manager, obj, None, states), states


async def test_an_id_stands_for_all_that_was_made_of_it_until_the_answer_is_there():
    manager = Manager()
    stream, states = begin(manager)
    await anext(stream)
    manager.send(states, "x")
    manager.send(states, "y")
    del manager.rid_to_state["x"]  # done already
    manager.rid_to_state["x"] = object()  # somebody else's
    manager.abort_request("mine")
    assert manager.aborted == ["mine", "y"]
    await stream.aclose()
    manager.abort_request("mine")
    assert manager.aborted[2:] == ["mine"]


async def test_what_is_sent_after_the_abort_is_aborted_too():
    """SGLang sends the copies when a first pass over the prompt is done."""
    manager = Manager()
    stream, states = begin(manager)
    await anext(stream)
    manager.send(states, "x")
    manager.abort_request("mine")
    manager.send(states, "y")
    manager.send({}, "z")
    assert manager.aborted == ["mine", "x", "y"]


async def test_a_request_without_an_id_is_not_found_by_one():
    manager = Manager()
    stream, states = begin(manager, rid=None)
    await anext(stream)
    manager.send(states, "x")
    manager.abort_request("")
    manager.abort_request(abort_all=True)
    assert manager.aborted == ["", ""]


def test_a_list_of_ids_needs_a_batch():
    for rid, batch, n in [("a", None, None), (["a"], 1, None), (["a"], None, 2), (None, None, 1)]:
        check_rid(rid, batch, n)
    for n in (None, 1):
        with pytest.raises(OptionError, match="rid"):
            check_rid(["a"], None, n)
