"""`--reasoning-parser multiverse`: thinking and blocks are reasoning, the rest is content.

What stands in `<Think>` and in `<Parallel>`, tags included for blocks, whose
text means nothing without them, is `reasoning_content`. The tags of `<Think>`
are dropped, as SGLang's own parsers drop theirs.
"""

from __future__ import annotations

import re
from typing import Any

from sglang_multiverse.structure import MULTIVERSE

NAME = "multiverse"

_THINK, _THINK_END, _BLOCK, _BLOCK_END = _TAGS = MULTIVERSE.tags[:4]
_TAG = re.compile("|".join(map(re.escape, _TAGS)))


class Splitter:
    """Splits a growing text into reasoning and content. Total: any text has one reading.

    A closing tag that closes nothing is text. What never closes is reasoning to the end.
    """

    def __init__(self) -> None:
        self._open: list[str] = []  # the closing tags awaited, innermost last
        self._held = ""  # may begin a tag

    def push(self, text: str, *, last: bool = False) -> tuple[str, str]:
        """`(reasoning, content)` of what `text` makes certain; of all of it at the `last` call."""
        text = self._held + text
        keep = len(text) if last else _certain(text)
        text, self._held = text[:keep], text[keep:]
        parts = {True: "", False: ""}
        at = 0
        for found in _TAG.finditer(text):
            parts[bool(self._open)] += text[at : found.start()]
            at = found.end()
            tag, before = found[0], bool(self._open)
            if tag in (_THINK, _BLOCK):
                self._open.append(_THINK_END if tag == _THINK else _BLOCK_END)
            elif tag in self._open:
                while self._open.pop() != tag:
                    pass
            if tag not in (_THINK, _THINK_END) or not (before or self._open):
                parts[before or bool(self._open)] += tag
        parts[bool(self._open)] += text[at:]
        return parts[True], parts[False]


def _certain(text: str) -> int:
    """How much of `text` cannot be part of a tag that goes on in the next piece."""
    start = text.rfind("<")
    tail = text[start:]
    partial = start >= 0 and any(tag.startswith(tail) and tag != tail for tag in _TAGS)
    return start if partial else len(text)


def detector_class() -> Any:
    """The detector, as SGLang's registry takes it; SGLang is imported only here."""
    from sglang.srt.parser.reasoning_parser import (
        BaseReasoningFormatDetector,
        StreamingParseResult,
    )

    class MultiverseDetector(BaseReasoningFormatDetector):  # type: ignore[misc]
        def __init__(self, stream_reasoning: bool = True, **kwargs: Any) -> None:
            kwargs.pop("force_reasoning", None)
            super().__init__(
                _THINK,
                _THINK_END,
                stream_reasoning=stream_reasoning,
                # A grammar holds from the first token: no tag is sure to come that would start it.
                reasoning_default=None,
                **kwargs,
            )
            self.splitter = Splitter()
            self.splitter.push(self.previous_content)

        def _result(self, text: str, last: bool) -> Any:
            reasoning, content = self.splitter.push(text, last=last)
            return StreamingParseResult(normal_text=content, reasoning_text=reasoning)

        def detect_and_parse(self, text: str) -> Any:
            return self._maybe_apply_force_nonempty_content(self._result(text, True))

        def parse_streaming_increment(self, new_text: str) -> Any:
            return self._result(new_text, False)

        def finish(self) -> Any:
            return self._result("", True)

    return MultiverseDetector


def register_parser() -> None:
    """Add the parser to SGLang's registry, from which the flag's choices are taken."""
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    ReasoningParser.DetectorMap.setdefault(NAME, detector_class())
