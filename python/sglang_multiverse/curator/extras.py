"""What the curator needs beyond the package itself; imported where it is used."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import CuratorError

NEEDED = ("sentencex", "rapidfuzz")


def require() -> None:
    """Fail before a run rather than in it.

    Raises:
        CuratorError: something is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise CuratorError(f"{' and '.join(missing)} not installed: pip install '.[curator]'")
