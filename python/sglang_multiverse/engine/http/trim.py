"""Cuts the text of an answer where a stop ended it, in SGLang's detokenizer process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# In a finish reason, only on its way to the detokenizer: the first character of the
# answer's text at which the stop string may stand.
START = "multiverse_start"


def trim_stop(
    original: Callable[..., Any],
    detokenizer: Any,
    output: Any,
    finished_reason: dict[str, Any] | None,
    no_stop_trim: bool,
) -> Any:
    """Hook around `DetokenizerManager.trim_matched_stop`: called for the ids, then the text."""
    if not finished_reason or START not in finished_reason:
        return original(detokenizer, output, finished_reason, no_stop_trim)
    if not isinstance(output, str):
        return output
    start, matched = finished_reason.pop(START), finished_reason["matched"]
    at = output.find(matched, start) if isinstance(matched, str) else -1
    if at < 0:
        return output
    return output[: at + len(matched) * bool(no_stop_trim)]
