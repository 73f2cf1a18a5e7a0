"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import Literal

import torch


def factor(fraction: float, warmup: float, schedule: Literal["cosine", "constant"]) -> float:
    """What the peak rate is multiplied with when `fraction` of the run is over."""
    if fraction < warmup:
        return fraction / warmup
    if schedule == "constant" or warmup == 1:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - warmup) / (1 - warmup))))


def set_rates(optimizer: torch.optim.Optimizer, by: float) -> float:
    """Set every group's rate to `by` times its peak; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * by
    rate: float = optimizer.param_groups[0]["lr"]
    return rate
