"""What a request asks for, as the scheduler process takes it in."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from sglang.srt.beam_search.coordinator import BeamCoordinator
from sglang.srt.managers.schedule_batch import Req

from .family import Family
from .kv import Memory
from .options import MultiverseArgs, OptionError, RequestOptions
from .req import MultiverseReq
from .scoring import scores_for
from .vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# Names the space of the radix tree for KV that is computed in line. Text with
# blocks then has other KV than §3 defines, so it must not meet the common space.
_INLINE_SALT = "multiverse:inline"


def is_beam_search(recv_req: Any) -> bool:
    """Beams share rows in a way of their own; such a request is SGLang's alone."""
    return bool(BeamCoordinator.request_beam_width(recv_req) > 1)


def keep_apart(req: Req) -> Req:
    """Keep what `req` computes out of the common space of the radix tree."""
    req.cache_salt = f"{req.cache_salt or ''}{_INLINE_SALT}"
    return req


def failed(req: Req, error: Exception) -> Req:
    """SGLang's request in place of one whose family could not be made, aborted with a 500."""
    logger.error("Request %s failed", req.rid, exc_info=error)
    keep_apart(req).set_finish_with_abort(
        f"Internal error: {error}", HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError"
    )
    return req


def refuse_if_wrong(req: MultiverseReq) -> None:
    """Abort a request about to be queued for what was wrong with it."""
    error, req.option_error = req.option_error, None
    if error is not None and not req.finished() and req.to_finish is None:
        req.set_finish_with_abort(error)


def found_family(
    req: MultiverseReq,
    recv_req: Any,
    server: MultiverseArgs,
    vocabulary: Vocabulary,
    memory: Memory,
    *,
    hides: bool,
) -> None:
    """Give a request its family. What is wrong with it is left in `req.option_error`.

    `hides`: whether attention can be told of hidden tokens (`visibility.hides`).
    """
    params = req.sampling_params
    error = None
    try:
        asked = (params.custom_params or {}).get("multiverse", {})
        options = RequestOptions.parse(asked, server)
    except OptionError as bad:
        options, error = RequestOptions(), str(bad)
    if vocabulary.tags_are_special:
        params.skip_special_tokens = False
    may_fork = _may_fork(recv_req, req)
    if not may_fork:
        keep_apart(req)
    Family(
        req,
        options.resolve(server),
        vocabulary,
        memory,
        may_fork=may_fork,
        hides=hides,
        live_deltas=options.stream == "branches" and bool(req.stream),
        return_sequences=options.return_sequences,
    )
    if options.return_sequences and not recv_req.return_logprob and error is None:
        error = (
            "multiverse.return_sequences=True: allowed only with log probabilities "
            "(return_logprob: true; in a chat, logprobs: true)"
        )
    if not req.origin_input_ids and recv_req.input_embeds is None:
        # SGLang would run an extend of no tokens, which ends the scheduler.
        error = "prompt: it holds no token; at least one is needed"
    start, end = recv_req.logprob_start_len, len(req.origin_input_ids)
    if req.blocks and recv_req.return_logprob and 0 <= start < end:
        req.family.scores = scores_for(req, start)
    req.option_error = error


def _may_fork(recv_req: Any, req: Req) -> bool:
    """Whether a request can fork; others get their block tags masked.

    A grammar constrains the linear text, sessions and embeddings own KV that ids
    do not determine, and captured per-token tensors follow one row.
    """
    params = req.sampling_params
    return not (
        params.json_schema
        or params.regex
        or params.ebnf
        or params.structural_tag
        or req.session is not None
        or recv_req.session_id is not None
        or req.input_embeds is not None
        or req.positional_embed_overrides is not None
        or recv_req.mm_inputs is not None
        or req.return_hidden_states
        or req.return_routed_experts
        or req.return_indexer_topk
        or req.return_sampling_mask
    )


def arrival(req: Req) -> int:
    """Its place in SGLang's queue among equals; what is not ours goes first."""
    return req.family.arrival if isinstance(req, MultiverseReq) else 0
