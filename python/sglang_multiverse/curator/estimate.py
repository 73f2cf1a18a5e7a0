"""How many calls and tokens a run would take: the run itself, against nobody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.table import Table

from .config import STAGE_NAMES, RunConfig, stage_settings
from .errors import NotAskedError
from .prompt import prompt
from .request import Reply, Request, estimate

# Tokens of an answer: so many at least, and so many for each token of the reasoning. Outline,
# refill and plan are means of good answers to 26 real chains of 2,200 to 11,900 tokens, as
# `benchmark/curator_load.py --tokens` prints them; graph is half of what a graph with every edge
# takes, and rewrite is a guess: a tenth of the text said anew.
ANSWERS = {
    "outline": (40, 0.06),
    "graph": (40, 0.10),
    "refill": (40, 0.025),
    "plan": (40, 0.08),
    "rewrite": (40, 0.10),
}


@dataclass(slots=True)
class Estimate:
    """Answers requests by counting them.

    The stage asked is counted with its very prompt; of the stages after it, which need its
    answer, the prompt is taken to be as long.
    """

    config: RunConfig
    calls: Counter[str] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    answer_tokens: Counter[str] = field(default_factory=Counter)

    async def ask(self, request: Request) -> Reply:
        """Count.

        Raises:
            NotAskedError: always.
        """
        here = STAGE_NAMES.index(request.name)
        until = here + 1 if self.config.only else len(STAGE_NAMES)
        task = estimate(prompt(request.name))
        text = estimate(request.messages[1]["content"]) - task
        for name in STAGE_NAMES[here:until]:
            least, share = ANSWERS[name]
            self.calls[name] += 1
            self.prompt_tokens[name] += request.estimated_tokens - task + estimate(prompt(name))
            self.answer_tokens[name] += round(least + share * text)
        raise NotAskedError("a dry run")

    @property
    def tokens(self) -> int:
        return sum(self.prompt_tokens.values()) + sum(self.answer_tokens.values())

    @property
    def cost(self) -> float:
        settings = stage_settings(self.config)
        return (
            sum(
                self.prompt_tokens[name] * settings[name].price_in
                + self.answer_tokens[name] * settings[name].price_out
                for name in STAGE_NAMES
            )
            / 1e6
        )

    def table(self) -> Table:
        table = Table("stage", "calls", "prompt tokens", "answer tokens", box=None)
        for row in self._rows():
            table.add_row(*row)
        return table

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for name in STAGE_NAMES:
            numbers = self.calls[name], self.prompt_tokens[name], self.answer_tokens[name]
            yield name, *(f"{number:,}" for number in numbers)
        whole = (sum(c.values()) for c in (self.calls, self.prompt_tokens, self.answer_tokens))
        yield "all", *(f"{number:,}" for number in whole)


class Unwatched:
    """Nobody watches."""

    def called(self, stage: str, reply: Reply) -> None: ...

    def stage_done(self, stage: str) -> None: ...

    def stage_failed(self, stage: str) -> None: ...

    def example_done(self, status: str) -> None: ...
