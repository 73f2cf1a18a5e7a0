"""reasoning-gym's datasets and scorers: the only module that imports it, and lazily.

It is an optional dependency, and importing it loads every one of its task sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

from .conversation import Split
from .splits import SEEDS

Entry = Mapping[str, Any]


class MissingGymError(ImportError):
    """reasoning-gym is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "the training data needs reasoning-gym: pip install 'sglang-multiverse[train]'"
        )


@cache
def _dataset(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    try:
        import reasoning_gym
    except ModuleNotFoundError as error:
        if error.name != "reasoning_gym":
            raise
        raise MissingGymError from error
    # Item `i` depends on `seed + i` alone, so one dataset serves every seed.
    return reasoning_gym.create_dataset(name, seed=0, **dict(options))


def draw(
    name: str,
    options: Mapping[str, Any],
    rng: Random,
    split: Split,
    suits: Callable[[Entry], bool],
) -> Entry:
    """An entry of the dataset `name` that `suits`, from the seeds of `split`."""
    dataset = _dataset(name, tuple(options.items()))
    seeds = SEEDS[split]
    for _ in range(100_000):
        entry: Entry = dataset[rng.randrange(seeds.start, seeds.stop)]
        if suits(entry):
            return entry
    raise RuntimeError(f"no entry of {name!r} with options {dict(options)} suits the family")


def score(name: str, answer: str, entry: Entry) -> float:
    """What the scorer of the dataset `name` gives `answer`, in [0, 1]."""
    return float(_dataset(name, ()).score_answer(answer, entry))
