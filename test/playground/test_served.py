"""What the server sends of the page, to whom, and when it sends none."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from playground.app import manager, page_app
from sglang_multiverse.engine.http import page
from sglang_multiverse.engine.options import MultiverseArgs, RequestOptions
from sglang_multiverse.playground import page_files
from sglang_multiverse.playground.files import INDEX
from sglang_multiverse.structure import Dialect


@pytest.fixture
def client() -> TestClient:
    return TestClient(page_app(), follow_redirects=False)


def test_the_page_and_all_that_it_names_is_there(client: TestClient) -> None:
    assert client.get("/playground").headers["location"] == "playground/"
    index = client.get("/playground/")
    assert index.status_code == 200 and "<!doctype html>" in index.text
    assert {"style.css", "js/main.js", "js/offline.js", "vendor/katex.min.js"} <= set(page_files())
    for name, file in page_files().items():
        answer = client.get(f"/playground/{name}")
        assert answer.status_code == 200 and answer.content == file.body
        assert answer.headers["content-type"] == file.media
        assert client.head(f"/playground/{name}").status_code == 200


def test_nothing_else_is_served(client: TestClient) -> None:
    for name in ("nothing", "../files.py", "%2e%2e/files.py", "js/../../files.py", "js", "vendor/"):
        assert client.get(f"/playground/{name}").status_code == 404
    assert client.post("/playground/").status_code == 405


def test_every_file_comes_with_a_strict_policy(client: TestClient) -> None:
    for name in ("", "style.css", "js/main.js", "offline"):
        headers = client.get(f"/playground/{name}").headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_script_style_or_address_of_its_own() -> None:
    text = page_files()[INDEX].body.decode()
    assert "<script>" not in text and "<style" not in text and " style=" not in text
    assert "http://" not in text and "https://" not in text
    for name, file in page_files().items():
        if name.startswith("js/"):
            code = file.body.decode().replace("http://www.w3.org/2000/svg", "")
            assert "http" not in code.replace("HTTP", ""), name
            assert "innerHTML" not in code and "insertAdjacentHTML" not in code, name


def test_the_ranges_are_the_servers() -> None:
    args = MultiverseArgs(max_depth=2, guard=False, max_path_tokens=512)
    config = TestClient(page_app(args)).get("/playground/config").json()
    assert (config["model"], config["context"]) == ("scripted", 4096)
    options = {option["name"]: option for option in config["options"]}
    assert set(options) <= set(RequestOptions.model_fields)
    assert (options["max_depth"]["least"], options["max_depth"]["most"]) == (1, 2)
    assert (options["max_path_tokens"]["least"], options["max_path_tokens"]["most"]) == (16, 512)
    assert options["max_critical_tokens"]["value"] is None
    assert options["guard"]["value"] is False and "most" not in options["guard"]
    for option in config["options"]:
        if "most" in option:  # what the page allows, the server takes; one more it refuses
            RequestOptions.parse({option["name"]: option["most"]}, args)
            with pytest.raises(ValueError, match=option["name"]):
                RequestOptions.parse({option["name"]: option["most"] + 1}, args) if (
                    getattr(args, option["name"]) is not None
                ) else RequestOptions.parse({option["name"]: option["least"] - 1}, args)


def routes(
    args: MultiverseArgs,
    dialect: Dialect | None,
    monkeypatch: pytest.MonkeyPatch,
    workers: int = 1,
) -> set[str]:
    from sglang.srt.entrypoints import http_server

    app = FastAPI()
    monkeypatch.setattr(http_server, "app", app)
    server_args = SimpleNamespace(tokenizer_worker_num=workers)
    page.before_serving(server_args, manager(args, dialect), None)
    return {getattr(route, "path", "") for route in app.routes}


def test_it_is_put_on_sglangs_server_unless_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sglang_multiverse.structure import MULTIVERSE

    assert "/playground" in routes(MultiverseArgs(), MULTIVERSE, monkeypatch)
    assert "/playground" not in routes(MultiverseArgs(playground=False), MULTIVERSE, monkeypatch)
    assert "/playground" not in routes(MultiverseArgs(), None, monkeypatch)
    assert "/playground" not in routes(MultiverseArgs(), MULTIVERSE, monkeypatch, workers=2)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server with an API key, as SGLang guards it and the hook lets the page through."""
    from sglang.srt import runtime_context
    from sglang.srt.utils import auth

    serving = SimpleNamespace(fastapi_root_path="")
    monkeypatch.setattr(runtime_context, "get_serving", lambda: serving)
    monkeypatch.setattr(
        auth, "decide_request_auth", partial(page.allow_page, auth.decide_request_auth)
    )
    app = page_app()
    app.add_route("/v1/models", lambda request: None)
    auth.add_api_key_middleware(app, api_key="secret", admin_api_key=None)
    return TestClient(app, follow_redirects=False)


def test_the_page_comes_without_the_key_and_nothing_else_does(locked: TestClient) -> None:
    for open_ in (
        "/playground",
        "/playground/",
        "/playground/js/main.js",
        "/playground/index.html",
    ):
        assert locked.get(open_).status_code in (200, 307)
    for closed in (
        "/playground/config",
        "/playground/offline",
        "/playground/nothing",
        "/v1/models",
        "/v1/models/playground/style.css",
        "/playground/../v1/models",
    ):
        assert locked.get(closed).status_code == 401, closed
    assert locked.post("/playground/").status_code == 401
    headers = {"Authorization": "Bearer secret"}
    assert locked.get("/playground/config", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("path", "root", "public"),
    [
        ("/playground", "", True),
        ("/a/playground/style.css", "/a", True),
        ("/a/playground/style.css", "/a/", True),
        ("/playground/style.css", "/a", False),
        ("/playgroundx", "", False),
        ("/playground/config", "", False),
        ("/playground/js", "", False),
    ],
)
def test_what_is_public(path: str, root: str, public: bool) -> None:
    assert page.is_public(path, root) is public


def test_the_flag_is_a_flag() -> None:
    from sglang_multiverse.launch_server import split_arguments

    args: Any = split_arguments(["--no-multiverse-playground"], {})[0]
    assert args == MultiverseArgs(playground=False)
    assert split_arguments([], {})[0].playground is True
