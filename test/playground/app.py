"""The page on a server of its own: SGLang's frame, the real routes, and a scripted model behind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, StreamingResponse

from demo.pieces import SUMMARY
from sglang_multiverse.demo.transcript import Transcript
from sglang_multiverse.engine.http.page import add_routes
from sglang_multiverse.engine.http.support import Support
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.structure import MULTIVERSE, Dialect


def manager(args: MultiverseArgs | None = None, dialect: Dialect | None = MULTIVERSE) -> Any:
    """As much of SGLang's tokenizer manager as the page asks."""
    return SimpleNamespace(
        multiverse_support=Support(args or MultiverseArgs(), dialect),
        served_model_name="scripted",
        model_config=SimpleNamespace(context_len=4096),
    )


def page_app(args: MultiverseArgs | None = None) -> FastAPI:
    app = FastAPI()
    add_routes(app, manager(args))
    return app


# --- a scripted model behind it ----------------------------------------------

Piece = tuple[str, str]


def block(paths: int, words: int, above: str = "") -> list[Piece]:
    """A block of `paths` branches that write side by side, `words` words each."""
    labels = [f"{above}{i}" for i in range(1, paths + 1)]
    holder = above.rstrip(".")
    plan = "".join(f"<Outline>\n{label}: part {label}\n</Outline>\n" for label in labels)
    pieces = [(holder, f"<Parallel>\n<Goal>\n{plan}</Goal>")]
    pieces += [(label, f"\n<Path>\n{label}:") for label in labels]
    for at in range(words):
        end = "\n" if at % 12 == 11 else ""
        pieces += [(label, f" word{at}{end}") for label in labels]
    pieces += [(label, "\n</Path>") for label in labels]
    return [*pieces, (holder, "\n<Conclusion>\nall of it\n</Conclusion>\n</Parallel>\n")]


HOSTILE = '<img src=x onerror="window.hit=1"><script>window.hit=1</script><b>bold</b>'
SCRIPTS: dict[str, list[Piece]] = {
    "sixteen": [("", "So.\n"), *block(16, 6), ("", "Done.")],
    "nested": [
        ("", "Let's think.\n"),
        (
            "",
            "<Parallel>\n<Goal>\n<Outline>\n1: one\n</Outline>\n"
            "<Outline>\n2: two\n</Outline>\n</Goal>",
        ),
        ("1", "\n<Path>\n1: first"),
        ("2", "\n<Path>\n2: second "),
        *block(2, 5, "2."),
        ("1", " done\n</Path>"),
        ("2", "\n</Path>"),
        ("", "\n<Conclusion>\nboth\n</Conclusion>\n</Parallel>\nThe end."),
    ],
    "long": [("", "Long.\n"), *block(4, 2500), ("", "Done.")],
    "hostile": [("", HOSTILE), *block(2, 2), ("", HOSTILE)],
    "maths": [("", r"It is \(\frac{1}{2}\) and $x^2$, for \(\broken{\) dollars." + "\n")],
    "slow": [("", "Slow.\n"), *block(3, 400), ("", "Done.")],
}


def linear(script: str) -> str:
    """The text of a script, its branches in the order of the plan."""
    transcript = Transcript()
    for path, text in SCRIPTS[script]:
        transcript.add(path, text)
    return transcript.text


REFUSED = "multiverse.max_depth=9: allowed: an integer in [1, 4]"


def scripted_app(args: MultiverseArgs | None = None) -> FastAPI:
    """The page with a model that answers a question by the script it names,
    `name [seconds to wait [after how many pieces]]`, or `name hold PATH`: it waits after the first
    word of that branch until `app.state.go` is set, so that a test can look in its own time.

    `app.state.gone` counts the clients that went away before the end.
    """
    app = page_app(args)
    app.state.gone, app.state.asked, app.state.go = 0, [], threading.Event()

    async def chat(request: Any) -> Any:
        body = await request.json()
        app.state.asked.append(body)
        name, *rest = body["messages"][-1]["content"].split()
        held = rest.pop() if rest[:1] == ["hold"] else None
        pause, every = (*rest, *("0", "1")[len(rest) :]) if held is None else ("0", "1")
        if name == "refused":
            return JSONResponse({"object": "error", "message": REFUSED}, status_code=400)
        pieces = events(name, float(pause), int(every), held)
        return StreamingResponse(pieces, media_type="text/event-stream")

    async def events(name: str, pause: float, every: int, held: str | None) -> Any:
        complete = False
        try:
            for at, (path, text) in enumerate(SCRIPTS.get(name, [("", f"You said {name}.")])):
                choice = {"index": 0, "delta": {"content": text}, "multiverse": {"path": path}}
                yield f"data: {json.dumps({'choices': [choice]})}\n\n"
                if at % every == 0:
                    await asyncio.sleep(pause)
                if path == held and "word0" in text:
                    while not app.state.go.is_set():  # noqa: ASYNC110  # by another thread
                        await asyncio.sleep(0.01)
                    app.state.go.clear()
            last = {"index": 0, "delta": {}, "finish_reason": "stop", "multiverse": SUMMARY}
            yield f"data: {json.dumps({'choices': [last]})}\n\n"
            yield "data: [DONE]\n\n"
            complete = True
        finally:
            app.state.gone += not complete

    async def tokenize(request: Any) -> Any:
        prompts = (await request.json())["prompt"]
        return JSONResponse({"count": [len(text.split()) for text in prompts]})

    app.add_route("/v1/chat/completions", chat, methods=["POST"])
    app.add_route("/v1/tokenize", tokenize, methods=["POST"])
    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of a server that runs beside the test."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
