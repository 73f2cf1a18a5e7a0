"""What can go wrong, by who has to do something about it."""

from __future__ import annotations

from collections.abc import Sequence


class CuratorError(ValueError):
    """A setting, a source or an endpoint that the user has to mend; ends the run."""


class RejectedError(ValueError):
    """An answer of the model that cannot be used; `problems` go back to the model."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class StageFailedError(Exception):
    """A stage of an example that no repair mended; `found` is what `reason` speaks of."""

    def __init__(self, stage: str, reason: str, found: str = "") -> None:
        self.stage, self.reason, self.found = stage, reason, found
        super().__init__(f"{stage}: {reason}")


class EndpointTroubleError(Exception):
    """No usable answer came, after all retries; the example can be tried again later."""


class NotAskedError(Exception):
    """`--only` needs an answer of an earlier stage that there is not."""


class BudgetReachedError(Exception):
    """The run has used what it was allowed to; no further call is made."""
