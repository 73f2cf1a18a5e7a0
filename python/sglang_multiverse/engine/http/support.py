"""Whether the served model is a Multiverse model, as the HTTP process sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sglang_multiverse.structure import MULTIVERSE, Dialect, MissingTagsError, resolve_tags

from ..options import MultiverseArgs
from ..vocabulary import drops_tags

_ATTRIBUTE = "multiverse_support"


class Support(NamedTuple):
    """`dialect` is `None` where requests are served as plain SGLang serves them.

    Attributes:
        tag_ids: the token ids of the dialect's tags.
        tags_are_special: see `engine.vocabulary.Vocabulary`.
        decodes_live: whether the tokenizer can decode a stream of ids.
    """

    server: MultiverseArgs
    dialect: Dialect | None
    reason: str = ""
    tag_ids: frozenset[int] = frozenset()
    tags_are_special: bool = False
    decodes_live: bool = True


def support_of(manager: Any) -> Support:
    """What this server can do; found once and kept on SGLang's tokenizer manager."""
    found: Support | None = vars(manager).get(_ATTRIBUTE)
    if found is None:
        found = _look(manager)
        setattr(manager, _ATTRIBUTE, found)
    return found


def keep_served_name(
    original: Callable[..., None], manager: Any, model_path: str, load_format: str
) -> None:
    """Hook: new weights do not change the name that clients ask for."""
    name = manager.served_model_name
    original(manager, model_path, load_format)
    if support_of(manager).dialect is not None:
        manager.served_model_name = name


def _look(manager: Any) -> Support:
    server = MultiverseArgs.from_env()
    if not server.enable:
        return Support(server, None, "it is switched off on this server")
    if manager.tokenizer is None:
        return Support(server, None, "this server runs without a tokenizer")
    try:
        tags = resolve_tags(manager.tokenizer, MULTIVERSE)
    except MissingTagsError:
        return Support(server, None, "the served model's tokenizer lacks the tags")
    return Support(
        server,
        MULTIVERSE,
        tag_ids=frozenset(tags.role_of),
        tags_are_special=drops_tags(manager.tokenizer, tags),
        decodes_live=getattr(manager.tokenizer, "backend_tokenizer", None) is not None,
    )
