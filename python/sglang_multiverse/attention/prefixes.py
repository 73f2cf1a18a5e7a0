"""What the rows of a decode step share, in tables that a CUDA graph may hold: one set a batch size.

All sets' softmax states lie in the same memory, because steps run one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sglang_multiverse.kernels.grouping import Capacity, Link, find_groups, plan_pieces
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.shared_prefix import Workspace
from sglang_multiverse.kernels.tiles import rows_per_piece, suffix_splits

Chains = Sequence[Sequence[Link]]

# Reads of a token's KV that a group must save; less is not worth its programs.
MIN_SAVED = 128
# States of a row: few in a large batch, whose many groups fill the card in any case.
FEWEST_STATES, MOST_STATES = 12, 64
# Suffix splits and states together are a multiple of this, and splits one of few numbers: Triton
# compiles anew for what is not a multiple, and for each number of splits.
SLOTS = 16
SPLITS = (1, 4, 16)
# Groups that a row may be in: blocks within blocks, and a prompt that families share.
LEVELS = 4


class ChainsError(RuntimeError):
    """The engine described another batch than the one that is computed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Of attention on one card: query heads, KV heads, dims of keys and values."""

    heads: int
    kv_heads: int
    d: int
    dv: int
    dtype: torch.dtype


@dataclass(slots=True)
class Step:
    """For a batch of up to `tables.capacity.rows` rows.

    Attributes:
        filled: what the tables say, by identity; `()` is what new ones say.
    """

    tables: PrefixTables
    workspace: Workspace
    filled: Chains = ()


class SharedPrefixes:
    """The chains that hold, and the tables of each batch size.

    Args:
        programs: how many the card runs at a time, times two; for the cut into pieces.
    """

    def __init__(self, shape: Shape, device: torch.device | str, programs: int) -> None:
        self.shape = shape
        self.device = device
        self.wanted = max(4, programs // shape.kv_heads)
        self.stacked = rows_per_piece(shape.dtype, shape.d, shape.heads, shape.kv_heads)
        self.shared = False
        self._chains: Chains = ()
        self._steps: dict[int, Step] = {}
        self._memory = torch.empty(0, dtype=torch.float32, device=device)

    def expect(self, chains: Chains) -> None:
        """`chains` hold from now on; looked at only when they are not the ones that held."""
        if chains is not self._chains:
            self._chains = chains
            self.shared = self.stacked > 1 and bool(find_groups(chains, min_saved=MIN_SAVED))

    def reserve(self, rows: int) -> None:
        """Take the memory of all batches of up to `rows` rows at once, and for good."""
        self._memory = torch.empty(
            max(self._floats(n) for n in range(1, rows + 1)),
            dtype=torch.float32,
            device=self.device,
        )

    def step(self, rows: int) -> Step:
        """The tables for `rows` rows; the same object whenever asked."""
        if rows not in self._steps:
            tables = PrefixTables.allocate(self.capacity(rows), self.device)
            self._steps[rows] = Step(tables, self._workspace(rows))
        return self._steps[rows]

    def filled(self, rows: int, padded: int) -> Step:
        """The tables for `padded` rows, saying what the first `rows` share.

        Raises:
            ChainsError: there are chains for more than `rows` rows.
        """
        if len(self._chains) > rows:
            raise ChainsError(f"chains: of {len(self._chains)} rows; the step has {rows}")
        step = self.step(padded)
        if step.filled is not self._chains:
            plan = plan_pieces(
                self._chains, step.tables.capacity, wanted_pieces=self.wanted, min_saved=MIN_SAVED
            )
            step.tables.fill(plan)
            step.filled = self._chains
        return step

    def capacity(self, rows: int) -> Capacity:
        # A group that holds the whole batch is cut into `wanted` pieces, over the parts that its
        # rows fall into.
        states = self.wanted * self.stacked // rows
        states = min(max(states, FEWEST_STATES), MOST_STATES)
        splits = self._splits(rows)
        return Capacity(
            rows=rows,
            pieces=self.wanted + rows,
            members=LEVELS * rows,
            states=-(-(splits + states) // SLOTS) * SLOTS - splits,
            rows_per_piece=self.stacked,
        )

    def _splits(self, rows: int) -> int:
        q = torch.empty(
            (rows, self.shape.heads, self.shape.d), dtype=self.shape.dtype, device=self.device
        )
        best = suffix_splits(q, self.shape.kv_heads)
        return next((splits for splits in SPLITS if splits >= best), SPLITS[-1])

    def _slots(self, rows: int) -> int:
        return self._splits(rows) + self.capacity(rows).states

    def _floats(self, rows: int) -> int:
        return rows * self.shape.heads * self._slots(rows) * (self.shape.dv + 1)

    def _workspace(self, rows: int) -> Workspace:
        heads, slots, dv = self.shape.heads, self._slots(rows), self.shape.dv
        floats = self._floats(rows)
        memory = self._memory
        if memory.numel() < floats:
            memory = torch.empty(floats, dtype=torch.float32, device=self.device)
        out, lse = memory[:floats].split([rows * heads * slots * dv, rows * heads * slots])
        return Workspace(
            out.view(rows, heads, slots, dv), lse.view(rows, heads, slots), self._splits(rows)
        )
