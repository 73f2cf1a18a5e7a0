"""The task families, by the name of their reasoning-gym dataset."""

from .base import Family, Task
from .chain_sum import ChainSum
from .leg_counting import LegCounting
from .letter_counting import LetterCounting
from .number_filtering import NumberFiltering
from .number_sorting import NumberSorting
from .word_reversal import WordReversal

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        ChainSum(),
        LegCounting(),
        NumberSorting(),
        NumberFiltering(),
        LetterCounting(),
        WordReversal(),
    )
}

__all__ = ["FAMILIES", "Family", "Task"]
