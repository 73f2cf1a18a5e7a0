"""What an answer tells beside its text. The docs are made from these fields and their help."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from ..structure import sequences

if TYPE_CHECKING:
    from .family import Family


class Summary(TypedDict):
    """Counts of tokens and of structure (DESIGN.md §4, Results), at the end of an answer."""

    tokens: Annotated[int, "tokens of the answer, forced ones included; `completion_tokens`"]
    critical_path_tokens: Annotated[int, "positions of its longest path"]
    degree_of_parallelism: Annotated[float, "`tokens` ÷ `critical_path_tokens`; 1 if sequential"]
    blocks: Annotated[int, "parallel blocks that it opened"]
    branches: Annotated[int, "branches of all blocks"]
    depth: Annotated[int, "deepest nesting of blocks"]
    forced_tokens: Annotated[int, "tokens that the engine wrote: headers and closing tags"]
    prefilled_tokens: Annotated[
        int, "tokens computed in extends: the prompt's, unless cached, headers, recomputed ones"
    ]
    max_concurrent_branches: Annotated[int, "most branches that were decoded in one step"]


class ChunkLabel(TypedDict):
    """Which branch wrote the text of a streamed chunk."""

    path: Annotated[str, 'the branch: `"2.1"` is the first within the second; `""` is the trunk']


def metadata(family: Family) -> dict[str, Any]:
    """What an ended answer's metadata says, with its sequences if they were asked for."""
    found: dict[str, Any] = dict(family.summary())
    trunk = family.trunk
    if family.return_sequences and trunk.return_logprob:
        logprobs = trunk.logprob.output_token_logprobs_val
        answer = trunk.output_ids_through_stop[: len(logprobs)]
        tags = family.vocabulary.tags
        found["sequences"] = [
            asdict(one) for one in sequences(trunk.origin_input_ids, answer, logprobs, tags)
        ]
    return found
