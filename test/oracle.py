"""The slow reference: plain `transformers`, a dense mask, explicit position ids.

It shares nothing with the engine but the language (`structure`). Text is
written in linear order, one branch after another; a branch does not see its
siblings because the mask hides them, not because they are absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel

from sglang_multiverse.structure import (
    Automaton,
    Interval,
    Limits,
    Phase,
    Role,
    TagTable,
    allowed,
    forbidden_ids,
    layout,
    outline_label,
    resolve_tags,
)


class Scores(NamedTuple):
    """One entry per token behind the prompt, `m` of them.

    Attributes:
        logprobs: float32 `[m]`, of the token that is there, from the raw logits
            (before the guard); NaN for a forced token.
        guarded_logprobs: float32 `[m]`, the same after the guard, which is what a
            server returns; NaN for a forced token.
        choice: int64 `[m]`, what a greedy engine would write there: the guarded
            argmax, with the branch's closing tag in place of an EOS.
        gap: float32 `[m]`, between the two best guarded logits.
    """

    logprobs: torch.Tensor
    guarded_logprobs: torch.Tensor
    choice: torch.Tensor
    gap: torch.Tensor


class Generation(NamedTuple):
    """A greedy answer in linear form.

    Attributes:
        ids: the tokens behind the prompt, a final EOS included.
        forced: which of them were not sampled: headers, and `</Path>` for EOS.
        logprobs: of the sampled tokens, from the raw logits; `None` for forced ones.
        finish: `stop` after an EOS, `length` when `max_tokens` cut the answer.
    """

    ids: list[int]
    forced: list[bool]
    logprobs: list[float | None]
    finish: Literal["stop", "length"]


class Sampling(NamedTuple):
    """What a request asks of its logits; the defaults ask for nothing."""

    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0
    logit_bias: Mapping[int, float] = {}

    def apply(
        self, logits: torch.Tensor, seen: Sequence[int], may_end: bool, ends: frozenset[int]
    ) -> torch.Tensor:
        """Logits, float `[vocab]`, after `seen`: the visible tokens behind the prompt.

        `may_end`: an end token here does not end the answer, so that no minimum forbids it.
        """
        logits = logits.float().clone()
        counts = torch.bincount(torch.tensor(seen, dtype=torch.int64), minlength=len(logits))
        logits -= self.frequency_penalty * counts + self.presence_penalty * (counts > 0)
        factor = torch.where(counts > 0, self.repetition_penalty, 1.0)
        logits = torch.where(logits < 0, logits * factor, logits / factor)
        if len(seen) < self.min_new_tokens and not may_end:
            logits[list(ends)] = -torch.inf
        for token, bias in self.logit_bias.items():
            logits[token] += bias
        return logits


class _Chooser:
    """The guarded choice at a point of the text."""

    def __init__(
        self,
        tags: TagTable,
        limits: Limits | None,
        eos_ids: Iterable[int],
        sampling: Sampling = Sampling(),  # noqa: B008 - immutable
    ) -> None:
        self.tags = tags
        self.limits = limits
        self.eos_ids = frozenset(eos_ids)
        self.sampling = sampling

    def guard(
        self, logits: torch.Tensor, at: Automaton, branches: int, behind: Sequence[int] = ()
    ) -> torch.Tensor:
        """The logits, float `[vocab]`, without the tokens that may not come next.

        `behind` is the answer so far, in linear order; what `at` hides of it does not count.
        """
        start = at.length - len(behind)
        hidden = {i - start for lo, hi in at.hidden for i in range(lo, hi)}
        seen = [token for i, token in enumerate(behind) if i not in hidden]
        in_branch = any(frame.phase in (Phase.HEAD, Phase.BRANCH) for frame in at.frames)
        guarded = self.sampling.apply(logits, seen, in_branch, self.eos_ids)
        if self.limits is not None:
            forbidden = forbidden_ids(self.tags, allowed(at, self.limits, branches), self.eos_ids)
            guarded[list(forbidden)] = -torch.inf
        return guarded

    def choose(
        self, logits: torch.Tensor, at: Automaton, branches: int, behind: Sequence[int] = ()
    ) -> tuple[int, bool, float]:
        """Pick from raw logits, float `[vocab]`; `branches` were opened by the answer so far.

        Returns:
            The token, whether it stands for an EOS inside a branch, and the gap.
        """
        guarded = self.guard(logits, at, branches, behind)
        (best, second), (token, _) = (values.tolist() for values in guarded.topk(2))
        ends_branch = token in self.eos_ids and at.phase is Phase.BRANCH
        if ends_branch:
            token = self.tags.id_of[Role.BRANCH_CLOSE]
        return int(token), ends_branch, best - second


@torch.no_grad()
def score(
    model: PreTrainedModel,
    ids: Sequence[int],
    tags: TagTable,
    prompt_len: int,
    limits: Limits | None,
    eos_ids: Iterable[int],
    forced: Sequence[bool] | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - immutable
) -> Scores:
    """Score linear `ids` behind the first `prompt_len` in one forward pass.

    Args:
        limits: of the guard; `None` switches the guard off.
        forced: per token behind the prompt, whether it was forced.
        sampling: penalties and the like, which count as guarding does.
    """
    placed = layout(ids, tags)
    logits: torch.Tensor = (
        model(
            input_ids=torch.tensor([list(ids)]),
            position_ids=torch.from_numpy(placed.positions)[None],
            attention_mask=_additive(torch.from_numpy(placed.dense_mask()), model.dtype),
            use_cache=False,
        )
        .logits[0]
        .float()
    )

    chooser = _Chooser(tags, limits, eos_ids, sampling)
    m = len(ids) - prompt_len
    logprobs, guarded_logprobs, choice, gap = (
        torch.full((m,), torch.nan),
        torch.full((m,), torch.nan),
        torch.zeros(m, dtype=torch.int64),
        torch.zeros(m),
    )
    automaton, branches = Automaton(tags), 0
    automaton.feed(ids[:prompt_len])
    for k, token in enumerate(ids[prompt_len:]):
        row = logits[prompt_len + k - 1]
        behind = ids[prompt_len : prompt_len + k]
        choice[k], _, gap[k] = chooser.choose(row, automaton, branches, behind)
        if forced is None or not forced[k]:
            logprobs[k] = row.log_softmax(-1)[token]
            guarded = chooser.guard(row, automaton, branches, behind)
            guarded_logprobs[k] = guarded.log_softmax(-1)[token]
        if automaton.push(token) is Role.GOAL_CLOSE:
            branches += len(automaton.frames[-1].outlines)
    return Scores(logprobs, guarded_logprobs, choice, gap)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: Any,
    prompt_ids: Sequence[int],
    max_tokens: int,
    guard: bool = True,
    limits: Limits | None = None,
    sampling: Sampling = Sampling(),  # noqa: B008 - immutable
    stop: Sequence[str] = (),
) -> Generation:
    """Continue `prompt_ids` greedily, doing in linear order what the engine does in branches.

    At `</Goal>` every branch gets its header; after the last `</Path>` the
    conclusion gets its own; an EOS in a branch is `</Path>`. A string of `stop`
    in what was written since the last header, block or start closes the branch
    it stands in, and elsewhere ends the answer.
    """
    tags = resolve_tags(tokenizer)
    ends = eos_ids(model, tokenizer)
    chooser = _Chooser(tags, (limits or Limits()) if guard else None, ends, sampling)
    writer = _Writer(model, tokenizer, tags)
    writer.write(prompt_ids)
    start = len(writer.ids)

    forced: list[bool] = []
    logprobs: list[float | None] = []
    finish: Literal["stop", "length"] = "length"
    segment, stopped = len(writer.ids), False
    while len(forced) < max_tokens:
        logits = writer.next_logits()
        at, behind = writer.automaton, writer.ids[start:]
        token, ends_branch, _ = chooser.choose(logits, at, writer.branches, behind)
        if stopped:
            token, ends_branch, stopped = tags.id_of[Role.BRANCH_CLOSE], True, False
        headers = writer.write_sampled(token)
        forced += [ends_branch] + [True] * headers
        logprobs += [None if ends_branch else float(logits.log_softmax(-1)[token])]
        logprobs += [None] * headers
        if headers:
            segment = len(writer.ids)
        stopped = any(text in tokenizer.decode(writer.ids[segment:]) for text in stop)
        if token in ends or (stopped and at.phase is not Phase.BRANCH):
            finish = "stop"
            break
    return Generation(
        writer.ids[start:][:max_tokens], forced[:max_tokens], logprobs[:max_tokens], finish
    )


class _Writer:
    """A text in linear order, its reading, and the KV of the tokens computed so far.

    KV covers `ids[0, computed)`; `next_logits` computes `ids[computed, len(ids))`.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, tags: TagTable) -> None:
        self.model, self.tokenizer, self.tags = model, tokenizer, tags
        self.automaton = Automaton(tags)
        self.ids: list[int] = []
        self.branches = 0
        self._positions: list[int] = []
        self._hidden: list[tuple[Interval, ...]] = []
        self._cache = DynamicCache()
        self._computed = 0

    def write(self, ids: Iterable[int]) -> Role | None:
        """Append tokens as they are; returns the role of the last one."""
        role = None
        for token in ids:
            self._positions.append(self.automaton.position)
            self._hidden.append(self.automaton.hidden)
            role = self.automaton.push(token)
            self.ids.append(token)
        return role

    def write_sampled(self, token: int) -> int:
        """Append a sampled token and what it forces; returns how many tokens that is."""
        role = self.write([token])
        header: str | None = None
        if role is Role.GOAL_CLOSE:
            self.branches += len(self.automaton.frames[-1].outlines)
            header = self._branch_header()
        elif role is Role.BRANCH_CLOSE:
            due = self.automaton.phase is Phase.HEAD
            header = self._branch_header() if due else self.tags.dialect.conclusion_header
        if header is None:
            return 0
        header_ids = self.tokenizer.encode(header, add_special_tokens=False)
        self.write(header_ids)
        return len(header_ids)

    def _branch_header(self) -> str:
        """The header of the branch that is due: its outline's label, behind its parents'."""
        label = ""
        for frame in self.automaton.frames:
            lo, hi = frame.outlines[frame.closed]
            label = outline_label(self.tokenizer.decode(self.ids[lo:hi]), frame.closed + 1, label)
        return self.tags.dialect.branch_header(label)

    def next_logits(self) -> torch.Tensor:
        """Raw logits of the token to come, float32 `[vocab]`."""
        start, end = self._computed, len(self.ids)
        columns = torch.arange(end)
        visible = columns[None, :] <= torch.arange(start, end)[:, None]
        for row, intervals in enumerate(self._hidden[start:end]):
            for lo, hi in intervals:
                visible[row, lo:hi] = False
        output = self.model(
            input_ids=torch.tensor([self.ids[start:]]),
            position_ids=torch.tensor([self._positions[start:]]),
            attention_mask=_additive(visible, self.model.dtype),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._computed = end
        logits: torch.Tensor = output.logits[0, -1].float()
        return logits


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """bool `[q, k]` → `[1, 1, q, k]`, 0 where visible, else the dtype's least value."""
    mask = torch.zeros(visible.shape, dtype=dtype)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]


def eos_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return frozenset([*ids, tokenizer.eos_token_id])
