"""Multiverse conversations with verifiable answers, on reasoning-gym's tasks and scorers.

`python -m sglang_multiverse.training.data` writes them with a data card.
"""

from .answers import check, score_parts
from .conversation import KINDS, SPLITS, Answer, Conversation, Kind, Split, Turn
from .generate import families_of, generate
from .twin import sequential_text

__all__ = [
    "KINDS",
    "SPLITS",
    "Answer",
    "Conversation",
    "Kind",
    "Split",
    "Turn",
    "check",
    "families_of",
    "generate",
    "score_parts",
    "sequential_text",
]
