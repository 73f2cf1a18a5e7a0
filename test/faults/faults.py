"""A plugin for tests: a request that names a fault in its `rid` makes the engine raise there.

`test_crash.py` puts this folder, which holds an entry point for it, on the server's
path, so that it is loaded in the scheduler's process as any plugin is.

    settle-*, fork-*, join-*, observe-*, admit-*, match-*
                                          our own code raises while it serves that request
    hold-*                                the branches of that request never get their turn
    step-*                                SGLang's own step raises
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


class InjectedError(RuntimeError):
    """What a fault raises."""


def register() -> None:
    from sglang_multiverse.engine import fork, join, known, reading, scheduler, step
    from sglang_multiverse.engine.extends import Extends
    from sglang_multiverse.engine.scheduler import MultiverseScheduler

    def fault(name: str, module: Any, function: str) -> None:
        called: Callable[..., Any] = getattr(module, function)

        @wraps(called)
        def faulty(subject: Any, *args: Any, **kwargs: Any) -> Any:
            rid = subject.rid if hasattr(subject, "rid") else subject.trunk.rid
            if rid.startswith(f"{name}-"):
                # Half of the work is done when it goes wrong.
                called(subject, *args, **kwargs)
                raise InjectedError(f"injected in {function}")
            return called(subject, *args, **kwargs)

        setattr(module, function, faulty)

    fault("settle", step, "settle")
    fault("fork", fork, "spawn")
    fault("join", join, "join")
    fault("observe", reading, "_check_ends")
    fault("admit", scheduler, "found_family")
    fault("match", known, "match_prefix")

    pending = Extends.pending
    run_batch = MultiverseScheduler.run_batch

    def held(self: Any) -> Any:
        return [req for req in pending(self) if not req.family.trunk.rid.startswith("hold-")]

    def step(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if any(req.rid.startswith("step-") for req in batch.reqs):
            raise InjectedError("injected in a step")
        return run_batch(self, batch, *args, **kwargs)

    Extends.pending = held  # type: ignore[method-assign]
    MultiverseScheduler.run_batch = step  # type: ignore[method-assign]
