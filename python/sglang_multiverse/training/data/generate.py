"""One conversation from a seed: kind, family, tasks, wording and solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from .answers import answer_line, labelled
from .blocks import block
from .chat import follow_up, follow_ups, greeting, small_talk
from .conversation import CHAT, KINDS, MIXED, SPLITS, Answer, Conversation, Kind, Split, Turn
from .families import FAMILIES, Task
from .layouts import NUMBERS, clause, compose, sentence
from .steps import OPENING, ask, chain

WEIGHTS: dict[Kind, int] = {"flat": 48, "nested": 12, "sequential": 14, "single": 16, "chat": 10}
PARTS = range(2, 7)
PART_WEIGHTS = (5, 5, 4, 2, 1)
GREETED = 0.1
"""The share of problems that follow a greeting."""
# Parts of a nested problem, by how many sub-parts each has; one of three parts is the rarer case.
SIZES = ((2, 1), (1, 2), (2, 1), (1, 2), (2, 2), (2, 1, 1), (1, 2, 1), (1, 1, 2), (3, 1))
NESTED_HEADERS = (
    "Answer each part:",
    "Please solve this sheet:",
    "Here are my tasks, some with parts of their own:",
    "Work on all of these:",
)


def families_of(kind: Kind) -> tuple[str, ...]:
    """The families that a conversation of this kind may have."""
    if kind == "chat":
        return (CHAT,)
    return (*FAMILIES, MIXED) if kind in ("flat", "nested") else tuple(FAMILIES)


def generate(
    seed: int, split: Split, kind: Kind | None = None, family: str | None = None
) -> Conversation:
    """The conversation of this seed; kind and family are drawn where not given.

    Raises:
        ValueError: the split, the kind or the family is none of those there are.
    """
    if split not in SPLITS:
        raise ValueError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    rng = Random(f"{split}/{kind}/{family}/{seed}")
    drawn = kind or _draw_kind(rng, family)
    if family is not None and family not in families_of(drawn):
        raise ValueError(
            f"family: {family!r} is not one of {', '.join(families_of(drawn))} "
            f"for a conversation of kind {drawn!r}"
        )
    match drawn:
        case "chat":
            return _chat(rng, seed, split)
        case "single":
            made = _single(rng, seed, split, family or rng.choice(tuple(FAMILIES)))
        case "sequential":
            made = _sequential(rng, seed, split, family or rng.choice(tuple(FAMILIES)))
        case "flat":
            made = _flat(rng, seed, split, family)
        case _:
            made = _nested(rng, seed, split, family)
    return _greeted(made, Turn(*greeting(rng))) if rng.random() < GREETED else made


def _draw_kind(rng: Random, family: str | None) -> Kind:
    possible = [kind for kind in KINDS if family is None or family in families_of(kind)]
    if not possible:
        known = ", ".join((*FAMILIES, MIXED, CHAT))
        raise ValueError(f"family: {family!r} is not one of {known}")
    return rng.choices(possible, weights=[WEIGHTS[kind] for kind in possible])[0]


def _greeted(made: Conversation, turn: Turn) -> Conversation:
    return replace(made, history=(turn,))


def _chat(rng: Random, seed: int, split: Split) -> Conversation:
    """Small talk, or a polite follow-up to a problem."""
    history: tuple[Turn, ...] = ()
    if follow_ups(split) and rng.random() < 0.25:
        problem = _single(rng, seed, split, rng.choice(tuple(FAMILIES)))
        history = (Turn(problem.prompt, problem.solution),)
        prompt, answer = follow_up(rng, split)
    else:
        prompt, answer = small_talk(rng, split)
    return Conversation(CHAT, "chat", seed, split, prompt, answer, history=history)


def _single(rng: Random, seed: int, split: Split, family: str) -> Conversation:
    task = FAMILIES[family].task(rng, split)
    answers = (Answer("", task.family, task.result, task.entry),)
    solution = f"{task.work}\n{answer_line(answers)}"
    return Conversation(
        family, "single", seed, split, sentence(task.request), solution, answers=answers
    )


def _sequential(rng: Random, seed: int, split: Split, family: str) -> Conversation:
    steps = chain(rng, split, family)
    answers = (Answer("", steps.family, steps.result, steps.entry),)
    work = [f"Step {i}: {text}." for i, text in enumerate(steps.work, 1)]
    solution = "\n".join([OPENING, *work, answer_line(answers)])
    prompt = ask(rng, steps.requests)
    return Conversation(family, "sequential", seed, split, prompt, solution, answers=answers)


def _tasks(rng: Random, split: Split, family: str | None, count: int) -> list[Task]:
    """Different tasks: of one family, or of at least two for `mixed`; either where it is `None`."""
    if family is None:
        family = MIXED if rng.random() < 0.5 else rng.choice(tuple(FAMILIES))
    names = [family] * count
    while family == MIXED and len(set(names)) == 1:
        names = rng.choices(tuple(FAMILIES), k=count)
    tasks: list[Task] = []
    while len(tasks) < count:
        task = FAMILIES[names[len(tasks)]].task(rng, split)
        if task.outline not in (other.outline for other in tasks):
            tasks.append(task)
    return tasks


def _family(tasks: Sequence[Task]) -> str:
    names = {task.family for task in tasks}
    return names.pop() if len(names) == 1 else MIXED


def _flat(rng: Random, seed: int, split: Split, family: str | None) -> Conversation:
    tasks = _tasks(rng, split, family, rng.choices(PARTS, weights=PART_WEIGHTS)[0])
    answers = tuple(_answer(str(i), task) for i, task in enumerate(tasks, 1))
    text = block([t.outline for t in tasks], [t.work for t in tasks], answer_line(answers))
    return Conversation(
        _family(tasks),
        "flat",
        seed,
        split,
        compose(rng, [task.request for task in tasks]),
        text,
        branches=(len(tasks),),
        answers=answers,
    )


def _nested(rng: Random, seed: int, split: Split, family: str | None) -> Conversation:
    """Two or three parts, of which one or two have sub-parts."""
    sizes = rng.choice(SIZES)
    tasks = _tasks(rng, split, family, sum(sizes))
    waiting = iter(tasks)
    requests, outlines, paths = [], [], []
    answers: list[Answer] = []
    for i, size in enumerate(sizes, 1):
        part = [next(waiting) for _ in range(size)]
        if size == 1:
            answers.append(_answer(str(i), part[0]))
            requests.append(part[0].request)
            outlines.append(part[0].outline)
            paths.append(part[0].work)
            continue
        inner = tuple(_answer(f"{i}.{j}", task) for j, task in enumerate(part, 1))
        answers.extend(inner)
        requests.append(_grouped(part))
        outlines.append(f"{NUMBERS[size]} parts")
        result = labelled(inner)
        nested = block(
            [t.outline for t in part], [t.work for t in part], f"{result}.", parent=f"{i}."
        )
        paths.append(nested)
    text = block(outlines, paths, answer_line(answers))
    return Conversation(
        _family(tasks),
        "nested",
        seed,
        split,
        "\n".join([rng.choice(NESTED_HEADERS), *(f"{i}. {r}" for i, r in enumerate(requests, 1))]),
        text,
        branches=(len(sizes), *(size for size in sizes if size > 1)),
        answers=tuple(answers),
    )


def _grouped(tasks: Sequence[Task]) -> str:
    """`(a) work out 3 + 4; (b) sort 3, 1, 2 in ascending order.`"""
    marked = [f"({'abc'[j]}) {clause(task.request)}" for j, task in enumerate(tasks)]
    return "; ".join(marked) + "."


def _answer(label: str, task: Task) -> Answer:
    return Answer(label, task.family, task.result, task.entry)
