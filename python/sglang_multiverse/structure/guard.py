"""Which tags may come next: the grammar as a mask over the vocabulary.

The guard keeps every output that no budget cuts well formed. It says nothing
about ordinary tokens: they are allowed everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .automaton import Automaton, Phase
from .dialect import Role
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


def allowed(automaton: Automaton, limits: Limits, total_branches: int = 0) -> Allowed:
    """What may follow.

    Ending (EOS) is allowed outside blocks, and in a branch, where it stands for
    the branch's closing tag.

    `total_branches` is what the request's closed goals announced: all outlines
    of a goal count from its closing tag on. Goals written side by side do not
    see each other, so they may exceed `max_total_branches` unless the caller
    adds the outlines in its other open goals; and a goal once begun may always
    announce one branch, since a block without one cannot end well.
    """
    dialect = automaton.tags.dialect
    opens_block = Role.BLOCK_OPEN if dialect.block is not None else Role.GOAL_OPEN
    may_nest = automaton.depth < limits.max_depth and total_branches < limits.max_total_branches
    roles: set[Role] = set()
    if not automaton.frames:
        if dialect.think is not None:
            roles.add(Role.THINK_CLOSE if automaton.think_open else Role.THINK_OPEN)
        if may_nest:
            roles.add(opens_block)
        return Allowed(frozenset(roles), end=True)

    frame = automaton.frames[-1]
    match frame.phase:
        case Phase.BLOCK:
            roles.add(Role.GOAL_OPEN)
        case Phase.GOAL:
            room = min(limits.max_branches, limits.max_total_branches - total_branches)
            roles |= _allowed_in_goal(len(frame.outlines), room)
        case Phase.OUTLINE:
            roles.add(Role.OUTLINE_CLOSE)
        case Phase.HEAD:
            roles.add(Role.BRANCH_OPEN)
        case Phase.BRANCH:
            roles |= {Role.BRANCH_CLOSE, opens_block} if may_nest else {Role.BRANCH_CLOSE}
        case Phase.TAIL:
            has_conclusion = dialect.conclusion is not None
            roles.add(Role.CONCLUSION_OPEN if has_conclusion else Role.BLOCK_CLOSE)
        case Phase.CONCLUSION:
            roles.add(Role.CONCLUSION_CLOSE)
        case Phase.END:
            roles.add(Role.BLOCK_CLOSE)
    return Allowed(frozenset(roles), end=frame.phase is Phase.BRANCH)


def _allowed_in_goal(planned: int, room: int) -> set[Role]:
    roles = {Role.GOAL_CLOSE} if planned else set()
    if planned < max(room, 1):
        roles.add(Role.OUTLINE_OPEN)
    return roles


def forbidden_ids(
    tags: TagTable, permitted: Allowed, eos_ids: frozenset[int] = frozenset()
) -> tuple[int, ...]:
    """The token ids to mask: every tag not permitted, and EOS where the text may not end."""
    ids = [token for role, token in tags.id_of.items() if role not in permitted.roles]
    if not permitted.end:
        ids.extend(sorted(eos_ids))
    return tuple(ids)
