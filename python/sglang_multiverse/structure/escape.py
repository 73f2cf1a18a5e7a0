"""Tags that are text: what a user writes is never structure."""

from __future__ import annotations

import re
from functools import cache

from .dialect import Dialect

WORD_JOINER = "\u2060"


@cache
def tag_pattern(dialect: Dialect) -> re.Pattern[str]:
    """Matches every tag of the dialect."""
    return re.compile("|".join(re.escape(tag) for tag in dialect.tags))


def break_tags(text: str, dialect: Dialect) -> str:
    """`text` with every tag of the dialect made unreadable as a tag.

    Each gets U+2060 WORD JOINER after its `<`, which no reader sees and which
    no tokenizer matches as a tag.
    """
    return tag_pattern(dialect).sub(lambda tag: f"{tag[0][0]}{WORD_JOINER}{tag[0][1:]}", text)
