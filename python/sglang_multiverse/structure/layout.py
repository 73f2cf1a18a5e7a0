"""Positions and visibility of a whole sequence: what kernels, training and the oracle share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .automaton import Automaton
from .tags import TagTable


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of `n` tokens.

    Attributes:
        positions: int64 `[n]`, position ids.
        hidden: int64 `[n, depth, 2]`; token `i` may not see the tokens
            `[hidden[i, d, 0], hidden[i, d, 1])` for any `d`. Unused entries are
            empty intervals `(0, 0)`. `depth` is the deepest nesting in use.
    """

    positions: npt.NDArray[np.int64]
    hidden: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)

    def dense_mask(self) -> npt.NDArray[np.bool_]:
        """bool `[n, n]`, true where token `i` (row) sees token `j` (column)."""
        n = len(self)
        columns = np.arange(n)
        mask = columns[None, :] <= columns[:, None]
        for d in range(self.hidden.shape[1]):
            lo, hi = self.hidden[:, d, 0, None], self.hidden[:, d, 1, None]
            mask &= ~((columns >= lo) & (columns < hi))
        return mask


def layout(ids: Sequence[int], tags: TagTable) -> Layout:
    """Read a whole sequence. O(n · depth)."""
    automaton = Automaton(tags)
    positions = np.empty(len(ids), dtype=np.int64)
    rows: list[tuple[tuple[int, int], ...]] = []
    for i, token in enumerate(ids):
        positions[i] = automaton.position
        rows.append(automaton.hidden if automaton.frames else ())
        automaton.push(token)
    depth = max((len(row) for row in rows), default=0)
    hidden = np.zeros((len(ids), depth, 2), dtype=np.int64)
    for i, row in enumerate(rows):
        for d, interval in enumerate(row):
            hidden[i, d] = interval
    return Layout(positions, hidden)
