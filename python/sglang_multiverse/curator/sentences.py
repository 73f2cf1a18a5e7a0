"""A text as numbered sentences, without losing a character.

The pieces of `split` joined are the text again: it only chooses where to cut.
Cuts are those of sentencex and every line's start, without those that would
open a formula, a code block or an environment, or part a list's marker from
its item. White space belongs to the sentence before it.

sentencex does not cut inside quotation marks and brackets, which reasoning
leaves open often (an unclosed one made sentences of 13,000 characters), and
takes a single letter for an initial (`x = m. Let`). So it is shown a text in
which signs are dots, and short asides and single
letters are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

LANGUAGE = "en"
# Most of an opened formula: beyond it the opening sign is taken for text, not for a formula.
_MOST = 4000
# A formula has no empty line in it, as in LaTeX; where one opens and never closes it ends nothing.
_ANY = rf"(?:(?!\n[ \t]*\n).){{1,{_MOST}}}?"
_PROTECTED = re.compile(
    "|".join(
        (
            r"```.*?```|~~~.*?~~~",
            rf"\\begin\{{(?P<env>[^}}\n]+)\}}{_ANY}\\end\{{(?P=env)\}}",
            rf"\$\${_ANY}\$\$",
            rf"\\\[{_ANY}\\\]",
            rf"\\\({_ANY}\\\)",
            r"(?<![\\$\w])\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?![\w$])",
            r"(?<!`)`[^`\n]+`(?!`)",
            r"\[asy\].*?\[/asy\]",
        )
    ),
    re.DOTALL,
)
_ASIDE = re.compile(r"\([^()\n]{1,200}\)|“[^“”\n]{1,200}”")
# A single letter, or the "no" that sentencex reads as "number", may end a sentence.
_LETTER_ENDS = re.compile(
    r"(?:(?<=[\s=+*/^_(-][a-z])|(?<=[=+*/^_(-][A-Z])|(?<=\b[Nn]o))[.?!]\s+(?=[A-Z])"
)
_SIGN = re.compile(r"[^\w\s.!?…。！？।,;:-]")
_MATHS = re.compile(r"\\begin|\$|\\\[|\\\(")
_LINE = re.compile(r"\n(?=[^\n])")
# A piece that ends in a list's marker, which belongs to what follows.
_ENDS_IN_MARKER = re.compile(
    r"(?:^|:\s+)\s*(?:[-*+•]|#{1,6}|\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})[.)]|\*\*)\s*$"
)


def protected(text: str) -> list[tuple[int, int]]:
    """Formulas, code and environments, as character ranges `[lo, hi)` in order."""
    return [match.span() for match in _PROTECTED.finditer(text)]


def formulas(text: str) -> list[str]:
    """The formulas of `text`, with their delimiters."""
    return [text[lo:hi] for lo, hi in protected(text) if _MATHS.match(text, lo)]


def split(text: str) -> list[str]:
    """`text` as sentences; joined they are `text`.

    Every sentence holds something other than white space, unless the whole
    text does not; the empty text has none.
    """
    if not text:
        return []
    whole = protected(text)
    whole_or_aside = sorted([*whole, *(match.span() for match in _ASIDE.finditer(text))])
    sentence_cuts = _outside(_boundaries(text, whole), whole_or_aside)
    line_cuts = _outside({match.end() for match in _LINE.finditer(text)}, whole)
    pieces: list[str] = []
    start = 0
    for cut in (*sorted({*sentence_cuts, *line_cuts} - {0, len(text)}), len(text)):
        piece = text[start:cut]
        marker = _ENDS_IN_MARKER.search(piece, max(0, len(piece) - 16))
        if marker and "\n\n" not in marker[0] and cut < len(text):
            continue  # it goes on with what it marks
        if pieces and not piece.strip():
            pieces[-1] += piece
        elif piece.strip() or cut == len(text):
            pieces.append(piece)
        else:
            continue  # white space before the first sentence belongs to it
        start = cut
    return pieces


def numbered(sentences: Iterable[str], first: int = 1) -> str:
    """One line or more for each sentence: its number in brackets, then its text."""
    return "\n".join(f"[{n}] {text.strip()}" for n, text in enumerate(sentences, first))


@cache
def _splitter() -> Callable[[str, str], Iterable[dict[str, Any]]]:
    from sentencex import get_sentence_boundaries  # late: see `extras`

    return cast(Callable[[str, str], Iterable[dict[str, Any]]], get_sentence_boundaries)


def _boundaries(text: str, whole: list[tuple[int, int]]) -> set[int]:
    """Where a sentence begins, as character indices; `whole` is shown as one word each."""
    parts, done = [], 0
    for lo, hi in whole:
        parts += [text[done:lo], "X" * (hi - lo)]
        done = hi
    shown = _SIGN.sub("·", "".join(parts) + text[done:])
    found: set[int] = set()
    at = 0
    # Line by line: after some lists it finds nothing more in the rest of a text.
    for line in shown.split("\n"):
        found.update(at + int(one["start_index"]) for one in _splitter()(LANGUAGE, line))
        at += len(line) + 1
    return found | {match.end() for match in _LETTER_ENDS.finditer(text)}


def _outside(cuts: set[int], regions: list[tuple[int, int]]) -> list[int]:
    """The cuts that lie strictly inside none of the regions `[lo, hi)`."""
    kept, at, reach = [], 0, -1
    for cut in sorted(cuts):
        while at < len(regions) and regions[at][0] < cut:
            reach = max(reach, regions[at][1])
            at += 1
        if cut >= reach:
            kept.append(cut)
    return kept
