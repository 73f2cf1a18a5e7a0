"""Which tags may come next: the grammar as a mask over the vocabulary.

The guard keeps every output that no budget cuts well formed. It says nothing
about ordinary tokens: they are allowed everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .automaton import Automaton, Phase
from .dialect import Dialect, Role
from .tags import TagTable


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on structure. At a bound the opening tag is masked, nothing fails.

    Attributes:
        max_depth: blocks open at once.
        max_branches: branches of one block.
        max_total_branches: branches of one request, all blocks together.
    """

    max_depth: int = 4
    max_branches: int = 16
    max_total_branches: int = 256


class Allowed(NamedTuple):
    """The tags that may come next, and whether the text may end."""

    roles: frozenset[Role]
    end: bool


_PHASES: tuple[Phase | None, ...] = (None, *Phase)
_STATE_OF_PHASE = {phase: 4 * i for i, phase in enumerate(_PHASES)}
STATES = 4 * len(_PHASES)


def guard_state(automaton: Automaton, limits: Limits, total_branches: int = 0) -> int:
    """All that decides what may follow, as one number in `[0, STATES)`; `allowed_in` reads it.

    `total_branches` is what the request's closed goals announced: all outlines
    of a goal count from its closing tag on. Goals written side by side do not
    see each other, so they may exceed `max_total_branches` unless the caller
    adds the outlines in its other open goals; and a goal once begun may always
    announce one branch, since a block without one cannot end well.
    """
    frames = automaton.frames
    if not frames:
        may_open = limits.max_depth > 0 and total_branches < limits.max_total_branches
        return 2 * automaton.think_open + may_open
    frame = frames[-1]
    state = _STATE_OF_PHASE[frame.phase]
    if frame.phase is Phase.GOAL:
        planned = len(frame.outlines)
        room = min(limits.max_branches, limits.max_total_branches - total_branches)
        return state + 2 * (planned > 0) + (planned < max(room, 1))
    if frame.phase is Phase.BRANCH:
        return state + (
            len(frames) < limits.max_depth and total_branches < limits.max_total_branches
        )
    return state


def allowed_in(state: int, dialect: Dialect) -> Allowed:  # noqa: C901 - a table
    """What may follow in a `guard_state`.

    Ending (EOS) is allowed outside blocks, and in a branch, where it stands for
    the branch's closing tag.
    """
    phase, marked, may_open = _PHASES[state // 4], bool(state & 2), bool(state & 1)
    opens_block = Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN
    roles: set[Role] = set()
    match phase:
        case None:
            if dialect.think is not None:
                roles.add(Role.THINK_CLOSE if marked else Role.THINK_OPEN)
            if may_open:
                roles.add(opens_block)
        case Phase.BLOCK:
            roles.add(Role.GOAL_OPEN)
        case Phase.GOAL:
            if marked:
                roles.add(Role.GOAL_CLOSE)
            if may_open:
                roles.add(Role.OUTLINE_OPEN)
        case Phase.OUTLINE:
            roles.add(Role.OUTLINE_CLOSE)
        case Phase.HEAD:
            roles.add(Role.BRANCH_OPEN)
        case Phase.BRANCH:
            roles |= {Role.BRANCH_CLOSE, opens_block} if may_open else {Role.BRANCH_CLOSE}
        case Phase.TAIL:
            has_conclusion = dialect.conclusion is not None
            roles.add(Role.CONCLUSION_OPEN if has_conclusion else Role.BLOCK_CLOSE)
        case Phase.CONCLUSION:
            roles.add(Role.CONCLUSION_CLOSE)
        case Phase.END:
            roles.add(Role.BLOCK_CLOSE)
    return Allowed(frozenset(roles), end=phase is None or phase is Phase.BRANCH)


def allowed(automaton: Automaton, limits: Limits, total_branches: int = 0) -> Allowed:
    """What may follow; the arguments are those of `guard_state`."""
    return allowed_in(guard_state(automaton, limits, total_branches), automaton.tags.dialect)


def forbidden_ids(
    tags: TagTable, permitted: Allowed, eos_ids: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """The token ids to mask: every tag not permitted, and EOS where the text may not end."""
    ids = [token for role, token in tags.id_of.items() if role not in permitted.roles]
    if not permitted.end:
        ids.extend(sorted(eos_ids))
    return tuple(ids)
