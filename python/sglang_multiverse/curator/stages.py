"""The five stages: what each asks, and how its answer becomes part of the draft."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .checks import (
    path_remarks,
    plain_problems,
    rewriting_problems,
    wording_problems,
    wording_remarks,
)
from .draft import Draft, Rules
from .errors import RejectedError
from .render import Wording, named_blocks
from .schema import Answer, Dependencies, Outline, Plan, Plans, Refill, Rewrite
from .steps import make_graph, number_steps, walk_steps
from .tree import Block, extent, grow, place_sentences

_LABEL = re.compile(r"^\s*(?:\d+(?:\.\d+)*|G\d+(?:\.\d+)+)\s*:\s+")


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the five.

    Attributes:
        number: 1 to 5; `name` is also that of its prompt.
        found: sections for the prompt, from what earlier stages found.
        read: the draft with the answer in it.
            Raises `RejectedError` where the answer cannot be used.
        remarks: what could be better; said to the model once, then accepted.
    """

    number: int
    name: str
    schema: type[Answer]
    found: Callable[[Draft], list[str]]
    read: Callable[[Draft, Answer, Rules], Draft]
    remarks: Callable[[Draft], list[str]] = lambda _: []


def _nothing(_: Draft) -> list[str]:
    return []


def _read_outline(draft: Draft, answer: Answer, _: Rules) -> Draft:
    assert isinstance(answer, Outline)
    return replace(draft, steps=number_steps(answer))


def _steps(draft: Draft) -> list[str]:
    lines = [
        f"{'  ' if '.' in step.id else ''}{step.id}: {step.title}"
        for step in walk_steps(draft.steps)
    ]
    return ["# Steps\n\n" + "\n".join(lines)]


def _read_graph(draft: Draft, answer: Answer, _: Rules) -> Draft:
    assert isinstance(answer, Dependencies)
    return replace(draft, graph=make_graph(draft.steps, answer.edges))


def _read_refill(draft: Draft, answer: Answer, rules: Rules) -> Draft:
    assert isinstance(answer, Refill)
    assert draft.graph is not None
    places = place_sentences(draft.steps, answer.spans, len(draft.sentences))
    weights = [len(sentence) for sentence in draft.sentences]
    return replace(draft, body=grow(draft.steps, draft.graph, places, weights, rules.limits))


def _groups(draft: Draft) -> list[str]:
    lines = []
    for rank, place in enumerate(named_blocks(draft.body)):
        lines.append(f"{place.id}")
        for i, (path, inner) in enumerate(place.paths):
            whole = extent(inner)
            line = f"  {path}: sentences {whole.lo + 1} to {whole.hi}"
            if draft.plan is not None:
                line += f"; outline: {draft.plan.outlines[rank][i]}"
            lines.append(line)
        if draft.plan is not None:
            lines.append(f"  conclusion: {draft.plan.conclusions[rank]}")
    return ["# Groups\n\n" + "\n".join(lines)]


def _read_plans(draft: Draft, answer: Answer, _: Rules) -> Draft:
    assert isinstance(answer, Plans)
    places = {place.id: place for place in named_blocks(draft.body)}
    given: dict[str, Plan] = {}
    problems = []
    for plan in answer.groups:
        if plan.group not in places:
            problems.append(f"groups: there is no group {plan.group!r}")
        elif plan.group in given:
            problems.append(f"groups: {plan.group} is there twice")
        elif len(plan.outlines) != (due := len(places[plan.group].block.paths)):
            problems.append(f"groups: {plan.group} has {due} paths, not {len(plan.outlines)}")
        given[plan.group] = plan
    problems += [f"groups: {name} is left out" for name in places if name not in given]
    if problems:
        raise RejectedError(problems)
    wording = Wording(
        tuple(tuple(_unlabelled(o) for o in given[name].outlines) for name in places),
        tuple(given[name].conclusion.strip() for name in places),
    )
    _hold(wording_problems(draft.example.question, draft.sentences, draft.body, wording))
    return replace(draft, plan=wording)


def _unlabelled(outline: str) -> str:
    return _LABEL.sub("", outline).strip()


def _read_rewrite(draft: Draft, answer: Answer, rules: Rules) -> Draft:
    assert isinstance(answer, Rewrite)
    assert draft.plan is not None
    places = named_blocks(draft.body)
    inside = {n for place in places for n in _numbers(place.block)}
    outlines = [list(some) for some in draft.plan.outlines]
    conclusions = list(draft.plan.conclusions)
    at = {path: (g, i) for g, p in enumerate(places) for i, (path, _) in enumerate(p.paths)}
    groups = {place.id: g for g, place in enumerate(places)}
    changed: dict[int, str] = {}
    problems = []
    for sentence in answer.sentences:
        name = f"sentence {sentence.number}"
        if sentence.number - 1 not in inside:
            problems.append(f"{name}: is in no path; leave it as it is")
        if sentence.number - 1 in changed:
            problems.append(f"{name}: is there twice")
        problems += plain_problems(name, sentence.text)
        changed[sentence.number - 1] = sentence.text
    for outline in answer.outlines:
        if outline.path not in at:
            problems.append(f"outlines: there is no path {outline.path!r}")
        else:
            group, path = at[outline.path]
            outlines[group][path] = _unlabelled(outline.text)
    for conclusion in answer.conclusions:
        if conclusion.group not in groups:
            problems.append(f"conclusions: there is no group {conclusion.group!r}")
        else:
            conclusions[groups[conclusion.group]] = conclusion.text.strip()
    _hold(problems)
    question, sentences = draft.example.question, draft.sentences
    wording = Wording(tuple(map(tuple, outlines)), tuple(conclusions), changed)
    problems = wording_problems(question, sentences, draft.body, wording)
    problems += rewriting_problems(question, sentences, draft.body, changed, rules.max_edit)
    _hold(problems)
    # What was remarked of the plan was remarked of words that may be others now.
    return replace(draft, rewritten=wording, remarks=())


def _numbers(block: Block) -> range:
    whole = extent((block,))
    return range(whole.lo, whole.hi)


def _hold(problems: Sequence[str]) -> None:
    if problems:
        raise RejectedError(problems)


def _plan_remarks(draft: Draft) -> list[str]:
    assert draft.plan is not None
    return wording_remarks(draft.sentences, draft.body, draft.plan)


def _rewrite_remarks(draft: Draft) -> list[str]:
    assert draft.rewritten is not None
    some = draft.sentences, draft.body
    return [
        *wording_remarks(*some, draft.rewritten),
        *path_remarks(*some, draft.rewritten.sentences),
    ]


STAGES = (
    Stage(1, "outline", Outline, _nothing, _read_outline),
    Stage(2, "graph", Dependencies, _steps, _read_graph),
    Stage(3, "refill", Refill, _steps, _read_refill),
    Stage(4, "plan", Plans, _groups, _read_plans, _plan_remarks),
    Stage(5, "rewrite", Rewrite, _groups, _read_rewrite, _rewrite_remarks),
)
