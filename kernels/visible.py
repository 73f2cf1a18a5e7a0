"""What an attention backend must know of a step beyond what SGLang tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .grouping import Link


class Visible(NamedTuple):
    """Who sees what in one step.

    Attributes:
        hidden: of an extend, int32 `[tokens, depth, 2]` on the device: half-open
            intervals of row indices that a token may not see. `None`: nothing is hidden.
        chains: of a decode step, the prefixes that each row shares, outermost first;
            empty where no two rows share any. The same object as in the step before
            for as long as nothing of it changed.
    """

    hidden: torch.Tensor | None = None
    chains: Sequence[Sequence[Link]] = ()


class SeesBranches:
    """An attention backend that can be told what is hidden and what is shared."""

    def expect(self, visible: Visible) -> None:
        """Called before each step's forward. What is not passed again no longer holds."""
        raise NotImplementedError
