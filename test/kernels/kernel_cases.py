"""Inputs for the kernels: packed sequences with hidden intervals, batches of rows that share."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sglang_multiverse.kernels.grouping import Capacity, Link

# Where the kernels run: on a GPU if there is one, else in Triton's interpreter.
DEVICE = "cuda" if torch.cuda.is_available() and "TRITON_INTERPRET" not in os.environ else "cpu"

# Of the largest difference to a reference in fp64, where values are of the order of 1.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Heads:
    kv: int = 2
    group: int = 2
    d: int = 64
    dv: int = 64


@dataclass
class Pool:
    """KV in slots that are handed out in no order."""

    heads: Heads
    dtype: torch.dtype
    seed: int
    size: int = 1024
    free: list[int] = field(init=False)
    k: torch.Tensor = field(init=False)
    v: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        self.k = self._random(generator, self.heads.d)
        self.v = self._random(generator, self.heads.dv)
        self.free = torch.randperm(self.size, generator=generator, device="cpu").tolist()

    def _random(self, generator: torch.Generator, d: int) -> torch.Tensor:
        shape = (self.size, self.heads.kv, d)
        return torch.randn(shape, generator=generator, device="cpu").to(DEVICE, self.dtype)

    def take(self, count: int) -> list[int]:
        return [self.free.pop() for _ in range(count)]

    def queries(self, count: int) -> torch.Tensor:
        generator = torch.Generator("cpu").manual_seed(self.seed + 1)
        shape = (count, self.heads.kv * self.heads.group, self.heads.d)
        return torch.randn(shape, generator=generator, device="cpu").to(DEVICE, self.dtype)


def indptr(lengths: Sequence[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).to(torch.int32)


def exact(call: Any, args: Sequence[Any], **kwargs: Any) -> torch.Tensor:
    """What the reference says of the same numbers in fp64."""
    wide = [
        arg.double() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg
        for arg in args
    ]
    result: torch.Tensor = call(*wide, **kwargs)
    return result


def check(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.isfinite().all(), "not finite"
    error = (got.double() - want).abs().max().item() if got.numel() else 0.0
    assert error <= TOLERANCE[got.dtype], f"off by {error:.2e}"


# --- extend -------------------------------------------------------------------


def multiverse_intervals(rng: random.Random, length: int, depth: int) -> list[list[list[int]]]:
    """For each of `length` tokens, an interval for each level: blocks within blocks, anywhere."""
    hidden: list[list[list[int]]] = []

    def write(most: int, around: list[list[int]]) -> None:
        while most > 0 and len(hidden) < length:
            text = rng.randint(1, max(1, most // 3))
            hidden.extend([*around] + [[0, 0]] * (depth - len(around)) for _ in range(text))
            most -= text
            if len(around) < depth and rng.random() < 0.7:
                goal = len(hidden)
                for _ in range(rng.randint(1, 4)):
                    part = rng.randint(1, max(1, most // 2))
                    write(part, [*around, [goal, len(hidden)]])
                    most -= part

    while len(hidden) < length:
        write(length, [])
    return hidden[:length]


def wild_intervals(rng: random.Random, length: int, depth: int) -> list[list[list[int]]]:
    """Any intervals: empty, overlapping, out of order, over the query itself, past the end."""
    return [
        [[rng.randint(0, length + 3), rng.randint(0, length + 3)] for _ in range(depth)]
        for _ in range(length)
    ]


def intervals_of(hidden: Any) -> torch.Tensor:
    """int32, from nested lists or an array."""
    return torch.as_tensor(hidden, dtype=torch.int32, device=DEVICE).contiguous()


def extend_case(
    sequences: Sequence[tuple[int, int]],
    depth: int,
    *,
    heads: Heads | None = None,
    dtype: torch.dtype = torch.float32,
    wild: bool = False,
    seed: int = 0,
) -> tuple[Any, ...]:
    """Arguments of `extend_attention` for sequences of (cached tokens, new tokens)."""
    rng = random.Random(seed)
    pool = Pool(heads or Heads(), dtype, seed)
    intervals = wild_intervals if wild else multiverse_intervals
    hidden: list[list[list[int]]] = []
    slots: list[int] = []
    for cached, new in sequences:
        hidden += intervals(rng, cached + new, depth)[cached:]
        slots += pool.take(cached + new)
    new_tokens = [new for _, new in sequences]
    return (
        pool.queries(sum(new_tokens)),
        pool.k,
        pool.v,
        indptr(new_tokens),
        indptr([cached + new for cached, new in sequences]),
        torch.tensor(slots, dtype=torch.int64, device=DEVICE),
        intervals_of(hidden).reshape(sum(new_tokens), depth, 2),
        max(new_tokens),
    )


# --- decode -------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows of a decode batch, and of what each is made."""

    chains: list[list[Link]]
    own: list[int]

    @property
    def lengths(self) -> list[int]:
        return [
            (chain[-1].stop if chain else 0) + own
            for chain, own in zip(self.chains, self.own, strict=True)
        ]

    def arguments(
        self, heads: Heads | None = None, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> tuple[Any, ...]:
        """Arguments of `shared_prefix_decode`, without the tables."""
        pool = Pool(heads or Heads(), dtype, seed)
        shared: dict[Any, list[int]] = {}
        slots: list[int] = []
        for chain, own in zip(self.chains, self.own, strict=True):
            row: list[int] = []
            for key, stop in chain:
                if key not in shared:
                    shared[key] = [*row, *pool.take(stop - len(row))]
                row = shared[key]
            slots += [*row, *pool.take(own)]
        return (
            pool.queries(len(self.own)),
            pool.k,
            pool.v,
            indptr(self.lengths),
            torch.tensor(slots, dtype=torch.int64, device=DEVICE),
        )


def forest(rng: random.Random, rows: int, depth: int, prefix: int, own: int) -> Batch:
    """`rows` rows in random trees, shuffled: shared parts up to `prefix`, own parts up to `own`."""
    chains: list[list[Link]] = []

    def grow(above: list[Link], count: int) -> None:
        while count > 0:
            part = rng.randint(1, count)
            count -= part
            if len(above) < depth and rng.random() < 0.75:
                start = above[-1].stop if above else 0
                key = (*above[-1].key, rng.random()) if above else (rng.random(),)
                grow([*above, Link(key, start + rng.randint(0, prefix))], part)
            else:
                chains.extend([above] * part)

    grow([], rows)
    rng.shuffle(chains)
    return Batch(chains, [rng.randint(0, own) for _ in chains])


def roomy(rows: int, *, rows_per_piece: int = 4) -> Capacity:
    return Capacity(rows, pieces=64, members=64, states=32, rows_per_piece=rows_per_piece)
