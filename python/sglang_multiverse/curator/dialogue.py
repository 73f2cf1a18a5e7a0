"""One stage of one example: ask, validate, send back what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pydantic import ValidationError

from .config import StageSettings
from .draft import Draft, Rules
from .errors import RejectedError, StageFailedError
from .prompt import FIRST, Attempt, messages, repair
from .request import Reply, Request
from .schema import Answer, json_schema
from .stages import Stage

Asking = Callable[[Request, int], Awaitable[Reply]]
"""A request and the number of the attempt, from 0."""

MOST_SAID_BACK = 6000
"""Characters of a bad answer that the model sees again."""
MOST_TRIED = 50
"""Opening braces at which an answer is looked for, so that a text of braces takes no time."""


async def converse(
    stage: Stage,
    draft: Draft,
    rules: Rules,
    settings: StageSettings,
    ask: Asking,
    *,
    repairs: int,
    before: Attempt = FIRST,
) -> Draft:
    """The draft with this stage's answer in it.

    An answer that cannot be used goes back to the model with what is wrong.
    One that could be better goes back once; if no better one comes, it is
    taken, and what could be better is in the draft's remarks.

    Raises:
        StageFailedError: no answer could be used.
    """
    known = stage.found(draft)
    opening = messages(stage.name, draft.example.question, draft.sentences, known, before)
    schema = json_schema(stage.schema)
    said = opening
    usable: Draft | None = None
    problems: tuple[str, ...] = ()
    for attempt in range(repairs + 1):
        reply = await ask(Request(stage.name, settings, said, schema, before.rounds), attempt)
        try:
            found = stage.read(draft, read_answer(reply.text, stage.schema), rules)
            remarks = tuple(stage.remarks(found))
        except RejectedError as error:
            problems = error.problems
            if reply.finish == "length":
                problems = (f"the answer was cut after {reply.completion_tokens} tokens", *problems)
            fits = False
        else:
            fits = True
            asked_before = usable is not None
            tagged = tuple(f"{stage.name}: {remark}" for remark in remarks)
            usable = replace(found, remarks=(*found.remarks, *tagged))
            if not remarks or asked_before:
                return usable
            problems = remarks
        bad = {"role": "assistant", "content": reply.text[:MOST_SAID_BACK]}
        said = [*opening, bad, repair(problems, usable=fits)]
    if usable is None:
        raise StageFailedError(stage.name, "; ".join(problems[:5]), "\n\n".join(known))
    return usable


def read_answer(text: str, schema: type[Answer]) -> Answer:
    """The answer in a text; thoughts, prose and fences around it are passed over.

    Raises:
        RejectedError: no JSON object in it is of the schema.
    """
    text = text.rpartition("</think>")[2]
    decoder = json.JSONDecoder()
    first: ValidationError | None = None
    broken = "the answer holds no JSON object"
    at, tries = text.find("{"), 0
    while at >= 0 and tries < MOST_TRIED:
        tries += 1
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            broken = f"the answer is no JSON: {error}"
            end = at + 1
        else:
            try:
                found = schema.model_validate(value)
                found.model_dump_json().encode()
            except ValidationError as error:
                first = first or error
            except ValueError:  # half of a surrogate pair, which no file can hold
                broken = "the answer holds characters that are none"
            else:
                return found
        at = text.find("{", end)
    if first is None:
        raise RejectedError([broken])
    raise RejectedError(
        [f"{'.'.join(map(str, e['loc'])) or 'the answer'}: {e['msg']}" for e in first.errors()[:10]]
    )
