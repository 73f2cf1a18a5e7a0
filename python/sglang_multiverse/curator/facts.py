"""What a rewritten text must keep, and how far it is from its source."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

from .sentences import formulas

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_MARKER = re.compile(r"^[ \t]*\(?\d{1,3}[.):](?=\s)", re.MULTILINE)
# A word that is no prose: it has a sign of arithmetic or an index.
_SYMBOLIC = re.compile(r"[^\s]*[=^_≤≥≠≈×÷√∞∑∏∫∈∪∩→⇒±][^\s]*")
_NAME = re.compile(r"(?<=[a-z,;:)’'] )[A-Z][^\W\d_]+(?:[-'’][A-Z]?[^\W\d_]+)*")
_ORDINARY = frozenset("I I'm I'll I'd I've Let So Then Now But And If The This That".split())
_POSSESSIVE = re.compile(r"['’]s?$")
_CLOSING = ".,;:!?"


class Facts(NamedTuple):
    """The facts of a text; `names` counts are of no account, a pronoun may replace a name."""

    numbers: Counter[str]
    formulas: Counter[str]
    names: Counter[str]


def facts(text: str) -> Facts:
    """Numbers, formulas (LaTeX and words with signs of arithmetic) and names.

    A number at the start of a line that only counts items is none. Names are
    capitalised words amid a sentence.
    """
    text = _MARKER.sub(" ", text)
    latex = formulas(text)
    rest = text
    for formula in latex:
        rest = rest.replace(formula, " ", 1)
    symbolic = [word.strip(_CLOSING + "()") for word in _SYMBOLIC.findall(rest)]
    return Facts(
        Counter(_NUMBER.findall(text)),
        Counter(_spaceless(formula) for formula in [*latex, *symbolic] if formula),
        Counter(_POSSESSIVE.sub("", n) for n in _NAME.findall(rest) if n not in _ORDINARY),
    )


def _spaceless(formula: str) -> str:
    bare = re.sub(r"^(\\\(|\\\[|\$\$?)|(\\\)|\\\]|\$\$?)$", "", formula)
    return re.sub(r"\s+", "", bare)


def dropped(source: str, rewritten: str) -> list[str]:
    """Facts of `source` that `rewritten` has not, or has fewer times."""
    old, new = facts(source), facts(rewritten)
    missing = [
        *(f"the number {fact}" for fact in (old.numbers - new.numbers)),
        *(f"the formula {fact}" for fact in (old.formulas - new.formulas)),
        *(f"the name {fact}" for fact in old.names if fact not in rewritten),
    ]
    return sorted(missing)


def invented(text: str, known: str) -> list[str]:
    """Numbers of `text` that are nowhere in `known`."""
    return sorted(set(_NUMBER.findall(_MARKER.sub(" ", text))) - set(_NUMBER.findall(known)))


def distance(source: str, rewritten: str) -> float:
    """The edit distance divided by the longer length: 0 for equal texts, at most 1."""
    from rapidfuzz.distance import Levenshtein  # late: see `extras`

    return float(Levenshtein.normalized_distance(source, rewritten))
