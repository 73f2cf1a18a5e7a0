"""The curator at work on bundled examples, with a stand-in for the model."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..config import RunConfig
from .known import Known, take_apart
from .server import Response, Server, completion, problems_of, question_of, stage_of


def bundled() -> list[Known]:
    """The example chains, with what a good model would answer."""
    lines = (files(__package__) / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for line in lines:
        row = json.loads(line)
        known = Known(row["question"], take_apart(row["text"]), row["answer"], row["rewrites"])
        found.append(known)
    return found


def serving(known: Iterable[Known]) -> Server:
    """An endpoint that answers every stage about these chains as a good model would."""
    by_question = {one.question.strip(): one for one in known}

    async def respond(request: dict[str, Any]) -> Response:
        answer = by_question[question_of(request)].answers(stage_of(request), problems_of(request))
        return completion(json.dumps(answer), request)

    return Server(respond)


def write_source(known: Iterable[Known], path: Path) -> None:
    """The chains as a source of the curator."""
    with path.open("w", encoding="utf-8") as lines:
        for number, one in enumerate(known, 1):
            row = {
                "id": f"example-{number}",
                "question": one.question,
                "thinking": one.chain,
                "answer": one.answer,
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def demo(out: Path | None = None) -> int:
    """Curate the bundled chains, and show the first; they are kept if `out` is given."""
    from ..__main__ import main, run  # which import this room only when they are asked to

    with contextlib.ExitStack() as stack:
        kept = out is not None
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        known = bundled()
        source, results = folder / "chains.jsonl", folder / "curated"
        write_source(known, source)
        server = stack.enter_context(serving(known))
        print(f"{len(known)} chains; a stand-in with known answers plays the model.\n")
        code, _ = run(str(source), results, RunConfig(base_url=server.url, plots=False))
        print()
        code = code or main(["show", "--out", str(results)])
    if kept:
        command = f"python -m sglang_multiverse.curator show example-2 --out {results}"
        print(f"All of it is in {folder}. The next example: {command}")
    else:
        print('Nothing is kept. ARGS="--out DIR" keeps it, and shows how to see the others.')
    return code
