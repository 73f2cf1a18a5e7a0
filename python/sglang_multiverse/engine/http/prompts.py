"""Tags in a user's own text stay text.

In a chat, only assistant messages are read as structure: they hold what the
model wrote. In all others (user, system, developer, tool results) and in the
descriptions of tools, every tag string is broken (`structure.break_tags`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang_multiverse.structure import break_tags, tag_pattern

from .support import support_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sglang_multiverse.structure import Dialect

# Discriminators: not text, and pydantic would refuse another value.
_NOT_TEXT = frozenset({"role", "type"})
# What else of a chat request a template may write into the prompt.
_RENDERED = ("tools", "tool_choice", "chat_template_kwargs", "_template_tools")


def _broken(value: Any, dialect: Dialect) -> Any:
    """`value` with the tags in its strings broken, as deep as it goes.

    What holds no tag is returned as it is, not copied: a request may hold
    megabytes of images.
    """
    if isinstance(value, str):
        return break_tags(value, dialect) if tag_pattern(dialect).search(value) else value
    if isinstance(value, list):
        items = [_broken(item, dialect) for item in value]
        return (
            items if any(new is not old for new, old in zip(items, value, strict=True)) else value
        )
    if isinstance(value, dict):
        pairs = {_broken(key, dialect): _broken(item, dialect) for key, item in value.items()}
        same = all(key in value and value[key] is item for key, item in pairs.items())
        return value if same else pairs
    fields = getattr(type(value), "model_fields", None)
    if fields is None:
        return value
    changed = {}
    for name in fields:
        old = getattr(value, name)
        if name not in _NOT_TEXT and (new := _broken(old, dialect)) is not old:
            changed[name] = new
    return value.model_copy(update=changed) if changed else value


def break_chat(request: Any, dialect: Dialect) -> None:
    """Break the tags in a chat request, in place; assistant messages are kept."""
    request.messages = [
        message if message.role == "assistant" else _broken(message, dialect)
        for message in request.messages or ()
    ]
    for name in _RENDERED:
        old = getattr(request, name, None)
        if (new := _broken(old, dialect)) is not old:
            setattr(request, name, new)


def process_messages(
    original: Callable[..., Any], serving: Any, request: Any, *args: Any, **kwargs: Any
) -> Any:
    """Hook: every route that renders a chat passes here, token counting included."""
    dialect = support_of(serving.tokenizer_manager).dialect
    if dialect is not None:
        break_chat(request, dialect)
    return original(serving, request, *args, **kwargs)
