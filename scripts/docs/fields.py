"""The fields of requests and answers, read off the classes that check and make them."""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tables import code, table

from sglang_multiverse.engine.answer import ChunkLabel, Summary
from sglang_multiverse.engine.options import MultiverseArgs, RequestOptions
from sglang_multiverse.structure.sequences import PathTokens

_JSON = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}


def request_fields() -> str:
    """The `multiverse` object of a request, with the server's default and range of each field."""
    server = {field.name: field for field in dataclasses.fields(MultiverseArgs)}
    rows = []
    for name, field in RequestOptions.model_fields.items():
        spec = server.get(name)
        help_ = field.description or (spec.metadata["help"] if spec else "")
        if not help_:
            raise ValueError(f"{name}: a request's field without a help text")
        rows.append((code(name), _allowed(field.annotation, spec), help_))
    return table(("Field", "Allowed", "Meaning"), rows)


def _allowed(annotation: Any, spec: dataclasses.Field[Any] | None) -> str:
    if spec is not None and spec.metadata["range"]:
        return f"{spec.metadata['range'][0]} … the server's"
    if get_origin(annotation) is Literal:
        return ", ".join(code(f'"{value}"') for value in get_args(annotation))
    return "`true`, `false`"


def answer_fields() -> str:
    return _described(Summary)


def label_fields() -> str:
    return _described(ChunkLabel)


def sequence_fields() -> str:
    return _described(PathTokens)


def _described(kind: type) -> str:
    """A table of a class whose fields are `Annotated` with what they are."""
    rows = []
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            raise ValueError(f"{kind.__name__}.{name}: not annotated with what it is")
        plain, help_ = get_args(hint)
        rows.append((code(name), _json_type(plain), help_))
    return table(("Field", "Type", "Meaning"), rows)


def _json_type(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_json_type, get_args(hint)))
    if get_origin(hint) in (list, tuple):
        return "array"
    return _JSON[hint]
