"""A streamed chat answer lists as many log probabilities as the whole one: one a token.

SGLang sends them with the text of the chunk that they came with, and drops
those of tokens that have no text yet, or none at all: the end token, the first
bytes of a character.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple


class _Held(NamedTuple):
    """What outputs without text brought, where outputs hold only what is new."""

    ids: list[int]
    rows: list[Any]
    tops: list[Any]


class Owed:
    """The log probabilities that one streamed answer has not been sent, by choice.

    `incremental`: whether outputs hold only what is new, or all that was generated so far.
    """

    def __init__(self, *, incremental: bool = False) -> None:
        self._incremental = incremental
        self._texts: dict[int, str] = {}
        self._told: defaultdict[int, int] = defaultdict(int)
        self._rows: dict[int, tuple[list[Any], list[Any]]] = {}
        self._held: dict[int, _Held] = {}

    def waits(self, out: dict[str, Any]) -> bool:
        """Whether an output has no new text, so that its rows must go with the next one.

        The last output of a choice never waits; what it owes is kept for the closing chunk.
        """
        index, meta = out.get("index", 0), out["meta_info"]
        grown = out["text"] != ("" if self._incremental else self._texts.get(index, ""))
        if self._incremental:
            self._add_held(out, index)
        else:
            self._texts[index] = out["text"]
        rows, tops = meta["output_token_logprobs"], meta.get("output_top_logprobs") or []
        if not grown and meta["finish_reason"] is None:
            if self._incremental:
                self._held[index] = _Held(out.get("output_ids") or [], rows, tops)
            return True
        told = 0
        if not self._incremental:
            told, self._told[index] = self._told[index], len(rows)
        self._rows[index] = rows[told:], tops[told:]
        return False

    def _add_held(self, out: dict[str, Any], index: int) -> None:
        held = self._held.pop(index, None)
        if held is None:
            return
        meta = out["meta_info"]
        out["output_ids"] = [*held.ids, *(out.get("output_ids") or ())]
        meta["output_token_logprobs"] = [*held.rows, *meta["output_token_logprobs"]]
        if held.tops:
            meta["output_top_logprobs"] = [*held.tops, *(meta.get("output_top_logprobs") or ())]

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
