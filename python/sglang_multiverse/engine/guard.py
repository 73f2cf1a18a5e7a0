"""The guard on a batch: one number per row, looked up in a table made once.

The guard concerns the tags and the end tokens only, about fifteen columns of
the logits, so the table is as wide as these and not as the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..structure import (
    STATES,
    Allowed,
    Phase,
    Role,
    allowed,
    allowed_in,
    forbidden_ids,
    guard_state,
)
from .req import MultiverseReq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .family import Family
    from .vocabulary import Vocabulary

_FREE = STATES  # a row that the guard does not concern


class GuardTable:
    """What each state of the grammar forbids, for one vocabulary on one device.

    Attributes:
        columns: int64 `[k]`, the token ids the guard may forbid.
        biases: float32 `[STATES + 1, k]`, `-inf` where forbidden, else 0; the
            last row forbids nothing.
        state_of: a state that allows exactly this.
    """

    def __init__(self, vocabulary: Vocabulary, device: Any) -> None:
        tags, eos_ids = vocabulary.tags, vocabulary.eos_ids
        ids = sorted({*tags.role_of, *eos_ids})
        biases = torch.zeros(STATES + 1, len(ids))
        self.state_of: dict[Allowed, int] = {}
        for state in range(STATES):
            permitted = allowed_in(state, tags.dialect)
            self.state_of.setdefault(permitted, state)
            forbidden = set(forbidden_ids(tags, permitted, eos_ids))
            biases[state, [token in forbidden for token in ids]] = -torch.inf
        self.vocabulary = vocabulary  # keeps its id from being used again
        self.columns = torch.tensor(ids, device=device)
        self.biases = biases.to(device)


class GuardMask(NamedTuple):
    """One step's mask: `states` is int64 `[rows]`, on the device."""

    table: GuardTable
    states: torch.Tensor

    def apply(self, logits: torch.Tensor) -> None:
        """Forbid in place, in `[rows, vocabulary]`; no synchronisation with the host."""
        biases = self.table.biases[self.states].to(logits.dtype)
        logits.index_add_(1, self.table.columns, biases)


_TABLES: dict[tuple[int, str], GuardTable] = {}


def guard_table(vocabulary: Vocabulary, device: Any) -> GuardTable:
    key = (id(vocabulary), str(device))
    if key not in _TABLES:
        _TABLES[key] = GuardTable(vocabulary, device)
    return _TABLES[key]


def guard_mask(reqs: Sequence[Any], device: Any) -> GuardMask | None:
    """The mask of one step of these rows; `None` if none of them is guarded."""
    states = [_FREE] * len(reqs)
    forked: dict[int, list[int]] = {}  # the rows of each family that has forked
    vocabulary = None
    for row, req in enumerate(reqs):
        if not isinstance(req, MultiverseReq) or req.discards or not req.family.options.guard:
            continue
        family = req.family
        vocabulary = family.vocabulary
        if family.trunk.children:
            forked.setdefault(id(family), []).append(row)
        else:
            states[row] = guard_state(req.automaton, family.limits, family.branches)
    if vocabulary is None:
        return None
    table = guard_table(vocabulary, device)
    for rows in forked.values():
        members = [reqs[row] for row in rows]
        for row, state in zip(rows, _family_states(members, table), strict=True):
            states[row] = state
    host = torch.tensor(states, pin_memory=torch.device(device).type == "cuda")
    return GuardMask(table, host.to(device, non_blocking=True))


def _family_states(rows: Sequence[MultiverseReq], table: GuardTable) -> list[int]:
    """The states of one family's rows, which share `max_total_branches`."""
    family: Family = rows[0].family
    limits = family.limits
    # Each row can begin one more plan in this step, and a plan can grow to `max_branches`.
    # As long as all that fits, no row needs to know of the others.
    planned = sum(map(announced, family.members()))
    most = family.branches + planned + len(rows) + limits.max_branches
    if most <= limits.max_total_branches:
        return [guard_state(req.automaton, limits) for req in rows]
    return [table.state_of[may] for may in permitted(family, rows)]


def permitted(family: Family, rows: Sequence[MultiverseReq]) -> list[Allowed]:
    """What each of the family's rows of one step may write next.

    Plans that are being written side by side share `max_total_branches`: what
    one has announced, or is allowed to announce in this very step, is taken
    from the others.
    """
    planned = sum(map(announced, family.members()))
    granted = 0
    found = []
    for req in rows:
        own = announced(req)
        others = family.branches + planned - own + granted
        may = allowed(req.automaton, family.limits, others)
        found.append(may)
        opens = {Role.BLOCK_OPEN, Role.GOAL_OPEN} if not own else {Role.OUTLINE_OPEN}
        granted += not may.roles.isdisjoint(opens)
    return found


def announced(req: MultiverseReq) -> int:
    """Branches of a plan that `req` is writing, or has written and not forked yet; at least one."""
    automaton = req.automaton
    if req.children or automaton.depth <= req.depth:
        return 0
    frame = automaton.frames[-1]
    match frame.phase:
        case Phase.BLOCK:
            return 1
        case Phase.GOAL | Phase.HEAD:
            return max(1, len(frame.outlines))
        case Phase.OUTLINE:
            return len(frame.outlines) + 1
        case _:
            return 0
