"""What the page must be told of its server: which options a request has, and their ranges."""

from __future__ import annotations

import dataclasses
from typing import Any

from sglang_multiverse.engine.options import MultiverseArgs, RequestOptions


def page_config(server: MultiverseArgs, model: str, context: int | None) -> dict[str, Any]:
    """The page's configuration, as JSON takes it.

    `options` has one entry for each option that a request may set and the server has a value
    for: its `name`, `help`, the server's `value`, and for a number `least` and `most`.
    """
    return {
        "model": model,
        "context": context,
        "options": [
            _option(field, getattr(server, field.name))
            for field in dataclasses.fields(server)
            if field.name in RequestOptions.model_fields
        ],
    }


def _option(field: dataclasses.Field[Any], value: Any) -> dict[str, Any]:
    entry = {"name": field.name, "help": field.metadata["help"], "value": value}
    if field.metadata["range"] is not None:
        least, most = field.metadata["range"]
        # The server's own value is the most that a request may ask for.
        entry |= {"least": least, "most": most if value is None else value}
    return entry
