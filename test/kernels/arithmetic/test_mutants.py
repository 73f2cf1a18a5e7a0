"""Each line that decides what is read, seen or merged is broken once, and a check must notice.

The checks are few and quick: `test_extend.py` and `test_shared_prefix.py` hold many more. A
mutant is a copy of the kernels, under another name, with one piece of text replaced.
"""

# ruff: noqa: E501  (a table has a line for each)

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kernel_cases import DEVICE, Batch, Heads, check, exact, extend_case, forest, intervals_of

import sglang_multiverse.kernels as kernels
from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.reference import (
    extend_attention_reference,
    shared_prefix_decode_reference,
)

KERNELS = Path(kernels.__path__[0])
SMALL = (16, 16, 4, 1)
pytestmark = pytest.mark.skipif(DEVICE != "cpu", reason="mutants write anywhere")
HEADS = Heads(kv=1, group=3, d=24, dv=16)


class Mutant(NamedTuple):
    name: str
    file: str
    text: str
    instead: str


MUTANTS = [
    # what a query sees
    Mutant("not itself", "extend", "keys[None, :] <= rows[:, None]", "keys[None, :] < rows[:, None]"),
    Mutant("lo is seen not", "extend", "< lo[:, None]", "<= lo[:, None]"),
    Mutant("hi is not seen", "extend", ">= hi[:, None]", "> hi[:, None]"),
    Mutant("one level", "extend", "visible &= (keys", "visible = (keys"),
    Mutant("rows by heads", "extend", "kv_len - q_len + i // GROUP", "kv_len - q_len + i % GROUP"),
    Mutant("cached tokens forgotten", "extend", "rows = kv_len - q_len + i", "rows = i"),
    Mutant("heads by rows", "extend", "kv_head * GROUP + i % GROUP", "kv_head * GROUP + i // GROUP"),
    Mutant("another sequence's KV", "extend", "slots = kv_indices + kv_begin", "slots = kv_indices"),
    # which tiles are read
    Mutant("last tile left out", "extend", "tl.cdiv(last_row + 1, BLOCK_N)", "last_row // BLOCK_N"),
    Mutant("unmasked too far", "extend", "tl.maximum(seen_by_all, 0) // BLOCK_N", "tl.cdiv(seen_by_all, BLOCK_N)"),
    Mutant("unmasked over hidden", "extend", "tl.min(tl.where(some, lo, seen_by_all), 0)", "seen_by_all"),
    Mutant("unmasked over new", "extend", "seen_by_all = first_row + 1", "seen_by_all = last_row + 1"),
    Mutant("skip from amid a tile", "extend", "tl.cdiv(tl.max(lo, 0), BLOCK_N)", "tl.max(lo, 0) // BLOCK_N"),
    Mutant("skip to amid a tile", "extend", "tl.min(hi, 0) // BLOCK_N", "tl.cdiv(tl.min(hi, 0), BLOCK_N)"),
    Mutant("skip what one hides", "extend", "tl.max(lo, 0)", "tl.min(tl.where(live, lo, 2147483647), 0)"),
    Mutant("skip what the last hides", "extend", "tl.min(hi, 0)", "tl.max(tl.where(live, hi, 0), 0)"),
    Mutant("overlaps skipped twice", "extend", "BLOCK_N), skipped_to)", "BLOCK_N), 0)"),
    Mutant("levels not shifted", "extend", "(begin - passed, length)", "(begin, length)"),
    Mutant("nothing skipped", "extend", "tl.maximum(end - begin, 0)", "0 * begin"),
    Mutant("padding stops skips", "extend", "other=2147483647", "other=0"),
    # softmax
    Mutant("acc does not fade", "softmax", "acc * fade[:, None]", "acc"),
    Mutant("total does not fade", "softmax", "total * fade + tl.sum", "total + tl.sum"),
    Mutant("cap of half the slope", "softmax", "sm_scale * 2 / LOGIT_CAP", "sm_scale / LOGIT_CAP"),
    Mutant("NaN where nothing is seen", "softmax", 'tl.where(higher == float("-inf"), 0.0, higher)', "higher"),
    Mutant("0 ÷ 0 where nothing is seen", "softmax", "tl.where(total == 0.0, 1.0, total)", "total"),
    # decode
    Mutant("states on splits", "decode", "to = SPLITS + tl.load(piece + 4)", "to = tl.load(piece + 4)"),
    Mutant("another row's prefix", "decode", "kv_indptr + tl.load(members + begin)", "kv_indptr + begin"),
    Mutant("prefix read twice", "decode", "own = tl.load(suffix_start + row)", "own = 0 * tl.load(suffix_start + row)"),
    Mutant("a split too long", "decode", "tl.minimum(start + share, length)", "length"),
    Mutant("past the row's end", "decode", "tl.minimum(start + share, length)", "start + share"),
    Mutant("past the piece's end", "decode", "there = keys < stop", "there = keys < stop + 1"),
    Mutant("one row of a piece", "decode", "live = i < (end - begin) * GROUP", "live = i < GROUP"),
    Mutant("another piece's rows", "decode", "members + begin + i // GROUP", "members + i // GROUP"),
    Mutant("lse without its total", "decode", "peak + tl.log2(tl.where(total > 0, total, 1.0))", "peak"),
    Mutant("a state not merged", "decode", "mask=s < count", "mask=s < count - 1"),
    Mutant("a state too many", "decode", "mask=s < count", "mask=s < count + 1"),
    Mutant("prefix states not merged", "decode", "count += tl.load(prefix_states + row)", "pass"),
    Mutant("unweighted", "decode", "weights[:, None] * out", "out"),
    Mutant("merged parts do not fade", "decode", "acc = acc * fade + ", "acc = acc + "),
    Mutant("empty states are read", "decode", "mask=seen[:, None] &", "mask=(s < count)[:, None] &"),
    # groups
    Mutant("suffix from the group's start", "grouping", "suffix_start[row] = group.stop", "suffix_start[row] = group.start"),
    Mutant("inner group from the root", "grouping", "start = node.stop", "start = 0"),
    Mutant("states over each other", "grouping", "state = states[part[0]]", "state = 0"),
    Mutant("members of the first", "grouping", "begin = len(members)", "begin = 0"),
    Mutant("old tables shine through", "prefix_tables", "at += table.numel()", "at += len(values)"),
]  # fmt: skip


def package(at: Path, name: str, mutant: Mutant | None) -> Any:
    folder = at / name
    shutil.copytree(KERNELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        path = folder / f"{mutant.file}.py"
        path.write_text(path.read_text().replace(mutant.text, mutant.instead))
    names = ("extend", "shared_prefix", "prefix_tables", "grouping", "tiles")
    for module in names:
        importlib.import_module(f"{name}.{module}")
    return sys.modules[name]


def check_extend(mutant: Any) -> None:
    tile = mutant.tiles.Tile(*SMALL)
    cases = [
        (extend_case([(11, 20), (0, 7)], 2, heads=Heads(2, 3, 24, 16), seed=1), 0.0),
        (extend_case([(30, 30)], 3, heads=HEADS, wild=True, seed=2), 1.5),
        (uneven_case(), 0.0),
        (skipping_case(2), 0.0),
        (overlapping_case(), 0.0),
        (blind_case(), 0.0),
    ]
    for case, cap in cases:
        got = mutant.extend.extend_attention(*case, tile=tile, logit_cap=cap)
        check(got, exact(extend_attention_reference, case, logit_cap=cap))
    for new in (16, 19):  # 19 · 3 heads fill their last tile in part
        case = skipping_case(new)
        want = exact(extend_attention_reference, case)
        for buffer in case[1:3]:
            buffer[case[5][16:64]] = float("nan")  # hidden from all, and whole tiles
        check(mutant.extend.extend_attention(*case, tile=tile), want)


def with_hidden(cached: int, new: int, hidden: list[list[int]]) -> list[Any]:
    case = [*extend_case([(cached, new)], len(hidden), heads=HEADS, seed=4)]
    case[6] = intervals_of([hidden] * new)
    return case


def skipping_case(new: int) -> list[Any]:
    """Three tiles hidden, on two levels; then tiles that are seen."""
    return with_hidden(96, new, [[10, 32], [32, 70]])


def uneven_case() -> list[Any]:
    """One query of the tile sees [16, 32), another [48, 64); none sees what is between."""
    case = with_hidden(96, 3, [[0, 0]])
    case[6] = intervals_of([[[16, 64]], [[32, 64]], [[16, 48]]])
    return case


def overlapping_case() -> list[Any]:
    return with_hidden(96, 4, [[16, 64], [32, 80], [0, 0]])


def blind_case() -> list[Any]:
    return with_hidden(20, 4, [[0, 99]])


def check_decode(mutant: Any) -> None:
    # The second row of a family is not the second of the batch, and so on.
    a, a1 = Link("a", 70), Link("a1", 100)
    family = Batch(
        [[a, a1], [Link("b", 33)], [], [a], [a, a1], [Link("b", 33)]], [50, 1, 40, 9, 0, 0]
    )
    for batch, splits in (
        (family, 2),
        (Batch([[]], [300]), 10),
        (forest(random.Random(5), 5, 3, 60, 60), 1),
    ):
        case = batch.arguments(HEADS)
        case[0][0] = 2 * case[1][case[4][case[3][1] - 1]]  # its last key outweighs all before it
        capacity = mutant.grouping.Capacity(8, 16, 16, 8, 4)
        prefixes = mutant.prefix_tables.PrefixTables.allocate(capacity, "cpu")
        for plan in (
            mutant.grouping.plan_pieces([[Link("z", 9)]] * 4, capacity, least=1, min_saved=1),
            mutant.grouping.plan_pieces(batch.chains, capacity, least=32, min_saved=1),
        ):
            prefixes.fill(plan)
        assert prefixes.members[: len(plan.members)].tolist() == list(plan.members)
        workspace = mutant.shared_prefix.Workspace.allocate(*case[:3], prefixes, splits=splits)
        workspace.out.fill_(float("nan"))
        workspace.lse.fill_(float("nan"))
        got = mutant.shared_prefix.shared_prefix_decode(
            *case, prefixes, workspace, tile=mutant.tiles.Tile(*SMALL)
        )
        check(got, exact(shared_prefix_decode_reference, case))


def check_all(mutant: Any, file: str) -> None:
    if file in ("extend", "softmax"):
        check_extend(mutant)
    if file != "extend":
        check_decode(mutant)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def passes(folder: Path, mutant: Mutant | None) -> bool:
    """In a process of its own, since a mutant may write anywhere."""

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        check_all(package(folder, "mutant", mutant), mutant.file if mutant else "softmax")

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    return child.exitcode == 0


def test_an_unbroken_copy_passes(folder: Path) -> None:
    assert passes(folder, None)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_is_noticed(mutant: Mutant, folder: Path) -> None:
    assert mutant.text in (KERNELS / f"{mutant.file}.py").read_text()
    assert not passes(folder, mutant)
