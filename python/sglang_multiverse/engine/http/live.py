"""Live branches: the ids of every path, made text as they arrive.

What all paths were sent, put in linear order, is the linear text: the token or
the stop string that ended the answer is cut off as it is there. So text that
may turn out to be a stop string is held back until it is known not to be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Delta = tuple[str, Sequence[int]]


class PathText:
    """The text of one path.

    `tag` is the id of a tag. The path starts behind it, so that a decoder which
    strips the start of a text strips nothing here.
    """

    def __init__(self, tokenizer: Any, tag: int, skip_special: bool, stops: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._tag = tag
        self._skip_special = skip_special
        self._stops = stops
        self._start = lambda: DecodeStream(ids=[tag], skip_special_tokens=skip_special)
        self._stream = self._start()
        self._unfinished: list[int] = []  # ids that end amid a character
        self._held = ""  # may be, or begin, the stop string that ends the answer

    def push(self, token: int) -> str:
        """The text that `token` makes certain."""
        old, new = self._held, self._decode(token)
        if not new:
            # A token came behind a whole stop string, which thus has ended nothing.
            keep = self._held_from(old, len(old))
            self._held = old[keep:]
            return old[:keep]
        text = old + new
        keep = self._held_from(text, len(old))
        self._held = text[keep:]
        return text[:keep]

    def close(self, matched: str | None, *, keep_matched: bool) -> str:
        """The rest, when the answer has ended, in this path with the stop string `matched`."""
        text = self._held + self._rest()
        self._held = ""
        at = text.find(matched) if matched else -1
        if matched is None or at < 0:
            return text
        return text[: at + len(matched) * keep_matched]

    def _held_from(self, text: str, old: int) -> int:
        """Where in `text`, of which `old` characters were here before, a stop string may start."""
        start = len(text)
        for stop in self._stops:
            at = text.find(stop, max(0, old - len(stop) + 1))
            if at >= 0:
                start = min(start, at)
                continue
            for length in range(min(len(stop) - 1, len(text)), len(text) - start, -1):
                if text.endswith(stop[:length]):
                    start = len(text) - length
                    break
        return start

    def _decode(self, token: int) -> str:
        """The text that `token` completes; empty while it ends amid a character."""
        self._unfinished.append(token)
        try:
            new = self._stream.step(self._tokenizer, token)
        except Exception:  # the library has no type for "these ids take back earlier text"
            new, self._stream = self._rest(), self._start()
        if new is not None:
            self._unfinished.clear()
        return new or ""

    def _rest(self) -> str:
        """What ids that end amid a character are decoded to."""
        if not self._unfinished:
            return ""
        before, text = (
            self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)
            for ids in ([self._tag], [self._tag, *self._unfinished])
        )
        return str(text[len(before) :])


class LiveText:
    """The live text of one request.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        tag: the id of any tag.
        skip_special: whether special tokens are left out of the text.
        stops: the request's stop strings.
        no_stop_trim: the end token or stop string stays in the text.
    """

    def __init__(
        self,
        tokenizer: Any,
        tag: int,
        *,
        skip_special: bool,
        stops: Iterable[str] = (),
        no_stop_trim: bool = False,
    ) -> None:
        self._new = (tokenizer, tag, skip_special, tuple(filter(None, stops)))
        self._no_stop_trim = no_stop_trim
        self._paths: dict[str, PathText] = {}
        self._last = ""

    def push(
        self, deltas: Sequence[Delta], finish_reason: dict[str, Any] | None
    ) -> list[list[str]]:
        """`[path, text]` pairs in the order of generation; empty texts are left out.

        With a finish reason, which comes with the last ids, nothing is held back.
        """
        matched = (finish_reason or {}).get("matched")
        pairs: list[list[str]] = []
        for place, (path, ids) in enumerate(deltas, start=1):
            self._last = path
            if place == len(deltas) and not self._no_stop_trim and list(ids[-1:]) == [matched]:
                ids = ids[:-1]
            found = self._paths.get(path)
            if found is None:
                found = self._paths[path] = PathText(*self._new)
            _add(pairs, path, "".join(map(found.push, ids)))
        if finish_reason is None:
            return pairs
        for path, text in self._paths.items():
            ended_it = path == self._last and isinstance(matched, str)
            rest = text.close(matched if ended_it else None, keep_matched=self._no_stop_trim)
            _add(pairs, path, rest)
        return pairs


def _add(pairs: list[list[str]], path: str, text: str) -> None:
    if text and pairs and pairs[-1][0] == path:
        pairs[-1][1] += text
    elif text:
        pairs.append([path, text])
