"""Accuracy under budgets: the same problems with fewer and fewer tokens."""

from __future__ import annotations

from dataclasses import replace

from .collect import Collector
from .config import BudgetConfig
from .series import Ladder, Series, make_series
from .store import Sample, Store
from .tasks import Problem, Spec, about


async def climb(
    config: BudgetConfig, collector: Collector, store: Store, spec: Spec, model: str, role: str
) -> None:
    """All budgets of one model."""
    for ladder in ladders(config, role):
        whole = make_series(config, spec, model, about(spec.name).max_tokens, role=role)
        larger: list[Series] = []
        for budget in sorted(config.budgets, reverse=True):
            series = whole.bounded(ladder, budget)
            source = Larger(store, larger, ladder, budget) if config.reuse else None
            await collector.fill(series, f"{role}, {ladder} {budget}", source)
            larger.append(series)


def ladders(config: BudgetConfig, role: str) -> list[Ladder]:
    """A baseline's longest path is all of its tokens, so one ladder is both."""
    if role == "baseline":
        return ["total"]
    return ["total", "critical"] if config.ladder == "both" else [config.ladder]


class Larger:
    """Answers under larger budgets that a budget would not have changed."""

    def __init__(self, store: Store, larger: list[Series], ladder: Ladder, budget: int) -> None:
        self._store, self._larger = store, list(larger)
        self._ladder, self._budget = ladder, budget

    def __call__(self, problem: Problem, index: int) -> tuple[Sample, str, str] | None:
        for series in reversed(self._larger):  # the next larger one first
            key = series.sample_key(problem, index)
            sample, texts = self._store.sample(key), self._store.texts(key)
            if sample and texts and self._within(sample):
                return replace(sample, reused=sample.reused or series.budget), *texts
        return None

    def _within(self, sample: Sample) -> bool:
        """Ended by itself, and below the budget: at the budget, engines disagree on the reason."""
        used = sample.tokens
        if self._ladder == "critical":
            used = sample.structure["critical_path_tokens"] if sample.structure else None
        return sample.finish == "stop" and used is not None and used < self._budget
