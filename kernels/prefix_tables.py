"""What `grouping` planned, in device memory: written when rows fork or join, read in every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .grouping import Capacity, GroupingError, Piece, Plan


@dataclass(frozen=True, slots=True)
class PrefixTables:
    """int32 tables at addresses that never change, so that a CUDA graph may hold them.

    Attributes:
        capacity: their sizes, known on the host.
        pieces: [capacity.pieces, 5], a `grouping.Piece` each; unused ones have no members.
        members: [capacity.members], rows of the batch.
        suffix_start: [capacity.rows]; a row's own suffix is `[suffix_start, its length)`.
        states: [capacity.rows]; how many prefix states a row has.
    """

    capacity: Capacity
    pieces: torch.Tensor
    members: torch.Tensor
    suffix_start: torch.Tensor
    states: torch.Tensor
    _all: torch.Tensor

    @classmethod
    def allocate(cls, capacity: Capacity, device: torch.device | str) -> PrefixTables:
        """Tables that say that no row shares anything."""
        width = len(Piece._fields)
        sizes = (capacity.pieces * width, capacity.members, capacity.rows, capacity.rows)
        flat = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        pieces, members, suffix_start, states = flat.split(sizes)
        return cls(capacity, pieces.view(-1, width), members, suffix_start, states, flat)

    def fill(self, plan: Plan) -> None:
        """Write `plan` with one copy that the host does not wait for, on the current stream.

        Raises:
            GroupingError: the plan was made for a larger capacity.
        """
        pinned = self._all.is_cuda
        new = torch.zeros(self._all.shape, dtype=torch.int32, device="cpu", pin_memory=pinned)
        at = 0
        for table, values in (
            (self.pieces, [number for piece in plan.pieces for number in piece]),
            (self.members, plan.members),
            (self.suffix_start, plan.suffix_start),
            (self.states, plan.states),
        ):
            if len(values) > table.numel():
                raise GroupingError(f"plan: {len(values)} numbers; allowed are {table.numel()}")
            new[at : at + len(values)] = torch.tensor(values, dtype=torch.int32, device="cpu")
            at += table.numel()
        self._all.copy_(new, non_blocking=pinned)
