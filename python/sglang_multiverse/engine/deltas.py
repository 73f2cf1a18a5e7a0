"""Live branches: text as it is generated, each piece with the path of its branch."""

from __future__ import annotations

from typing import Any

_UNFINISHED = "�"


class PathText:
    """Incremental detokenisation of one path.

    A piece is held back while it ends amid a character. `start` leaves a few
    decoded ids in front, because how an id is spelled can depend on its neighbours.
    """

    _CONTEXT = 5

    def __init__(self, tokenizer: Any, skip_special_tokens: bool) -> None:
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self.ids: list[int] = []
        self.start = 0
        self.read = 0

    def push(self, ids: list[int]) -> str:
        """The text that `ids` add, as far as it is certain."""
        self.ids.extend(ids)
        before = self._decode(self.ids[self.start : self.read])
        now = self._decode(self.ids[self.start :])
        if now.endswith(_UNFINISHED):
            return ""
        self.read = len(self.ids)
        self.start = max(0, self.read - self._CONTEXT)
        return now[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        return str(
            self.tokenizer.decode(
                ids,
                skip_special_tokens=self.skip_special_tokens,
                clean_up_tokenization_spaces=False,
            )
        )


class Deltas:
    """What every path has written since it was last asked."""

    def __init__(self, tokenizer: Any, skip_special_tokens: bool) -> None:
        self.tokenizer = tokenizer
        self.skip_special_tokens = skip_special_tokens
        self.pending: list[tuple[str, list[int]]] = []
        self.texts: dict[str, PathText] = {}

    def note(self, path: tuple[int, ...], token: int) -> None:
        name = ".".join(map(str, path))
        if self.pending and self.pending[-1][0] == name:
            self.pending[-1][1].append(token)
        else:
            self.pending.append((name, [token]))

    def take(self) -> list[list[str]]:
        """`[path, text]` pairs in the order of generation; empty texts are left out."""
        pairs = []
        for name, ids in self.pending:
            text = self.texts.get(name)
            if text is None:
                text = self.texts[name] = PathText(self.tokenizer, self.skip_special_tokens)
            piece = text.push(ids)
            if piece:
                pairs.append([name, piece])
        self.pending.clear()
        return pairs
