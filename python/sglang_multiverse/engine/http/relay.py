"""Carries results from `meta_info` into the choices of the OpenAI routes.

SGLang builds those answers from declared models that would drop a field of
ours, so the field is added to the finished JSON. One `Relay` per HTTP request
connects the two ends: the outputs that go into SGLang's serving code and the
JSON that comes out. It hangs on the request's `state`, which Starlette keeps
for such uses.
"""

from __future__ import annotations

import json
from collections import defaultdict
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ..answer import ChunkLabel
from ..options import OptionError
from .aborts import check_rid, note_rid
from .admission import FIELD, admit, batch_size, live, requested_options
from .logprobs import Owed
from .messages import note_matched_stop
from .outputs import DELTAS, SUMMARY
from .samples import count_samples
from .support import support_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

_DATA = "data: "


class Relay:
    """The results of one HTTP request to an OpenAI route.

    `path` is the branch of the output that SGLang is turning into chunks:
    its code pulls one output, yields the chunks made of it and only then pulls
    the next, so what is set when an output leaves holds for its chunks.
    """

    def __init__(self, *, incremental: bool) -> None:
        self.path: str | None = None
        self.summaries: dict[int, dict[str, Any]] = {}
        # Whether outputs hold only new text (a server option) or all of it.
        self._incremental = incremental
        self.owed: Owed | None = None
        self._texts: defaultdict[int, str] = defaultdict(str)

    def record(self, out: Any) -> None:
        """Note the summaries in an output, or in the outputs of a whole batch."""
        for place, one in enumerate(out if isinstance(out, list) else [out]):
            if summary := one["meta_info"].get(SUMMARY):
                self.summaries[one.get("index", place)] = summary

    def split(self, out: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One output per delta in place of one with the linear text.

        An output that ends its choice is followed by one without text, so
        that the closing chunk stands alone.
        """
        meta = dict(out["meta_info"])
        for path, text in meta.pop(DELTAS, ()):
            self.path = path
            going_on = {**meta, "finish_reason": None}
            yield {**out, "text": self._text(out, text), "meta_info": going_on}
        self.path = None
        if meta["finish_reason"] is not None:
            yield {**out, "text": self._text(out, ""), "meta_info": meta}

    def _text(self, out: dict[str, Any], new: str) -> str:
        if self._incremental:
            return new
        index = out.get("index", 0)
        self._texts[index] += new
        return self._texts[index]

    def waits(self, out: dict[str, Any]) -> bool:
        """Whether an output is not to be sent: its log probabilities go with the next one."""
        return self.owed is not None and self.owed.waits(out)

    def owe_logprobs(self, obj: Any) -> None:
        """For a stream, from which SGLang drops log probabilities of tokens without text."""
        if obj.stream and obj.return_logprob:
            self.owed = Owed(incremental=self._incremental)

    def label(self, event: str, serving: Any = None) -> str:
        """A server-sent event with its choices labelled; most pass as they are."""
        idle = self.path is None and not self.summaries and self.owed is None
        if idle or not event.startswith(_DATA + "{"):
            return event
        body = json.loads(event[len(_DATA) :])
        changed = self._annotate(body)
        if self.owed is not None:
            for choice in body.get("choices") or ():
                changed |= self.owed.settle(serving, choice)
        if not changed:
            return event
        return f"{_DATA}{json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"

    def answer(self, result: Any) -> Any:
        """A whole answer with its choices labelled; anything else as it is."""
        if not self.summaries or not hasattr(result, "choices"):
            return result
        from sglang.srt.utils.json_response import orjson_response

        body = result.model_dump(mode="json", by_alias=True)
        self._annotate(body)
        return orjson_response(body)

    def _annotate(self, body: dict[str, Any]) -> bool:
        notes = [(choice, self._note(choice)) for choice in body.get("choices") or ()]
        for choice, note in notes:
            if note is not None:
                choice[FIELD] = note
        return any(note is not None for _, note in notes)

    def _note(self, choice: dict[str, Any]) -> dict[str, Any] | ChunkLabel | None:
        if choice.get("finish_reason") is not None:
            return self.summaries.get(choice["index"])
        delta = choice.get("delta") or {}
        has_text = choice.get("text") or delta.get("content") or delta.get("reasoning_content")
        return {"path": self.path} if has_text and self.path is not None else None


def relay_of(request: Any) -> Relay | None:
    """The relay of an HTTP request; `None` on routes that are not OpenAI's."""
    relay: Relay | None = None if request is None else getattr(request.state, FIELD, None)
    return relay


async def generate(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None
) -> AsyncGenerator[Any, None]:
    """Hook: every request to generate passes here, whichever route it came by."""
    from sglang.srt.managers.io_struct import GenerateReqInput

    relay, splits = relay_of(request), False
    if isinstance(obj, GenerateReqInput):
        params = obj.sampling_params
        prompts = batch_size(obj.text, obj.input_ids, obj.input_embeds)
        check_rid(obj.rid, prompts, params.get("n") if isinstance(params, dict) else None)
        note_rid(obj)
        splits = await _admit(manager, obj, request, relay)
    async with aclosing(original(manager, obj, request)) as outputs:
        async for out in outputs:
            if relay is None:
                yield out
                continue
            relay.record(out)
            if relay.waits(out):
                continue
            for piece in relay.split(out) if splits else (out,):
                yield piece


async def _admit(manager: Any, obj: Any, request: Any, relay: Relay | None) -> bool:
    """Check the request's options; whether its outputs are to be split by branch.

    Raises:
        OptionError: a ValueError, which every route of SGLang answers with a
            400 and its message.
    """
    support = support_of(manager)
    native = request is None or request.url.path.endswith("/generate")
    obj.sampling_params = admit(
        support,
        obj.sampling_params,
        await requested_options(request),
        batch=batch_size(obj.text, obj.input_ids, obj.input_embeds),
        stream=bool(obj.stream),
        live_route=native or relay is not None,
    )
    if support.dialect is None:
        return False
    splits = relay is not None and live(obj.sampling_params)
    if splits and obj.return_logprob:
        raise OptionError(
            f'{FIELD}.stream="branches": not allowed with logprobs on this route, whose chunks '
            "could not hold a token and its log probability together; /generate gives both"
        )
    obj.sampling_params = count_samples(obj.sampling_params)
    if relay is not None and request.url.path.endswith("/chat/completions"):
        relay.owe_logprobs(obj)
    return splits


async def handle_request(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any
) -> Any:
    """Hook: the frame of every OpenAI route."""
    manager = serving.tokenizer_manager
    if raw_request is None or support_of(manager).dialect is None:
        return await original(serving, request, raw_request)
    relay = Relay(incremental=manager.incremental_streaming_output)
    setattr(raw_request.state, FIELD, relay)
    return relay.answer(await original(serving, request, raw_request))


async def label_stream(
    original: Callable[..., Any], serving: Any, adapted_request: Any, request: Any, raw_request: Any
) -> AsyncGenerator[str, None]:
    """Hook: the events of a streamed answer, chat and completions alike."""
    relay = relay_of(raw_request)
    async with aclosing(original(serving, adapted_request, request, raw_request)) as events:
        async for event in events:
            note_matched_stop(event, raw_request)
            yield event if relay is None else relay.label(event, serving)
