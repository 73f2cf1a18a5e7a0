"""Which rows are said to share what, and how a backend is told, on requests made by hand.

That shared rows have the same slots, and that what is hidden is right, the state machine
checks on the real scheduler (`test_schedule.py`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch

from sglang_multiverse.engine.req import MultiverseReq
from sglang_multiverse.engine.visibility import hidden_tokens, shared_prefixes, tell_backend
from sglang_multiverse.kernels.visible import SeesBranches, Visible
from sglang_multiverse.structure.layout import Layout


class Tree:
    """A radix tree: node 1 is `[0, 4)`, node 2 behind it `[4, 10)`, node 3 `[4, 6)`."""

    PATHS: ClassVar = {1: ((1, 4),), 2: ((1, 4), (2, 10)), 3: ((1, 4), (3, 6))}

    def collect_path_info(self, nodes: list[int]) -> tuple[Any, ...]:
        return tuple(
            tuple(SimpleNamespace(node_id=node, path_end=end) for node, end in self.PATHS[last])
            for last in nodes
        )


TREE = SimpleNamespace(tree_core=Tree())


def plain(node: int | None, in_tree: int) -> Any:
    return SimpleNamespace(last_node=node, kv=SimpleNamespace(cache_protected_len=in_tree))


def sequence(rid: str, rows: int, parent: Any = None, borrowed: int | None = None) -> Any:
    req = MultiverseReq.__new__(MultiverseReq)
    req.rid, req.parent, req.fork_at, req.slots, req.layout = rid, parent, rows, None, None
    if borrowed is None:
        borrowed = 10 if parent is None else parent.row_len
    req.kv = SimpleNamespace(holds_kv=True, kv_committed_len=rows, cache_protected_len=borrowed)
    req.last_node = 2
    req.family = parent.family if parent is not None else SimpleNamespace(trunk=req)
    return req


def links(*reqs: Any) -> list[list[tuple[Any, int]]]:
    return [[tuple(link) for link in chain] for chain in shared_prefixes(reqs, TREE)]


def test_plain_requests_share_nodes_of_the_tree() -> None:
    both = links(plain(2, 10), plain(3, 6))
    assert both == [[(1, 4), (2, 10)], [(1, 4), (3, 6)]]


def test_nobody_shares_with_nobody() -> None:
    assert links(plain(2, 10)) == []
    assert links(plain(None, 0), plain(None, 0)) == []
    # What a row holds of its own is not the tree's, whatever node it was matched to.
    assert links(plain(2, 0), plain(2, 0)) == []


def test_a_node_that_a_row_does_not_have_whole_is_not_shared() -> None:
    assert links(plain(2, 4), plain(2, 10)) == [[(1, 4)], [(1, 4), (2, 10)]]


def test_branches_share_what_their_parents_hold() -> None:
    trunk = sequence("t", 15)
    one, two = sequence("t#1", 20, trunk), sequence("t#2", 20, trunk)
    leaves = [sequence(f"{p.rid}.{i}", 24, p) for p in (one, two) for i in (1, 2)]
    found = links(*leaves)
    front = [(1, 4), (2, 10), (("t", 15), 15)]
    # Parents of the same length are not the same.
    assert found == [[*front, ((p, 20), 20)] for p in ("t#1", "t#1", "t#2", "t#2")]


def test_the_copy_of_a_page_is_not_shared() -> None:
    trunk = sequence("t", 15)
    branches = [sequence(f"t#{i}", 17, trunk, borrowed=12) for i in (1, 2)]
    assert links(*branches) == [[(1, 4), (2, 10), (("t", 15), 12)]] * 2


def test_a_trunk_that_the_tree_holds_is_named_once() -> None:
    trunk = sequence("t", 10)
    assert links(sequence("t#1", 12, trunk), sequence("t#2", 12, trunk)) == [[(1, 4), (2, 10)]] * 2


def test_hidden_intervals_stand_at_their_rows_tokens() -> None:
    hidden = np.zeros((6, 2, 2), dtype=np.int64)
    hidden[4:, 0] = (2, 4)
    known = sequence("t", 0)
    known.layout = Layout(np.arange(6), hidden)
    other = sequence("u", 0)
    batch: Any = SimpleNamespace(
        reqs=[other, known], prefix_lens=[7, 3], extend_lens=[2, 3], tree_cache=TREE
    )
    found = hidden_tokens(batch, "cpu")
    assert found is not None and found.dtype == torch.int32
    assert found[:, 0].tolist() == [[0, 0]] * 3 + [[2, 4]] * 2
    batch.prefix_lens, batch.extend_lens = [7, 0], [2, 2]
    assert hidden_tokens(batch, "cpu") is None


class Backend(SeesBranches):
    def __init__(self) -> None:
        self.told: list[Visible] = []

    def expect(self, visible: Visible) -> None:
        self.told.append(visible)


def test_chains_stay_the_same_object_while_the_rows_stay() -> None:
    backend = Backend()
    runner = SimpleNamespace(attn_backend=backend)
    batch: Any = SimpleNamespace(reqs=[plain(2, 10), plain(3, 6)], tree_cache=TREE)
    mode = SimpleNamespace(is_decode=lambda: True, is_extend=lambda: False)
    result = SimpleNamespace(forward_mode=mode)
    for _ in range(2):
        tell_backend(result, object, batch, runner)
    batch.reqs = batch.reqs[:1]
    tell_backend(result, object, batch, runner)
    first, second, third = (told.chains for told in backend.told)
    assert first is second and len(first) == 2 and not third
    tell_backend(result, object, batch, SimpleNamespace(attn_backend=object()))
