"""What can go wrong, by who has to do something about it."""

from __future__ import annotations


class EvaluationError(ValueError):
    """A setting, a task or an endpoint that the user has to mend; ends the command."""


class MissingPackageError(EvaluationError):
    """A task needs what is not installed; the message names what to install."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f"{what} needs {package}: pip install 'sglang-multiverse[eval]'")
        self.package = package


class TroubleError(Exception):
    """No whole answer came; asking again may help."""


class RefusedError(Exception):
    """The endpoint refuses this very request; asking again does not help."""
