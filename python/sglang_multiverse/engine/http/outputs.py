"""What the scheduler attached to an answer, on its way into `meta_info`.

The scheduler sends two keys through SGLang's `customized_info`, each with one
entry per request of the batch:

- `multiverse`: the summary, an object, with the output that ends the request;
  `None` otherwise.
- `multiverse_deltas`: the `[path, text]` pairs generated since the last
  output, for requests that asked for live branches; `None` otherwise.

SGLang takes such values for lists with one item per token and slices them so;
neither is one, and both are kept out of its hands here.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .support import support_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

SUMMARY = "multiverse"
DELTAS = "multiverse_deltas"

# The OpenAI schema has a number where `/generate` has null; it is what OpenAI
# itself gives for a token whose log probability is not available.
NO_LOGPROB = -9999.0

_PENDING = "multiverse_pending"


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
        if deltas := customized_info.get(DELTAS, {index: None})[index]:
            vars(state).setdefault(_PENDING, []).extend(deltas)
    if others:
        original(manager, meta_info, state, others, index, finish_reason)


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
