"""Puts the playground on SGLang's HTTP server: the one place where routes are added.

A server whose model has no tags, or that is started with `--no-multiverse-playground`, gets none.
The page's own files hold nothing that is secret and are served without the API key, because a
browser that opens an address has none to send; what the page then asks for needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .support import support_of

PAGE = "/playground"
_READS = ("GET", "HEAD")

logger = logging.getLogger(__name__)


def before_serving(server_args: Any, tokenizer_manager: Any, *_: Any, **__: Any) -> None:
    """Hook: add the routes once SGLang has all that they answer from."""
    # With several HTTP processes SGLang answers from an app in each of them, see `in_worker`.
    if tokenizer_manager is not None and server_args.tokenizer_worker_num == 1:
        _add_where_wanted(tokenizer_manager)


async def in_worker(original: Callable[[], Awaitable[Any]]) -> Any:
    """Hook around what one of several HTTP processes begins with: add the routes to its app."""
    from sglang.srt.entrypoints.http_server import get_global_state

    server_args = await original()
    _add_where_wanted(get_global_state().tokenizer_manager)
    return server_args


def _add_where_wanted(manager: Any) -> None:
    from sglang.srt.entrypoints.http_server import app

    support = support_of(manager)
    args = support.server
    if support.dialect is not None and args.playground and args.replay is None:
        add_routes(app, manager)
        logger.info("Playground at %s", PAGE)


def add_routes(app: Any, manager: Any) -> None:
    """Add the page to a FastAPI application that answers from this tokenizer manager."""
    from starlette.responses import JSONResponse, Response

    from sglang_multiverse.playground import page_config, page_files
    from sglang_multiverse.playground.bundle import offline_template
    from sglang_multiverse.playground.files import HEADERS, INDEX

    async def to_folder(_: Any) -> Response:
        # The way there is relative, so that it holds behind a proxy that adds a prefix.
        return Response(status_code=307, headers={"Location": PAGE.lstrip("/") + "/"})

    async def config(_: Any) -> Response:
        context = getattr(manager.model_config, "context_len", None)
        server = support_of(manager).server
        return JSONResponse(page_config(server, manager.served_model_name, context))

    async def offline(_: Any) -> Response:
        # The template of a shared file: the page fetches it as text, nobody opens it here.
        return Response(offline_template(), media_type="text/plain", headers=HEADERS)

    async def page(request: Any) -> Response:
        file = page_files().get(request.path_params["name"] or INDEX)
        if file is None:
            return Response("Not Found", status_code=404, media_type="text/plain")
        return Response(file.body, media_type=file.media, headers=HEADERS)

    for path, answer in (
        (PAGE, to_folder),
        (f"{PAGE}/config", config),
        (f"{PAGE}/offline", offline),
        (PAGE + "/{name:path}", page),
    ):
        app.add_route(path, answer, methods=["GET"], include_in_schema=False)


def is_public(path: str, root: str) -> bool:
    """Whether a path, on a server mounted at `root`, is one of the page's own files."""
    from sglang_multiverse.playground import page_files
    from sglang_multiverse.playground.files import INDEX

    page = root.rstrip("/") + PAGE
    if path in (page, f"{page}/"):
        return True
    name = path.removeprefix(f"{page}/")
    return path.startswith(f"{page}/") and (name == INDEX or name in page_files())


def allow_page(original: Callable[..., Any], *, method: str, path: str, **rest: Any) -> Any:
    """Hook: the page's own files need no API key."""
    from sglang.srt.runtime_context import get_serving
    from sglang.srt.utils.auth import AuthDecision

    if method in _READS and is_public(path, get_serving().fastapi_root_path or ""):
        return AuthDecision(allowed=True)
    return original(method=method, path=path, **rest)
