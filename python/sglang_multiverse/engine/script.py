"""Answers known beforehand, written token for token, for benchmarks: `--multiverse-replay`.

What a step costs does not depend on what its tokens say. A request names a script; the logit of
each next token of it is lifted above all others, on every row, and then sampler, guard and
scheduler do what they always do. A token that the guard forbids stays forbidden, and the answer is
another one. Works without forks too (`--no-multiverse-enable`), where a script is one sequence.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..structure import layout, parse
from .rows import to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch

    from ..structure import Block, TagTable
    from .scheduler import MultiverseScheduler

FIELD = "replay"  # of `sampling_params.custom_params`: {"script": name, "at": offset}
_NEXT = "multiverse_script"
_OF = "multiverse_script_of"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_INTERNAL = "HEALTH_CHECK"  # how the ids of SGLang's own requests begin


class ScriptError(ValueError):
    """A script is not there or not what a script is; the message names the field or the flag."""


def read_scripts(path: str | Path) -> dict[str, array[int]]:
    """A file of lines `{"name": …, "ids": [token ids of an answer in linear form]}`."""
    found: dict[str, array[int]] = {}
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise ScriptError(f"--multiverse-replay {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            said = json.loads(line)
            name, ids = said["name"], array("q", said["ids"])
        except (ValueError, TypeError, KeyError) as error:
            raise ScriptError(
                f"--multiverse-replay {path}, line {number}: expected an object with "
                f"name, a string, and ids, a list of token ids ({error})"
            ) from error
        if not isinstance(name, str) or name in found:
            raise ScriptError(
                f"--multiverse-replay {path}, line {number}: name={name!r}: "
                "allowed is a string that no other line has"
            )
        found[name] = ids
    return found


def refuse_users(server_args: Any) -> None:
    """Raise `ScriptError` if the server is one that users are to reach."""
    rules = (
        (server_args.host not in _LOOPBACK, f"--host {server_args.host}", "127.0.0.1 only"),
        (bool(server_args.api_key), "--api-key", "there are no users to know it"),
        (bool(server_args.admin_api_key), "--admin-api-key", "there are no users to know it"),
        (bool(server_args.ssl_certfile), "--ssl-certfile", "there are no users to reach it"),
        (
            not server_args.skip_server_warmup,
            "without --skip-server-warmup",
            "the warm-up names no script",
        ),
    )
    for refused, flag, why in rules:
        if refused:
            raise ScriptError(f"--multiverse-replay {flag}: it is for benchmarks alone ({why})")


class Script(NamedTuple):
    """What one request is answered with: `ids[at:]` in linear form.

    Attributes:
        starts: where in `ids` a branch begins, by its path and by the tokens that it sees of
            what is before it; blocks that follow each other have branches of the same path.
    """

    ids: array[int]
    at: int
    starts: Mapping[tuple[tuple[int, ...], int], int]

    def next_of(self, req: Any, length: int) -> int | None:
        """The token that follows the first `length` ids of a sequence; `None` if no one knows."""
        path = getattr(req, "path", ())
        fork = len(req.origin_input_ids)
        start = self.starts.get((path, fork)) if path else self.at
        if start is None or length < fork:
            return None  # a chunk of the prompt
        index = start + length - fork
        return self.ids[index] if index < len(self.ids) else None


def starts_of(
    ids: Sequence[int], prompt: int, tags: TagTable
) -> dict[tuple[tuple[int, ...], int], int]:
    """`Script.starts` of an answer to a prompt of `prompt` tokens that are no tags."""
    whole = [-1] * prompt + list(ids)
    hidden = layout(whole, tags).hidden
    found = {}

    def walk(blocks: Sequence[Block], path: tuple[int, ...]) -> None:
        for block in blocks:
            fork = block.goal_end
            seen = fork - sum(int(hi - lo) for lo, hi in hidden[fork - 1])
            for number, one in enumerate(block.branches, 1):
                inner = (*path, number)
                found[inner, seen] = one.span.lo - prompt
                walk(one.blocks, inner)

    walk(parse(whole, tags).blocks, ())
    return found


class Next(NamedTuple):
    """What a step must sample: int64 `[n]` row indices and token ids, on the device."""

    rows: torch.Tensor
    ids: torch.Tensor


class Player:
    """The scripts of a server, in the scheduler process.

    Attributes:
        tags: `None` where nothing forks.
    """

    def __init__(self, path: str, server_args: Any, tags: TagTable | None) -> None:
        refuse_users(server_args)
        self.scripts = read_scripts(path)
        self.tags = tags
        self._starts: dict[tuple[str, int], dict[Any, int]] = {}

    @classmethod
    def of(cls, scheduler: MultiverseScheduler) -> Player | None:
        """`None` without the option; raises `ScriptError` where it is refused."""
        path, vocabulary = scheduler.options.replay, scheduler.vocabulary
        tags = vocabulary.tags if vocabulary is not None else None
        return None if path is None else cls(path, scheduler.server_args, tags)

    def give(self, req: Req) -> None:
        """Find the script of a new request, or abort it with a 400."""
        owner = getattr(req, "family", req)  # so that branches have it
        if hasattr(owner, _OF) or req.rid.startswith(_INTERNAL):
            return
        try:
            setattr(owner, _OF, self._find(req))
        except ScriptError as error:
            req.set_finish_with_abort(str(error), HTTPStatus.BAD_REQUEST, "BadRequestError")

    def _find(self, req: Req) -> Script:
        asked = (req.sampling_params.custom_params or {}).get(FIELD)
        if not isinstance(asked, dict) or not isinstance(asked.get("script"), str):
            raise ScriptError(
                f"custom_params.{FIELD}: this server only replays; "
                'needed is {"script": name, "at": offset}'
            )
        name, at = asked["script"], asked.get("at", 0)
        ids = self.scripts.get(name)
        if ids is None:
            raise ScriptError(f"custom_params.{FIELD}.script={name[:40]!r}: no such script")
        if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < len(ids):
            raise ScriptError(
                f"custom_params.{FIELD}.at={at!r}: allowed is an integer in [0, {len(ids)})"
            )
        prompt = len(req.origin_input_ids)
        if self.tags is None or at:
            return Script(ids, at, {})
        if self.tags.has_tags(req.origin_input_ids):
            raise ScriptError("input_ids: a prompt that is answered by a script holds no tags")
        if (name, prompt) not in self._starts:
            self._starts[name, prompt] = starts_of(ids, prompt, self.tags)
        return Script(ids, 0, self._starts[name, prompt])

    def prompt(self, batch: ScheduleBatch) -> None:
        """Tell a step that is about to be launched what it must sample.

        Counted from the tokens that have KV then: with overlap, those that were sampled are
        not known yet.
        """
        rows, ids = [], []
        for row, length in enumerate(batch.seq_lens_cpu.tolist()):
            req = batch.reqs[row]
            script: Script | None = getattr(getattr(req, "family", req), _OF, None)
            token = script.next_of(req, length) if script is not None else None
            if token is not None:
                rows.append(row)
                ids.append(token)
        told = Next(to_device(rows, batch.device), to_device(ids, batch.device)) if rows else None
        setattr(batch.sampling_info, _NEXT, told)


def carry_over(result: Any, info: Any) -> None:
    """Hook after `SamplingBatchInfo.copy_for_forward`, which copies none of our attributes."""
    setattr(result, _NEXT, getattr(info, _NEXT, None))


def lift(_result: Any, info: Any, logits: torch.Tensor) -> None:
    """Hook after `SamplingBatchInfo.apply_logits_bias`; `logits` is `[rows, vocabulary]`."""
    told: Next | None = getattr(info, _NEXT, None)
    if told is not None:
        # Above any logit, and, other than infinity, no match for the guard's minus infinity.
        logits[told.rows, told.ids] += torch.finfo(logits.dtype).max / 2
