"""Which tasks belong to training and which are held out.

Two walls. The seeds that tasks are drawn from come from disjoint ranges; and
since small tasks repeat (`3 + 4` has many seeds), a hash of a task's content
decides its split as well. A held-out problem is made of held-out tasks only,
so neither its wording nor any of its parts occurs in training.
"""

from __future__ import annotations

import hashlib

from .conversation import Split

HELD_OUT_PERCENT = 10
SEEDS: dict[Split, range] = {"train": range(2**30), "held-out": range(2**30, 2**31)}


def split_of(content: str) -> Split:
    """The split to which a task of this content belongs."""
    digest = hashlib.sha256(content.encode()).digest()
    return "held-out" if int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT else "train"
