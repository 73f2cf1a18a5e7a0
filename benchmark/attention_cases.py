"""What `kernels.py` measures: packed prompts with blocks, and trees of rows that decode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from sglang_multiverse.kernels.grouping import Capacity, Link, plan_pieces
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.tiles import rows_per_piece


class Heads(NamedTuple):
    """Query heads, KV heads and head dim of one layer on one card."""

    q: int
    kv: int
    d: int


QWEN_7B = Heads(28, 4, 128)
QWEN_32B = Heads(40, 8, 128)
SMOKE = Heads(4, 2, 64)


class Tensors(NamedTuple):
    """What both kernels take, in the order of their arguments; int32 row pointers."""

    q: torch.Tensor
    k_buffer: torch.Tensor
    v_buffer: torch.Tensor
    kv_indptr: torch.Tensor
    kv_indices: torch.Tensor

    @property
    def heads(self) -> Heads:
        return Heads(self.q.shape[1], self.k_buffer.shape[1], self.q.shape[2])

    @property
    def unique_bytes(self) -> int:
        """What must be read and written at least: queries, output, and each KV slot in use once."""
        row = 2 * math.prod(self.k_buffer.shape[1:])
        slots = int(self.kv_indices.unique().numel())
        return (slots * row + 2 * self.q.numel()) * self.q.element_size()


def _indptr(lengths: list[int], device: str) -> torch.Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0).int()


def _tensors(
    heads: Heads, queries: int, rows: list[torch.Tensor], dtype: torch.dtype, device: str
) -> Tensors:
    """`rows` number KV tokens; the slots they get are in no order."""
    torch.manual_seed(0)
    slots = 1 + max(int(row.max()) for row in rows)
    where = torch.randperm(slots)
    kv = (
        torch.randn(slots, heads.kv, heads.d, device=device, dtype=dtype),
        torch.randn(slots, heads.kv, heads.d, device=device, dtype=dtype),
    )
    q = torch.randn(queries, heads.q, heads.d, device=device, dtype=dtype)
    lengths = [len(row) for row in rows]
    return Tensors(q, *kv, _indptr(lengths, device), where[torch.cat(rows)].to(device))


# --- extend -------------------------------------------------------------------


@dataclass(frozen=True)
class Extend:
    """`sequences` times `cached` tokens and `new` ones, which hold `blocks` blocks if any.

    A block is `text` tokens, then `branches` branches of `length` tokens.
    """

    name: str
    sequences: int
    cached: int
    new: int
    blocks: int = 0
    text: int = 0
    branches: int = 0
    length: int = 0

    def hidden(self) -> torch.Tensor:
        """int32 [sequences · new, depth, 2]."""
        depth = 1 if self.blocks else 0
        hidden = torch.zeros(self.new, depth, 2, dtype=torch.int32)
        at = 0
        for _ in range(self.blocks):
            goal = at + self.text
            for branch in range(self.branches):
                first = goal + branch * self.length
                span = torch.tensor([self.cached + goal, self.cached + first])
                hidden[first : first + self.length] = span.int()
            at = goal + self.branches * self.length
        return hidden.repeat(self.sequences, 1, 1)

    def build(self, heads: Heads, dtype: torch.dtype, device: str) -> ExtendInput:
        long = self.cached + self.new
        rows = [torch.arange(long) + i * long for i in range(self.sequences)]
        tensors = _tensors(heads, self.sequences * self.new, rows, dtype, device)
        hidden = self.hidden()
        inside = (hidden[..., 1] - hidden[..., 0]).sum().item()
        seen = self.sequences * sum(range(self.cached + 1, long + 1)) - int(inside)
        qo_indptr = _indptr([self.new] * self.sequences, device)
        return ExtendInput(self, tensors, qo_indptr, hidden.to(device), seen)


@dataclass(frozen=True)
class ExtendInput:
    """`seen` pairs of a query and a key it sees."""

    case: Extend
    tensors: Tensors
    qo_indptr: torch.Tensor
    hidden: torch.Tensor
    seen: int

    @property
    def operations(self) -> float:
        """Two products, each of a multiplication and an addition."""
        return 4.0 * self.seen * self.tensors.heads.q * self.tensors.heads.d

    @property
    def bytes(self) -> int:
        return self.tensors.unique_bytes

    def visible(self) -> torch.Tensor:
        """bool [new, cached + new], of any one sequence."""
        case = self.case
        keys = torch.arange(case.cached + case.new, device=self.hidden.device)
        visible = keys <= keys[case.cached :, None]
        for lo, hi in (pair.unbind(-1) for pair in self.hidden[: case.new].unbind(1)):
            visible &= (keys < lo[:, None]) | (keys >= hi[:, None])
        return visible


# --- decode -------------------------------------------------------------------


@dataclass(frozen=True)
class Decode:
    """`families` trees: `widths[i]` children at depth `i`, which share `prefix[i]` tokens.

    The leaves are rows of the batch, with `own` tokens of their own.
    """

    name: str
    families: int
    widths: tuple[int, ...]
    prefix: tuple[int, ...]
    own: int

    @property
    def rows(self) -> int:
        return self.families * math.prod(self.widths)

    def rows_under(self, depth: int) -> int:
        """Leaves of a node at `depth`."""
        return math.prod(self.widths[depth:])

    def build(self, heads: Heads, dtype: torch.dtype, device: str) -> DecodeInput:
        tokens = iter(range(2**31))
        parts: dict[tuple[int, int], torch.Tensor] = {}
        rows, chains = [], []
        for row in range(self.rows):
            nodes = [(depth, row // self.rows_under(depth)) for depth in range(len(self.prefix))]
            for node in nodes:
                if node not in parts:
                    count = self.prefix[node[0]]
                    parts[node] = torch.tensor([next(tokens) for _ in range(count)])
            own = torch.tensor([next(tokens) for _ in range(self.own)])
            rows.append(torch.cat([*(parts[node] for node in nodes), own]))
            stops = torch.tensor(self.prefix).cumsum(0).tolist()
            chains.append([Link(node, stop) for node, stop in zip(nodes, stops, strict=True)])
        tensors = _tensors(heads, self.rows, rows, dtype, device)
        capacity = Capacity(
            rows=self.rows,
            pieces=4 * self.rows + 64,
            members=len(self.prefix) * self.rows,
            states=32,
            rows_per_piece=rows_per_piece(dtype, *heads[2:], *heads[:2]),
        )
        tables = PrefixTables.allocate(capacity, device)
        tables.fill(plan_pieces(chains, capacity, wanted_pieces=_wanted(device, heads)))
        return DecodeInput(self, tensors, tables)


def _wanted(device: str, heads: Heads) -> int:
    """Twice as many programs as the card runs at a time."""
    if device == "cpu":
        return 4
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, 2 * processors // heads.kv)


@dataclass(frozen=True)
class DecodeInput:
    case: Decode
    tensors: Tensors
    tables: PrefixTables

    @property
    def operations(self) -> float:
        tokens = int(self.tensors.kv_indptr[-1])
        return 4.0 * tokens * self.tensors.heads.q * self.tensors.heads.d

    @property
    def bytes(self) -> int:
        return self.tensors.unique_bytes

    @property
    def bytes_unshared(self) -> int:
        """If every row is read whole."""
        q, k = self.tensors[:2]
        slots = len(self.tensors.kv_indices)
        return (2 * slots * math.prod(k.shape[1:]) + 2 * q.numel()) * q.element_size()


EXTENDS = (
    Extend("plain prompt", sequences=2, cached=0, new=4096),
    Extend("prompt with ten blocks", 1, 0, 4600, blocks=10, text=60, branches=5, length=80),
    Extend("a block of 8 long branches", 1, 1024, 4352, blocks=1, text=256, branches=8, length=512),
    Extend("64 branches' headers", sequences=64, cached=4096, new=6),
)
DECODES = (
    Decode("32 families of 8", families=32, widths=(8,), prefix=(4096,), own=500),
    Decode("one family of 8", 1, (8,), (4096,), 500),
    Decode("8 families of 2 of 4", 8, (2, 4), (4096, 512), 300),
    Decode("64 samples of one prompt", 1, (64,), (2048,), 300),
    Decode("128 rows that share nothing", 128, (1,), (2048,), 300),
)
SMOKE_EXTENDS = (
    Extend("plain prompt", 2, 5, 20),
    Extend("two blocks", 2, 0, 70, blocks=2, text=5, branches=3, length=10),
)
SMOKE_DECODES = (
    Decode("2 families of 2 of 2", 2, (2, 2), (140, 130), 9),
    Decode("3 rows that share nothing", 3, (1,), (40,), 9),
)
