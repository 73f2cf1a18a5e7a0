"""Whose keys the queries of a step see: sequences over paged KV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter

import torch

from ..grouping import Link, find_groups
from ..inputs import KernelInputError, check_indices
from . import library as lib


@dataclass(frozen=True, slots=True)
class Shared:
    """Which sequences read which keys together; see `group` in `src/api.h`.

    Attributes:
        groups: int32 [groups, 5], lower levels first.
        members: int32, sequences.
        own: int32 [sequences]; what each reads for itself begins there.
    """

    groups: torch.Tensor
    members: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of_chains(
        cls, chains: Sequence[Sequence[Link]], sequences: int, group: int
    ) -> Shared | None:
        """`None` if sharing saves nothing.

        Args:
            chains: of the first sequences, the prefixes they share, as `find_groups` takes them.
            sequences: how many there are.
            group: query heads of a KV head.

        Raises:
            GroupingError: chains that contradict each other.
        """
        most = max(1, lib.QUERIES // group)
        own, level = [0] * sequences, [0] * sequences
        groups: list[tuple[int, int, int, int, int]] = []
        members: list[int] = []
        for rows, _, stop in find_groups(chains, min_saved=lib.TILE):
            # All rows of a group are in the same groups around it.
            start, stop = own[rows[0]], stop // lib.TILE * lib.TILE
            if stop <= start:
                continue
            parts = -(-len(rows) // most)
            cuts = [len(rows) * i // parts for i in range(parts + 1)]
            for a, b in pairwise(cuts):
                at = len(members)
                groups.append((at, at + b - a, start, stop, level[rows[0]]))
                members += rows[a:b]
            for row in rows:
                own[row] = stop
                level[row] += 1
        if not groups:
            return None
        groups.sort(key=itemgetter(4))
        return cls(*(torch.tensor(each, dtype=torch.int32) for each in (groups, members, own)))


@dataclass(frozen=True, slots=True)
class Rows:
    """Sequences and their new tokens, which are their last rows.

    Attributes:
        tokens: of all sequences, new.
        q_begin: int32 [sequences + 1]; sequence `b` has the queries `[q_begin[b], q_begin[b + 1])`.
        lens: int32 [sequences]; keys of each, the new ones included.
        table: int32, slots; those of sequence `b` begin at `begin[b]`.
        begin: int64 [sequences], indices into `table` as it lies in memory.
        hidden: int32 [tokens, depth, 2], half-open intervals of row indices that a query does
            not see, or `None`.
        shared: keys that sequences of one new token each read together, or `None`.
    """

    tokens: int
    q_begin: torch.Tensor
    lens: torch.Tensor
    table: torch.Tensor
    begin: torch.Tensor
    hidden: torch.Tensor | None = None
    shared: Shared | None = None

    @classmethod
    def of_pool(
        cls,
        req_to_token: torch.Tensor,
        rows: torch.Tensor,
        lens: torch.Tensor,
        new: torch.Tensor | None,
        tokens: int,
        hidden: torch.Tensor | None = None,
        shared: Shared | None = None,
    ) -> Rows:
        """Sequences that are rows of a table of slots.

        Args:
            req_to_token: int32 [rows, context], contiguous.
            rows: which row of it each sequence is, [sequences].
            lens: [sequences], as above.
            new: new tokens of each, [sequences]; `None` is one.
            tokens: their sum.
            hidden, shared: as above.
        """
        count = len(rows)
        if new is None:
            q_begin = torch.arange(count + 1, dtype=torch.int32)
        else:
            q_begin = torch.zeros(count + 1, dtype=torch.int32)
            torch.cumsum(new, 0, out=q_begin[1:])
        begin = rows.to(torch.int64) * req_to_token.stride(0)
        return cls(tokens, q_begin, lens.to(torch.int32), req_to_token, begin, hidden, shared)

    @classmethod
    def of_indices(
        cls,
        tokens: int,
        qo_indptr: torch.Tensor,
        kv_indptr: torch.Tensor,
        kv_indices: torch.Tensor,
        hidden: torch.Tensor | None = None,
    ) -> Rows:
        """Sequences given as `extend.extend_attention` takes them.

        Raises:
            KernelInputError: an argument has a wrong shape or dtype.
        """
        check_indices("qo_indptr", qo_indptr)
        check_indices("kv_indptr", kv_indptr, len(qo_indptr))
        check_indices("kv_indices", kv_indices)
        return cls(
            tokens,
            qo_indptr.to(torch.int32),
            kv_indptr.diff().to(torch.int32),
            kv_indices.to(torch.int32),
            kv_indptr[:-1].to(torch.int64).contiguous(),
            hidden,
        )

    def struct(self) -> lib.Rows:
        """Points into the tensors, which must live as long.

        Raises:
            KernelInputError: `hidden` has a wrong shape or dtype.
        """
        depth, hidden = 0, None
        if self.hidden is not None:
            shape = self.hidden.shape
            if self.hidden.dtype != torch.int32 or shape[::2] != (self.tokens, 2):
                raise KernelInputError(
                    f"hidden: {self.hidden.dtype} {tuple(shape)}; allowed is int32 "
                    f"[{self.tokens}, depth, 2]"
                )
            if not self.hidden.is_contiguous():
                raise KernelInputError("hidden: must be contiguous")
            depth, hidden = shape[1], self.hidden.data_ptr()
        return lib.Rows(
            self.tokens,
            len(self.lens),
            self.q_begin.data_ptr(),
            self.lens.data_ptr(),
            self.table.data_ptr(),
            self.begin.data_ptr(),
            hidden,
            depth,
            *(
                (0, None, None, None)
                if self.shared is None
                else (
                    len(self.shared.groups),
                    self.shared.groups.data_ptr(),
                    self.shared.members.data_ptr(),
                    self.shared.own.data_ptr(),
                )
            ),
        )
