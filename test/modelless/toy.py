"""A model whose KV is one number a token: what the token saw.

    kv[t] = mix(token[t], position[t], sum of the kv that t sees)

and the logits behind `t` are a row of a random table, chosen by `kv[t]`. So what it
writes depends on every token, position and slot that it attends to, as a
transformer's does, and on nothing else: a slot that is missing, doubled, stale or
somebody else's changes the text. `linear` writes the same text without an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.visible import Visible
from sglang_multiverse.structure import (
    Automaton,
    Limits,
    Phase,
    Role,
    TagTable,
    allowed,
    forbidden_ids,
    outline_label,
    resolve_tags,
)

_TABLE = 512
_BITS = 40  # of a kv; sums of a million of them fit an int64


def _mix(token: int, position: int, seen: int) -> int:
    x = token * 0x9E3779B97F4A7C15 + position * 0xC2B2AE3D27D4EB4F + seen * 0x165667B19E3779F9
    x &= (1 << 64) - 1
    x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9 & ((1 << 64) - 1)
    return (x ^ (x >> 32)) >> (64 - _BITS)


class Toy:
    """See above. Its texts branch early and end soon.

    Args:
        tokenizer: of a model with the tags.
        slots: of the KV pool it runs on.
        calm: the position from which it only closes what is open.
    """

    def __init__(self, tokenizer: Any, slots: int, *, calm: int = 80, seed: int = 0) -> None:
        self.tokenizer = tokenizer
        self.tags: TagTable = resolve_tags(tokenizer)
        self.eos: int = tokenizer.eos_token_id
        self.calm = calm
        self.kv = torch.zeros(slots + 64, dtype=torch.int64)
        draw = torch.Generator().manual_seed(seed)
        words = tokenizer.encode("abc", add_special_tokens=False)
        ids = self.tags.id_of
        roles = [role for role in ids if role not in (Role.THINK_OPEN, Role.THINK_CLOSE)]
        opens = [ids[role] for role in roles if role.name.endswith("OPEN")]
        closes = [ids[role] for role in roles if role.name.endswith("CLOSE")]
        self.vocabulary = max(len(tokenizer), max(ids.values()) + 1)
        self.table = torch.full((2, _TABLE, self.vocabulary), -1e4)
        for columns, weight in ((words, 1.0), (opens, 1.3), (closes, 1.2), ([self.eos], 0.7)):
            noise = torch.rand((_TABLE, len(columns)), generator=draw)
            self.table[0][:, columns] = noise * weight
            self.table[1][:, columns] = noise
        self.table[1][:, closes] += 4
        self.table[1][:, [self.eos]] += 3
        needed = (Role.GOAL_OPEN, Role.CONCLUSION_OPEN, Role.BRANCH_OPEN, Role.OUTLINE_OPEN)
        self.table[1][:, [ids[role] for role in needed]] += 2

    def logits(self, kv: int, position: int) -> torch.Tensor:
        """float `[vocabulary]` behind a token with that KV and position; not to be written to."""
        return self.table[int(position >= self.calm), kv % _TABLE]

    def __call__(self, forward: Any, req_to_token: torch.Tensor, visible: Visible) -> torch.Tensor:
        lens = [1] * len(forward.seq_lens)
        if not forward.forward_mode.is_decode():
            lens = forward.extend_seq_lens_cpu
        tokens, positions = forward.input_ids.tolist(), forward.positions.tolist()
        slots = forward.out_cache_loc.tolist()
        rows, ends = forward.req_pool_indices.tolist(), forward.seq_lens.tolist()
        check_shared(visible.chains, [req_to_token[row] for row in rows])
        hidden = None if visible.hidden is None else visible.hidden.tolist()
        if hidden is not None and len(hidden) != len(tokens):
            raise AssertionError(f"{len(hidden)} hidden intervals for {len(tokens)} tokens")
        last = torch.empty((len(rows), self.vocabulary))
        at = 0
        for i, (row, end, n) in enumerate(zip(rows, ends, lens, strict=True)):
            seen = int(self.kv[req_to_token[row, : end - n].long()].sum())
            kv = position = 0
            for k in range(at, at + n):
                position = positions[k]
                unseen = 0
                for lo, hi in hidden[k] if hidden is not None else ():
                    unseen += int(self.kv[req_to_token[row, lo:hi].long()].sum())
                kv = _mix(tokens[k], position, seen - unseen)
                self.kv[slots[k]] = kv
                seen += kv
            last[i] = self.logits(kv, position)
            at += n
        return last


def check_shared(chains: Sequence[Sequence[Link]], rows: Sequence[torch.Tensor]) -> None:
    """Raise `AssertionError` unless rows with the same link begin with the same slots."""
    if not chains:
        return
    first: dict[Link, torch.Tensor] = {}
    for chain, row in zip(chains, rows, strict=True):
        for link in chain:
            if not torch.equal(first.setdefault(link, row)[: link.stop], row[: link.stop]):
                raise AssertionError(f"{link}: its rows differ")


class Linear:
    """The same text, written in linear order from what `structure` says of it."""

    def __init__(self, toy: Toy, limits: Limits) -> None:
        self.toy, self.tags, self.limits = toy, toy.tags, limits
        self.ids: list[int] = []
        self.automaton = Automaton(toy.tags)
        self._kv: list[int] = []
        self._position = 0
        self.branches = 0

    def write(self, ids: Sequence[int]) -> None:
        for token in ids:
            self._position = self.automaton.position
            seen = sum(self._kv) - sum(sum(self._kv[lo:hi]) for lo, hi in self.automaton.hidden)
            self._kv.append(_mix(token, self._position, seen))
            self.automaton.push(token)
            self.ids.append(token)

    def _header(self) -> list[int]:
        """The header that is due: of the conclusion, or of a branch, under all its labels."""
        dialect, label = self.tags.dialect, ""
        if self.automaton.phase is Phase.TAIL:
            text = dialect.conclusion_header
        else:
            for frame in self.automaton.frames:
                lo, hi = frame.outlines[frame.closed]
                words = self.toy.tokenizer.decode(self.ids[lo:hi])
                label = outline_label(words, frame.closed + 1, label)
            text = dialect.branch_header(label)
        found: list[int] = self.toy.tokenizer.encode(text, add_special_tokens=False)
        return found

    def go_on(self) -> None:
        """Choose one token, and write it with what it forces."""
        toy = self.toy
        may = allowed(self.automaton, self.limits, self.branches)
        logits = toy.logits(self._kv[-1], self._position).clone()
        logits[list(forbidden_ids(self.tags, may, frozenset({toy.eos})))] = -torch.inf
        token = int(logits.argmax())
        if token == toy.eos and self.automaton.phase is Phase.BRANCH:
            token = self.tags.id_of[Role.BRANCH_CLOSE]
        self.write([token])
        self.force()

    def force(self) -> None:
        """Write the header that is due behind the text as it stands, if one is.

        A prompt may end amid a branch's header; one that is laid out otherwise, and
        has not come to the tag, is followed by the whole of it.
        """
        due = self.tags.role_of.get(self.ids[-1]) is Role.BRANCH_CLOSE
        if self.automaton.phase is Phase.HEAD:
            header, own = self._header(), self.ids[self.automaton.frames[-1].branch_start :]
            self.write(header[len(own) :] if own == header[: len(own)] else header)
        elif self.automaton.phase is Phase.TAIL and due:
            self.write(self._header())


def linear(toy: Toy, prompt: Sequence[int], limits: Limits, most: int) -> list[int] | None:
    """What follows `prompt`, its end token included; `None` if that is over `most` tokens."""
    text = Linear(toy, limits)
    text.write(prompt)
    text.force()
    while text.ids[-1] != toy.eos:
        if len(text.ids) - len(prompt) >= most:
            return None
        text.go_on()
    return text.ids[len(prompt) :]
