"""A finished example: what of it is stored, and from that what training reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from sglang_multiverse.structure import (
    MULTIVERSE,
    Statistics,
    TagTable,
    Tokenizer,
    add_tags,
    break_tags,
    resolve_tags,
)
from sglang_multiverse.training.data.conversation import Kind
from sglang_multiverse.training.data.pieces import pieces

from .draft import Draft, Example
from .errors import CuratorError, RejectedError
from .render import Wording, branches_of, check_structure, render, skeleton
from .tree import Block, Body, Text, source_text


class Counter(NamedTuple):
    """A tokenizer that has the tags, and what to call it."""

    tokenizer: Tokenizer
    tags: TagTable
    name: str


def make_counter(path: str) -> Counter:
    """The tokenizer in a directory, or one without a vocabulary for the empty path.

    Raises:
        CuratorError: there is none.
    """
    if not path:
        return Counter(*pieces(), "words, digits and signs (no model's tokenizer was given)")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise CuratorError(f"tokenizer: {path} cannot be read: {why}") from error
    add_tags(tokenizer)
    return Counter(tokenizer, resolve_tags(tokenizer), f"the tokenizer {path.rstrip('/')}")


def assistant(thinking: str, answer: str) -> str:
    """The assistant's turn: the reasoning in think tags, if an answer follows it."""
    if not answer.strip():
        return thinking.strip()
    assert MULTIVERSE.think is not None
    think = MULTIVERSE.think
    return f"{think.open}\n{thinking.strip()}\n{think.close}\n\n{answer.strip()}"


def sequential_turn(example: Example) -> str:
    """The twin: the source as it was."""
    thinking, answer = example.thinking, example.answer
    return assistant(break_tags(thinking, MULTIVERSE), break_tags(answer, MULTIVERSE))


def parallel_turn(draft: Draft, wording: Wording) -> str:
    text = render(draft.body, draft.sentences, wording)
    return assistant(text, break_tags(draft.example.answer, MULTIVERSE))


def most_parallelism(draft: Draft, counter: Counter) -> float:
    """The degree of parallelism of a draft's tree before outlines and conclusions lower it."""
    turn = parallel_turn(draft, skeleton(draft.body))
    found = check_structure(turn, draft.body, counter.tokenizer, counter.tags)[1]
    return found.degree_of_parallelism


def finished(draft: Draft, counter: Counter, least: float) -> dict[str, Any]:
    """The content of a finished example: parallel, or sequential where that is not worth it.

    Raises:
        RejectedError: the tree is not lossless, or the rendered text not what the tree says.
    """
    if source_text(draft.body, draft.sentences) != draft.example.thinking:
        raise RejectedError(["the tree has lost words of the source"])  # never, by design
    if draft.rewritten is None:
        raise ValueError("a draft without its last stage")
    turn = parallel_turn(draft, draft.rewritten)
    tokens, found = check_structure(turn, draft.body, counter.tokenizer, counter.tags)
    if found.degree_of_parallelism < least:
        why = f"degree of parallelism {found.degree_of_parallelism:.3f} below {least:g}"
        return sequential(draft, counter, why)
    kind: Kind = "nested" if found.depth > 1 else "flat"
    return {
        **_common(draft.example, kind, turn, tokens, found, counter),
        "branches": list(branches_of(draft.body)),
        "remarks": list(draft.remarks),
        "why": "",
        "made": _made(draft),
    }


def sequential(draft: Draft, counter: Counter, why: str) -> dict[str, Any]:
    """The content of an example that does not fork; `why` says so."""
    turn = sequential_turn(draft.example)
    flat = (Text(0, len(draft.sentences)),)
    tokens, found = check_structure(turn, flat, counter.tokenizer, counter.tags)
    return {
        **_common(draft.example, "sequential", turn, tokens, found, counter),
        "branches": [],
        "remarks": [],
        "why": why,
        "made": _made(draft),
    }


def _common(
    example: Example, kind: Kind, turn: str, tokens: int, found: Statistics, counter: Counter
) -> dict[str, Any]:
    question = break_tags(example.question, MULTIVERSE)
    return {
        "kind": kind,
        "question": question,
        "tokens": tokens + len(counter.tokenizer.encode(question, add_special_tokens=False)),
        "reference": example.reference,
        "parallel": turn,
        "sequential": sequential_turn(example),
        "answer_tokens": tokens,
        "critical_path_tokens": found.critical_path_tokens,
        "depth": found.depth,
    }


def _made(draft: Draft) -> dict[str, Any]:
    """What the stages found, for `show`."""
    graph = draft.graph
    final = draft.rewritten or draft.plan
    return {
        "sentences": list(draft.sentences),
        "steps": [
            [step.id, step.title, [[child.id, child.title] for child in step.children]]
            for step in draft.steps
        ],
        "edges": {
            "": sorted(graph.main) if graph else [],
            **({name: sorted(edges) for name, edges in graph.inner.items()} if graph else {}),
        },
        "tree": plain_tree(draft.body),
        "outlines": [list(some) for some in final.outlines] if final else [],
        "conclusions": list(final.conclusions) if final else [],
        "changed": {str(n): text for n, text in final.sentences.items()} if final else {},
    }


def plain_tree(body: Body) -> list[Any]:
    """The tree as JSON: a stretch is `[lo, hi]`, a block `{"paths": […]}`."""
    return [
        {"paths": [plain_tree(path) for path in part.paths]}
        if isinstance(part, Block)
        else [part.lo, part.hi]
        for part in body
    ]
