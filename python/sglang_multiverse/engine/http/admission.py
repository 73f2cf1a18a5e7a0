"""Checks a request's `multiverse` field and hands it to the scheduler.

The field stands at the top level of the body of `/v1/chat/completions`,
`/v1/completions` and `/generate`. It travels to the scheduler as
`sampling_params.custom_params["multiverse"]`, beside whatever else the user
put there. A client of SGLang's Python `Engine`, which has no body, puts it
there himself; it is checked all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..options import OptionError, RequestOptions
from .aborts import check_rid
from .support import Support, support_of

FIELD = "multiverse"

_Checked = dict[str, Any]
_Check = Callable[[object], _Checked]


async def requested_options(request: Any) -> object:
    """The `multiverse` field of an HTTP request's JSON body; `None` if there is none.

    FastAPI has parsed the body of every JSON route before SGLang sees the
    request, and Starlette keeps it, so nothing is read or decoded here.
    """
    if request is None or request.method not in ("POST", "PUT"):
        return None
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        return None  # a form: an audio file, for instance
    try:
        body = await request.json()
    except (RuntimeError, ValueError):  # not a JSON body, and not ours to report
        return None
    return body.get(FIELD) if isinstance(body, dict) else None


def admit(
    support: Support,
    params: Any,
    value: object,
    *,
    batch: int | None,
    stream: bool,
    live_route: bool = True,
) -> Any:
    """The sampling parameters with the checked options in them.

    Args:
        params: SGLang's `sampling_params`: an object, a list of them for a
            batch of prompts, or `None`. Left as it is.
        value: the request's `multiverse` field: an object, or a list of them
            for a batch.
        batch: how many prompts there are; `None` for a single one.
        stream: whether the answer is streamed.
        live_route: whether this route can label text with its branch.

    Raises:
        OptionError: naming the field and what is allowed.
    """
    if support.dialect is None:
        if value is not None:
            raise OptionError(
                f"{FIELD}: this server takes no Multiverse options, because {support.reason}"
            )
        return params

    def check(asked: object) -> _Checked:
        options = RequestOptions.parse(asked, support.server)
        if options.stream == "branches":
            _check_live(support, stream, live_route)
        return options.model_dump(exclude_none=True, exclude_unset=True)

    if isinstance(value, list):
        if batch is None:
            raise OptionError(f"{FIELD}: a list of options needs a batch of prompts")
        if len(value) != batch:
            raise OptionError(
                f"{FIELD}: expected {batch} entries, one for each prompt, got {len(value)}"
            )
        many = params if isinstance(params, list) else [params] * batch
        if len(many) != batch:
            raise OptionError(
                f"sampling_params: expected {batch} entries, one for each prompt, got {len(many)}"
            )
        return [_merged(one, asked, check) for one, asked in zip(many, value, strict=True)]
    if isinstance(params, list):
        return [_merged(one, value, check) for one in params]
    return _merged(params, value, check)


def _check_live(support: Support, stream: bool, live_route: bool) -> None:
    if not stream:
        raise OptionError(f'{FIELD}.stream="branches": allowed only with "stream": true')
    if not live_route:
        raise OptionError(
            f'{FIELD}.stream="branches": allowed only on '
            "/v1/chat/completions, /v1/completions and /generate"
        )
    if not support.decodes_live:
        raise OptionError(
            f'{FIELD}.stream="branches": allowed only with a tokenizer of the tokenizers library'
        )


def _merged(params: Any, asked: object, check: _Check) -> Any:
    """One prompt's sampling parameters with its options in them."""
    if params is not None and not isinstance(params, dict):
        return params  # SGLang refuses it with its own words
    custom = (params or {}).get("custom_params")
    carried = custom.get(FIELD) if isinstance(custom, dict) else None
    if asked is None and carried is None:
        return params
    if custom is not None and not isinstance(custom, dict):
        raise OptionError("custom_params: expected an object")
    checked = check(carried if asked is None else asked)
    if asked is not None and carried is not None and check(carried) != checked:
        raise OptionError(f"{FIELD}: given twice, the other time in custom_params")
    return {**(params or {}), "custom_params": {**(custom or {}), FIELD: checked}}


def batch_size(text: Any, input_ids: Any, input_embeds: Any) -> int | None:
    """How many prompts a native request holds; `None` for a single one."""
    if isinstance(text, list):
        return len(text)
    if isinstance(input_ids, list) and input_ids and isinstance(input_ids[0], list):
        return len(input_ids)
    if isinstance(input_embeds, list) and input_embeds and isinstance(input_embeds[0], list):
        rows = input_embeds[0]
        return len(input_embeds) if rows and isinstance(rows[0], list) else None
    return None


def live(params: Any) -> bool:
    """Whether admitted sampling parameters ask for live branches."""
    for one in params if isinstance(params, list) else [params]:
        custom = one.get("custom_params") if isinstance(one, dict) else None
        if isinstance(custom, dict) and (custom.get(FIELD) or {}).get("stream") == "branches":
            return True
    return False


def contract_error(original: Callable[..., Any], body: Any) -> Any:
    """Hook: refuse bad options in the body of `/generate` before it answers.

    SGLang sends the status line of a streamed answer before it looks at the
    request itself, so this is the last place from which a 400 can still come.
    The route wraps what is returned here as `{"error": …}`; an object makes
    that the shape of its other errors.
    """
    error = original(body)
    if error is not None or not isinstance(body, dict):
        return error
    from sglang.srt.entrypoints.http_server import get_global_state

    params = body.get("sampling_params")
    batch = batch_size(body.get("text"), body.get("input_ids"), body.get("input_embeds"))
    try:
        check_rid(body.get("rid"), batch, params.get("n") if isinstance(params, dict) else None)
        admit(
            support_of(get_global_state().tokenizer_manager),
            params,
            body.get(FIELD),
            batch=batch,
            stream=body.get("stream") is True,
        )
    except OptionError as refused:
        return {"message": str(refused)}
    return None
