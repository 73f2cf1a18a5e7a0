"""Log probabilities of a prompt with blocks: `logprob_start_len`, `echo`, no new tokens.

SGLang scores a prompt as one row. One with blocks is computed in pieces, on the rows
of the trunk and of each branch, and what a piece says of its tokens belongs to
places of the linear text that no row has side by side. So the pieces are put
together here, and given to SGLang as if one row had them.

A token's log probability is that given what it sees. The first token of a branch
and the first after the last branch have none, since none was ever sampled from
the token before them: the engine writes both itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..structure import Automaton, Phase, Role, TagTable, outline_label
from .req import MultiverseReq
from .stops import linear_index

if TYPE_CHECKING:
    from array import array

    from sglang.srt.managers.schedule_batch import ScheduleBatch

    from .vocabulary import Vocabulary

_STARTS = "multiverse_starts"


class Scores:
    """What is known of a prompt's tokens `[start, end)`, in linear order.

    Attributes:
        logprobs: float per token, `None` for the first and where there is none.
        top: `(values, ids)` per token, likewise, if the request asked for any.
        chosen: the same for the ids that the request named.
        alone: there is no room for an answer: what is open in the prompt stays open.
    """

    def __init__(self, start: int, end: int, *, alone: bool) -> None:
        self.start, self.end, self.alone = start, end, alone
        self.logprobs: list[float | None] = [None] * (end - start)
        self.top: list[tuple[Any, Any]] = [(None, None)] * (end - start)
        self.chosen: list[tuple[Any, Any]] = [(None, None)] * (end - start)

    def give_to(self, trunk: MultiverseReq) -> None:
        """Fill in SGLang's record of the request's input tokens, in its own shape."""
        record = trunk.logprob
        record.input_token_logprobs_val = list(self.logprobs)
        record.input_token_logprobs_idx = list(trunk.origin_input_ids[self.start : self.end])
        if record.top_logprobs_num > 0:
            record.input_top_logprobs_val = [values for values, _ in self.top]
            record.input_top_logprobs_idx = [ids for _, ids in self.top]
        if record.token_ids_logprob is not None:
            record.input_token_ids_logprobs_val = [values for values, _ in self.chosen]
            record.input_token_ids_logprobs_idx = [ids for _, ids in self.chosen]


def scores_for(trunk: MultiverseReq, start: int) -> Scores:
    """For the prompt of `trunk`, of which all from index `start` on is asked."""
    params = trunk.sampling_params
    due = _header_tokens_due(trunk.automaton, trunk.origin_input_ids, trunk.family.vocabulary)
    alone = params.max_new_tokens < max(due, 1)
    return Scores(start, len(trunk.origin_input_ids), alone=alone)


def _header_tokens_due(automaton: Automaton, ids: array[int], vocabulary: Vocabulary) -> int:
    """How many tokens the headers of the branches have that no open block has begun yet."""
    due, label = 0, ""
    for frame in automaton.frames:
        if frame.phase not in (Phase.HEAD, Phase.BRANCH):
            break
        labels = [
            outline_label(vocabulary.text(list(ids[lo:hi])), index, parent=label)
            for index, (lo, hi) in enumerate(frame.outlines, start=1)
        ]
        begun = frame.closed + (frame.phase is Phase.BRANCH)
        due += sum(len(vocabulary.branch_header(one)) for one in labels[begun:])
        label = labels[frame.closed]
    return due


def scores_of(req: Any) -> Scores | None:
    return req.family.scores if isinstance(req, MultiverseReq) else None


def start_of(req: MultiverseReq) -> int:
    """From which row index on the next extend of `req` is to compute log probabilities."""
    scores = req.family.scores
    if scores is None:
        return max(req.logprob_start_len, req.seqlen)
    if req.is_branch:
        return 0
    # Of what follows the prompt, SGLang keeps the account.
    return scores.start if req.prefix_len < scores.end else req.seqlen


def tell_next_tokens(batch: ScheduleBatch) -> None:
    """After `ScheduleBatch.prepare_for_extend`: what the rows of branches are scored for.

    SGLang looks for a row's next token in `origin_input_ids`, which for a branch end
    where it begins.
    """
    if not batch.return_logprob or not any(map(scores_of, batch.reqs)):
        return
    starts = batch.extend_logprob_start_lens
    at = 0
    for req, start, length in zip(batch.reqs, starts, batch.extend_lens, strict=True):
        count = length - start
        if scores_of(req) is not None and req.is_branch:
            first = req.prefix_len + start + 1
            ids = req.ids()[first : first + count]
            batch.extend_input_logprob_token_ids[at : at + len(ids)] = torch.tensor(list(ids))
        at += count


def note_starts(result: Any) -> None:
    """Keep with a step's logits from where on each row was scored."""
    if result.logits_output is not None:
        setattr(result.logits_output, _STARTS, result.extend_logprob_start_len_per_req)


def collect(_result: Any, _processor: Any, *, batch: ScheduleBatch, logits_output: Any) -> None:
    """Hook after `SchedulerBatchResultProcessor.move_logprobs_to_cpu`: take what is ours."""
    if not batch.return_logprob or not any(map(scores_of, batch.reqs)):
        return
    at = 0
    starts = getattr(logits_output, _STARTS)
    for row, (req, start) in enumerate(zip(batch.reqs, starts, strict=True)):
        count = batch.extend_lens[row] - start
        scores = scores_of(req)
        if count and scores is not None and not req.finished() and not req.is_retracted:
            first = batch.prefix_lens[row] + start + 1
            values = logits_output.input_token_logprobs[at : at + count]
            _note(scores, req, first, values, row, logits_output)
        at += count


def _note(
    scores: Scores,
    req: MultiverseReq,
    first: int,
    values: Sequence[float],
    row: int,
    logits_output: Any,
) -> None:
    """`values` are of the tokens from row index `first` on, the last of the next piece."""
    record = req.logprob
    top = _pairs(logits_output, "top", row, len(values)) if record.top_logprobs_num > 0 else None
    chosen = (
        _pairs(logits_output, "token_ids", row, len(values))
        if record.token_ids_logprob is not None
        else None
    )
    # Behind these comes what is not on this row, or was never sampled from them.
    ends = {point.goal_end for point in req.blocks} | {req.known_end}
    if req.layout is not None:
        ends |= _written_by_us(req.ids()[: len(req.layout)], req.family.vocabulary.tags)
    own = len(req.origin_input_ids)
    before = len(req.family.trunk.origin_input_ids)
    for k, value in enumerate(values):
        index = first + k
        if index in ends:
            continue  # what comes next is not on this row
        place = (linear_index(req, index - own) + before if req.is_branch else index) - scores.start
        if 0 < place < len(scores.logprobs):
            scores.logprobs[place] = value
            if top is not None:
                scores.top[place] = top[k]
            if chosen is not None:
                scores.chosen[place] = chosen[k]


def _written_by_us(ids: Sequence[int], tags: TagTable) -> set[int]:
    """Indices of what follows `</Goal>`, or a branch, of blocks in line at any level."""
    found: set[int] = set()
    reading, role = Automaton(tags), None
    for index, token in enumerate(ids):
        phase = reading.phase
        starts = phase is Phase.HEAD and reading.frames[-1].branch_start == index
        if starts or (phase is Phase.TAIL and role is Role.BRANCH_CLOSE):
            found.add(index)
        role = reading.push(token)
    return found


def _pairs(logits_output: Any, name: str, row: int, count: int) -> list[tuple[Any, Any]]:
    kind = "input_top_logprobs" if name == "top" else "input_token_ids_logprobs"
    values = getattr(logits_output, f"{kind}_val")[row]
    ids = getattr(logits_output, f"{kind}_idx")[row]
    values = values.tolist() if isinstance(values, torch.Tensor) else values
    return list(zip(values, ids, strict=True))[:count]


def keep_from_sglang(
    original: Callable[..., None], processor: Any, i: int, req: Any, *args: Any, **kwargs: Any
) -> None:
    """Hook around `add_input_logprob_return_values`, for whose pieces SGLang has no account."""
    if scores_of(req) is None:
        original(processor, i, req, *args, **kwargs)


def give_scores(reqs: Sequence[Any]) -> None:
    """Before `reqs` are sent to their clients: what was found of their prompts."""
    for req in reqs:
        scores = scores_of(req)
        if scores is not None and not req.is_branch and not req.input_logprob_sent:
            scores.give_to(req)
