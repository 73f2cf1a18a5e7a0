"""Where a stop ended the answer, for who cuts the text: SGLang's detokenizer (`http.trim`).

SGLang cuts at the first occurrence of the stop string. With branches an earlier
one may be text: one that ended a branch only, or one in a block whose stops are
dormant. And a stop amid a branch is not at the end of the linear text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_batch import (
    FINISH_MATCHED_STR,
    FINISH_MATCHED_TOKEN,
    BaseFinishReason,
)

from .http.trim import START

if TYPE_CHECKING:
    from .req import MultiverseReq


class StopInText(FINISH_MATCHED_STR):
    """The stop string `matched`, looked for from character `start` of the answer's text on."""

    def __init__(self, matched: str, start: int) -> None:
        super().__init__(matched)
        self.start = start

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), START: self.start}


class StopAmidBranch(FINISH_MATCHED_TOKEN):
    """The stop token `matched` was not kept, so that no last token is to be cut off."""

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), START: 0}


def locate(reason: BaseFinishReason, trunk: MultiverseReq, ended: MultiverseReq) -> Any:
    """`reason` as seen from the linear text of `trunk`, when the sequence `ended` met it."""
    if isinstance(reason, FINISH_MATCHED_STR):
        params = trunk.sampling_params
        before = trunk.tokenizer.decode(
            list(trunk.output_ids[: linear_start(ended)]),
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
        )
        return StopInText(reason.matched, len(before))
    if isinstance(reason, FINISH_MATCHED_TOKEN) and ended is not trunk:
        return StopAmidBranch(reason.matched)
    return reason


def linear_start(req: MultiverseReq) -> int:
    """Output index, in the flushed trunk, of the first token of `req` that a stop may match."""
    return linear_index(req, req.segment_start)


def linear_index(req: MultiverseReq, index: int) -> int:
    """From an output index of `req` to that in the flushed trunk."""
    while req.parent is not None:
        parent = req.parent
        earlier = parent.children[: parent.children.index(req)]
        index += parent.fork_at - len(parent.origin_input_ids)
        index += sum(len(sibling.output_ids) for sibling in earlier)
        req = parent
    return index
