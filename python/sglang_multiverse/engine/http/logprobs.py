"""A streamed chat answer lists as many log probabilities as the whole one: one a token.

SGLang sends them with the text of the chunk that they came with, and drops
those of tokens that have no text yet, or none at all: the end token, the first
bytes of a character.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any


class Owed:
    """The log probabilities that one streamed answer has not been sent.

    Rows are counted and kept per choice. Only for streams whose outputs hold
    all that was generated so far.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._told: defaultdict[int, int] = defaultdict(int)
        self._rows: dict[int, tuple[list[Any], list[Any]]] = {}

    def waits(self, out: dict[str, Any]) -> bool:
        """Whether an output has no new text, so that its rows must go with the next one.

        The last output of a choice never waits; what it owes is kept for the closing chunk.
        """
        index, meta = out.get("index", 0), out["meta_info"]
        grown = out["text"] != self._texts.get(index, "")
        self._texts[index] = out["text"]
        if not grown and meta["finish_reason"] is None:
            return True
        rows = meta["output_token_logprobs"]
        told, self._told[index] = self._told[index], len(rows)
        tops = meta.get("output_top_logprobs") or []
        self._rows[index] = rows[told:], tops[told:]
        return False

    def settle(self, serving: Any, choice: dict[str, Any]) -> bool:
        """Mark as sent what a chunk's choice holds; put into a closing one what is left.

        Whether the choice was changed.
        """
        index = choice["index"]
        if choice.get("logprobs"):
            self._rows.pop(index, None)
        if choice.get("finish_reason") is None:
            return False
        rows, tops = self._rows.pop(index, ([], []))
        if not rows:
            return False
        content = serving._build_token_logprobs_from_raw(rows, tops)
        choice["logprobs"] = {"content": [one.model_dump() for one in content]}
        return True
