"""What the scheduler attached to an answer, on its way into `meta_info`.

The scheduler sends two keys through SGLang's `customized_info`, each with one
entry per request of the batch:

- `multiverse`: the summary, an object, with the output that ends the request;
  `None` otherwise.
- `multiverse_deltas`: the `(path, ids)` pairs generated since the last
  output, for requests that asked for live branches; `None` otherwise. They
  become `[path, text]` pairs here.

SGLang takes such values for lists with one item per token and slices them so;
neither is one, and both are kept out of its hands here.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .live import LiveText
from .support import support_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

SUMMARY = "multiverse"
DELTAS = "multiverse_deltas"

# The OpenAI schema has a number where `/generate` has null; it is what OpenAI
# itself gives for a token whose log probability is not available.
NO_LOGPROB = -9999.0

_PENDING = "multiverse_pending"
_LIVE = "multiverse_live"


def take_results(
    original: Callable[..., Any],
    manager: Any,
    meta_info: dict[str, Any],
    state: Any,
    customized_info: dict[str, list[Any]],
    index: int,
    finish_reason: Any,
) -> None:
    """Hook: take our keys, leave the others to SGLang."""
    others = {k: v for k, v in customized_info.items() if k not in (SUMMARY, DELTAS)}
    if len(others) < len(customized_info):
        if summary := customized_info.get(SUMMARY, {index: None})[index]:
            meta_info[SUMMARY] = summary
        deltas = customized_info.get(DELTAS, {index: None})[index]
        if deltas is not None:
            pairs = _live_text(manager, state).push(deltas, finish_reason)
            vars(state).setdefault(_PENDING, []).extend(pairs)
    if others:
        original(manager, meta_info, state, others, index, finish_reason)


def _live_text(manager: Any, state: Any) -> LiveText:
    """The request's live text; decoded as the scheduler has its linear text decoded."""
    found: LiveText | None = vars(state).get(_LIVE)
    if found is None:
        support = support_of(manager)
        asked = {**(manager.preferred_sampling_params or {}), **state.obj.sampling_params}
        found = LiveText(
            manager.tokenizer.backend_tokenizer,
            min(support.tag_ids),
            skip_special=asked.get("skip_special_tokens", True) and not support.tags_are_special,
            # What a pattern has matched is reported, and cut off, like a string.
            stops=[*_strings(asked.get("stop")), *_strings(asked.get("stop_regex"))],
            no_stop_trim=asked.get("no_stop_trim", False),
        )
        vars(state)[_LIVE] = found
    return found


def _strings(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def deliver(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None
) -> AsyncGenerator[dict[str, Any], None]:
    """Hook: hand over pending deltas with the next output that reaches the client.

    Of several outputs that wait for a slow client SGLang delivers only the
    last, which holds the whole text; deltas must not go with the dropped ones.
    """
    if support_of(manager).dialect is None:
        outputs: AsyncGenerator[dict[str, Any], None] = original(manager, obj, request)
        return outputs
    state = manager.rid_to_state[obj.rid]
    return _with_deltas(state, original(manager, obj, request))


async def _with_deltas(
    state: Any, outputs: AsyncGenerator[dict[str, Any], None]
) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(outputs):
        async for out in outputs:
            if deltas := vars(state).pop(_PENDING, None):
                out["meta_info"][DELTAS] = deltas
            yield out


def chat_logprobs(
    original: Callable[..., Any],
    serving: Any,
    output_token_logprobs: list[Any],
    output_top_logprobs: list[Any] | None,
) -> Any:
    """Hook: a forced token has no log probability, the chat schema demands one."""
    if any(item[0] is None for item in output_token_logprobs):
        output_token_logprobs = [
            (NO_LOGPROB, *item[1:]) if item[0] is None else item for item in output_token_logprobs
        ]
    return original(serving, output_token_logprobs, output_top_logprobs)
