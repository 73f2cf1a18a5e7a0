"""Answers that are known beforehand, written by a server token for token.

Speed does not depend on what tokens say, so structure is replayed: a custom logit processor of
SGLang (`--enable-custom-logit-processor`) leaves each sequence only the next token of its script.
Sampler, guard and scheduler do what they always do. The server finds this module in its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor

from sglang_multiverse.structure import Role, TagTable, layout, parse


class Replay(CustomLogitProcessor):
    """`custom_params["replay"]` is what `scripts` returns."""

    def __call__(self, logits: Any, custom_param_list: Any = None) -> Any:
        import torch

        rows, ids = [], []
        for row, params in enumerate(custom_param_list):
            req = params["__req__"]
            path = getattr(req, "path", ())
            # Blocks that follow each other have branches of the same name.
            fork = len(req.origin_input_ids) if path else 0
            script = params["replay"].get(f"{'.'.join(map(str, path))}@{fork}")
            at = len(req.output_ids)
            if script is not None and at < len(script) and not getattr(req, "discards", False):
                rows.append(row)
                ids.append(script[at])
        if rows:
            where = torch.tensor([rows, ids]).to(logits.device, non_blocking=True)
            logits[where[0]] = float("-inf")
            logits[where[0], where[1]] = 0.0
        return logits


def scripts(ids: Sequence[int], start: int, tags: TagTable | None) -> dict[str, list[int]]:
    """What each sequence writes of `ids[start:]`: the trunk (`"@0"`) and branches (`"2.1@80"`).

    A branch is named by its path and by how many tokens it sees of what is before it.
    Without `tags` all of it is one sequence.
    """
    found = {"@0": list(ids[start:])}
    if tags is None:
        return found
    hidden = layout(ids, tags).hidden

    def walk(blocks: Any, path: tuple[int, ...]) -> None:
        for block in blocks:
            fork = block.goal_end
            seen = fork - sum(int(hi - lo) for lo, hi in hidden[fork - 1])
            for number, branch in enumerate(block.branches, 1):
                inner = (*path, number)
                name = f"{'.'.join(map(str, inner))}@{seen}"
                found[name] = list(ids[branch.span.lo : branch.span.hi])
                walk(branch.blocks, inner)

    walk(parse(ids, tags).blocks, ())
    return found


@dataclass(frozen=True)
class Tree:
    """A prompt, and an answer with one block: `before` tokens, branches, `after` tokens."""

    prompt: int
    branches: int
    length: int
    before: int = 16
    after: int = 16


def write(tree: Tree, tokenizer: Any, tags: TagTable) -> tuple[list[int], int]:
    """Ids of the whole, and how many are the prompt."""

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    tag = tags.id_of
    word = encode(" x")
    plain = lambda count: (word * count)[:count]  # noqa: E731
    ids = plain(tree.prompt + tree.before)
    ids += [tag[Role.BLOCK_OPEN], *encode("\n"), tag[Role.GOAL_OPEN]]
    for number in range(1, tree.branches + 1):
        ids += [*encode("\n"), tag[Role.OUTLINE_OPEN], *encode(f"\n{number}: x\n")]
        ids += [tag[Role.OUTLINE_CLOSE]]
    ids += [*encode("\n"), tag[Role.GOAL_CLOSE]]
    for number in range(1, tree.branches + 1):
        ids += [*encode("\n"), tag[Role.BRANCH_OPEN], *encode(f"\n{number}:")]
        ids += [*plain(tree.length), tag[Role.BRANCH_CLOSE]]
    ids += [*encode("\n"), tag[Role.CONCLUSION_OPEN], *encode("\n"), *plain(tree.after)]
    ids += [tag[Role.CONCLUSION_CLOSE], tag[Role.BLOCK_CLOSE], *plain(tree.after)]
    return ids, tree.prompt
