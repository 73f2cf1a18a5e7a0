"""Where a sequence stands between two steps, and where it may go from there."""

from __future__ import annotations

from enum import Enum, unique
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .req import MultiverseReq


@unique
class Stage(Enum):
    """One value per sequence. Rows, batches and queues follow from it."""

    QUEUED = "queued"  # a trunk in SGLang's queue or chunked prefill, which own it
    EXTEND = "extend"  # known ids wait for their KV
    DECODE = "decode"  # a row of the running batch
    DRAIN = "drain"  # one more decode step, for the KV of the last token
    PARKED = "parked"  # its branches are at work; the row is kept, locked
    CLOSED = "closed"  # a finished branch: its slots wait for the join, its row is free


class IllegalTransitionError(RuntimeError):
    """A sequence was told to go where it cannot go from where it stands: a bug of ours."""


# A retraction leads from every stage back to EXTEND (a branch) or QUEUED (a trunk).
TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.QUEUED: frozenset({Stage.QUEUED, Stage.DECODE, Stage.EXTEND, Stage.PARKED}),
    Stage.EXTEND: frozenset({Stage.EXTEND, Stage.QUEUED, Stage.DECODE, Stage.PARKED, Stage.CLOSED}),
    Stage.DECODE: frozenset({Stage.DRAIN, Stage.EXTEND, Stage.QUEUED}),
    Stage.DRAIN: frozenset({Stage.PARKED, Stage.CLOSED, Stage.EXTEND, Stage.QUEUED}),
    Stage.PARKED: frozenset({Stage.EXTEND, Stage.QUEUED}),
    Stage.CLOSED: frozenset({Stage.EXTEND}),
}

# Stages of the rows of the running batch.
DECODING = frozenset({Stage.DECODE, Stage.DRAIN})


class Fork(NamedTuple):
    """The branches of a parked sequence: see the attributes of `MultiverseReq`."""

    children: list[MultiverseReq]
    fork_at: int
    flush_at: int
