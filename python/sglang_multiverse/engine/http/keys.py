"""Keys stay out of what a server tells about itself: `/server_info`, and the log of its start.

SGLang hides the secrets of its watermarks there, and shows the keys that open it. Whoever may
ask, or may read the log, would hold the administrator's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

HIDDEN = "<redacted>"
_NAMES = frozenset({"api_key", "admin_api_key", "ssl_keyfile_password"})
_FLAGS = frozenset(f"--{name.replace('_', '-')}" for name in _NAMES)


def hide_values(told: Any, *_args: Any, **_kwargs: Any) -> Any:
    """Hook after SGLang hid its secrets in settings; it calls itself for what they hold."""
    if not isinstance(told, dict) or not _NAMES & told.keys():
        return told
    return {
        name: HIDDEN if name in _NAMES and value is not None else value
        for name, value in told.items()
    }


def hide_arguments(
    original: Callable[..., str], argv: Sequence[str], *args: Any, **kwargs: Any
) -> str:
    """Hook around SGLang's record of the command that started it."""
    shown: list[str] = []
    for argument in argv:
        flag, given, _ = argument.partition("=")
        if shown and shown[-1] in _FLAGS:
            shown.append(HIDDEN)
        elif given and flag in _FLAGS:
            shown.append(f"{flag}={HIDDEN}")
        else:
            shown.append(argument)
    return original(shown, *args, **kwargs)
