"""A request is aborted by the id its client gave it, whatever SGLang made of that id.

SGLang gives each of several answers, and each prompt of a batch, an id of its
own, and then does not know the client's any more.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from ..options import OptionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_GIVEN = "multiverse_rid"
_GROUPS = "multiverse_groups"


class Group(NamedTuple):
    """What SGLang made of one request: `states` by its own ids, filled as they are sent."""

    rid: str
    states: dict[str, Any]
    aborted: list[bool]  # holds one entry once the client has aborted it


def _groups(manager: Any) -> list[Group]:
    found: list[Group] = vars(manager).setdefault(_GROUPS, [])
    return found


def check_rid(rid: Any, batch: int | None, n: Any) -> None:
    """Raise `OptionError` for a list of ids with a single prompt, which SGLang trips over."""
    if isinstance(rid, list) and batch is None and n in (None, 1):
        raise OptionError("rid: expected a string for a single prompt, got a list")


def note_rid(obj: Any) -> None:
    """Remember the client's id before SGLang expands it."""
    if isinstance(obj.rid, str):
        setattr(obj, _GIVEN, obj.rid)


async def handle_batch(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any, request_states: Any
) -> AsyncGenerator[Any, None]:
    """Hook: what one client's id stands for, as long as it is answered."""
    group = Group(getattr(obj, _GIVEN, ""), request_states, [])
    _groups(manager).append(group)
    try:
        async with aclosing(original(manager, obj, request, request_states)) as outputs:
            async for out in outputs:
                yield out
    finally:
        groups = _groups(manager)  # by identity: an equal one may be under way
        groups[:] = [other for other in groups if other.states is not group.states]


def abort_request(
    original: Callable[..., Any], manager: Any, rid: str = "", abort_all: bool = False
) -> None:
    """Hook: an id that stands for several requests aborts all of them."""
    original(manager, rid, abort_all)
    if abort_all or not rid:
        return
    for group in _groups(manager):
        if group.rid == rid:
            group.aborted[:] = [True]
            for own, state in list(group.states.items()):
                if manager.rid_to_state.get(own) is state:
                    original(manager, own)


def abort_late(manager: Any, rid: str) -> None:
    """`rid` was just sent: abort it if the request it is part of was aborted before."""
    for group in _groups(manager):
        if group.aborted and rid in group.states:
            manager.abort_request(rid)
