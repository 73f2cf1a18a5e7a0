"""`/v1/messages` says `stop_sequence` where a stop sequence ended the answer.

SGLang makes these answers from chat answers, whose `finish_reason` is the same
for a stop sequence as for the model's own end; `matched_stop` tells them apart.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .support import support_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

_DATA = "data: "
_MATCHED = "multiverse_matched_stop"
_OWN_END = "end_turn"


def note_matched_stop(event: str, raw_request: Any) -> None:
    """Keep the stop sequence that a chunk of the chat stream names, for `messages_stream`."""
    if raw_request is None or '"matched_stop":"' not in event:
        return
    for choice in json.loads(event[len(_DATA) :])["choices"]:
        setattr(raw_request.state, _MATCHED, choice["matched_stop"])


def _told(reply: dict[str, Any], matched: str) -> dict[str, Any]:
    if reply.get("stop_reason") != _OWN_END:
        return reply
    return {**reply, "stop_reason": "stop_sequence", "stop_sequence": matched}


def messages_answer(original: Callable[..., Any], serving: Any, response: Any) -> Any:
    """Hook: a whole answer."""
    answer = original(serving, response)
    matched = response.choices[0].matched_stop
    manager = serving.openai_serving_chat.tokenizer_manager
    if not isinstance(matched, str) or support_of(manager).dialect is None:
        return answer
    told = _told({"stop_reason": answer.stop_reason}, matched)
    return answer.model_copy(update=told)


async def messages_stream(
    original: Callable[..., Any],
    serving: Any,
    adapted_request: Any,
    processed_request: Any,
    anthropic_request: Any,
    raw_request: Any,
) -> AsyncGenerator[str, None]:
    """Hook: a streamed answer, whose last but one event says why it ended."""
    stream = original(serving, adapted_request, processed_request, anthropic_request, raw_request)
    async with aclosing(stream) as events:
        async for event in events:
            matched = getattr(getattr(raw_request, "state", None), _MATCHED, None)
            yield _labelled(event, matched) if matched is not None else event


def _labelled(event: str, matched: str) -> str:
    head, mark, data = event.partition(_DATA)
    if '"message_delta"' not in data:
        return event
    body = json.loads(data)
    if body.get("type") != "message_delta":
        return event
    body["delta"] = _told(body["delta"], matched)
    return f"{head}{mark}{json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
