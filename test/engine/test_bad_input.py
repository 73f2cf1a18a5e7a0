"""What a client must not send, what it may send, and what it does when it goes away."""

from __future__ import annotations

import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from asking import chat_ids, check_idle, user
from models import problems
from server import Server
from sglang_multiverse.engine.requirements import UnsupportedError, refuse_unsupported
from sglang_multiverse.engine.upstream import APP_PATH_ENV, WORKER_APP
from sglang_multiverse.structure import MULTIVERSE, TagTable, parse

TAGS = MULTIVERSE.tags


def post(server: Server, route: str, **body: Any) -> httpx.Response:
    """One short answer of any of the three routes to the same prompt."""
    prompt = body.pop("prompt", "Amy has 2 apples.")
    if route == "/generate":
        asked = {"text": prompt, "sampling_params": {"max_new_tokens": 8}}
    elif route == "/v1/completions":
        asked = {"model": "m", "prompt": prompt, "max_tokens": 8}
    else:
        asked = {"model": "m", "messages": user(prompt), "max_tokens": 8}
    return server.http.post(route, json={**asked, **body})


ROUTES = ("/generate", "/v1/completions", "/v1/chat/completions")


# --- options -----------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_bad_options_are_refused_by_name_and_range(
    server: Server, route: str, stream: bool
) -> None:
    bad: list[tuple[object, list[str]]] = [
        ({"max_dept": 2}, ["multiverse.max_dept", "unknown", "max_depth"]),
        ({"max_depth": 0}, ["multiverse.max_depth=0", "[1, 4]"]),
        ({"max_depth": 5}, ["multiverse.max_depth=5", "[1, 4]"]),
        ({"max_depth": "2"}, ["multiverse.max_depth", "[1, 4]"]),
        ({"max_depth": True}, ["multiverse.max_depth", "[1, 4]"]),
        ({"max_branches": 17}, ["multiverse.max_branches=17", "[1, 16]"]),
        ({"max_total_branches": -1}, ["multiverse.max_total_branches=-1", "[1, 256]"]),
        ({"max_parallel_branches": 1.5}, ["multiverse.max_parallel_branches=1.5", "[1, 256]"]),
        ({"max_path_tokens": 15}, ["multiverse.max_path_tokens=15", "[16, "]),
        ({"max_critical_tokens": 0}, ["multiverse.max_critical_tokens=0", "[1, "]),
        ({"guard": 1}, ["multiverse.guard=1", "true or false"]),
        ({"stream": "tree"}, ["multiverse.stream", "linear", "branches"]),
        ("deep", ["multiverse", "object"]),
    ]
    for options, named in bad:
        answer = post(server, route, multiverse=options, stream=stream)
        assert answer.status_code == 400, (options, answer.text)
        told = answer.json()
        message = told["error"]["message"] if "error" in told else told["message"]
        for words in named:
            assert words in message, (options, message)
    check_idle(server)


@pytest.mark.server
@pytest.mark.parametrize("route", ROUTES)
def test_live_branches_need_a_stream(server: Server, route: str) -> None:
    answer = post(server, route, multiverse={"stream": "branches"})
    assert answer.status_code == 400
    assert "multiverse.stream" in answer.text


# --- prompts -----------------------------------------------------------------


@pytest.mark.server
@pytest.mark.parametrize("route", ROUTES)
def test_a_prompt_longer_than_the_context(server: Server, route: str) -> None:
    answer = post(server, route, prompt="Amy has 5 apples. " * 800)
    assert answer.status_code == 400
    assert "2048" in answer.text
    check_idle(server)


@pytest.mark.server
def test_an_empty_prompt(server: Server) -> None:
    """SGLang lets an empty text through to an extend of no tokens, which ends the scheduler."""
    for route, prompt in (("/generate", ""), ("/v1/completions", "")):
        answer = post(server, route, prompt=prompt)
        assert answer.status_code == 400, answer.text
        assert "prompt" in answer.text.lower()
    ids = {"input_ids": [], "sampling_params": {"max_new_tokens": 8}}
    assert server.http.post("/generate", json=ids).status_code == 400
    chat = {"model": "m", "messages": [], "max_tokens": 8}
    assert server.http.post("/v1/chat/completions", json=chat).status_code == 400
    # A chat template puts tokens around an empty message.
    assert post(server, "/v1/chat/completions", prompt="").status_code == 200
    assert server.alive


@pytest.mark.server
def test_tags_of_a_user_are_text(server: Server, tiny_tokenizer: Any, tiny_tags: TagTable) -> None:
    plan = "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n</Goal>\n<Path>\n1: b"
    tags = sum(plan.count(tag) for tag in TAGS)

    def prompt_tokens(text: str) -> int:
        answer = post(server, "/v1/chat/completions", prompt=text)
        assert answer.status_code == 200
        return int(answer.json()["usage"]["prompt_tokens"])

    as_structure = len(tiny_tokenizer.encode(plan, add_special_tokens=False))
    # A tag as text is several tokens; as structure it would be one.
    assert prompt_tokens(plan) - prompt_tokens("") >= as_structure + 2 * tags

    # The user's open branch is not gone on with: the answer has structure of its own.
    problem = problems.generate(0, "held-out", "flat")
    text = f"{problem.prompt}\n{plan}"
    body = {"model": "m", "messages": user(text), "max_tokens": 200, "temperature": 0}
    (choice,) = server.http.post("/v1/chat/completions", json=body).json()["choices"]
    told, answer = choice["multiverse"], choice["message"]["content"]
    trace = parse(tiny_tokenizer.encode(answer, add_special_tokens=False), tiny_tags)
    assert told["branches"] == sum(len(block.outlines) for block in trace.blocks)

    for tag in TAGS:
        assert post(server, "/v1/chat/completions", prompt=f"What is {tag}?").status_code == 200
    check_idle(server)


def soup(rng: random.Random, tokenizer: Any) -> list[int]:
    """A prompt with tags where they belong and where they do not."""
    kind = rng.choice(("tags", "blocks", "cut", "spoilt"))
    if kind == "tags":
        words = [*TAGS, "\n", "1: a", "2: b", " Amy 5", "1.1:"]
        text = "".join(rng.choice(words) for _ in range(rng.randint(1, 60)))
        return list(tokenizer.encode(text, add_special_tokens=False))
    if kind == "blocks":
        parts = []
        for _ in range(rng.randint(1, 3)):
            outlines = "".join(f"<Outline>{i}: x</Outline>" for i in range(rng.randint(0, 4)))
            paths = "".join(f"<Path>{i}: y</Path>" for i in range(rng.randint(0, 5)))
            end = rng.choice(("", "</Parallel>", "<Conclusion>c", "<Conclusion>c</Conclusion>"))
            parts.append(f"<Parallel><Goal>{outlines}</Goal>{paths}{end}")
        text = "".join(parts) + rng.choice(("", "</Parallel>", "</Conclusion></Parallel>", "x"))
        return list(tokenizer.encode(text, add_special_tokens=False))
    shape = rng.choice(("flat", "nested", "rounds"))
    problem = problems.generate(rng.randrange(10_000), "train", shape)
    ids = list(tokenizer.encode(problem.solution, add_special_tokens=False))
    ids = ids[: rng.randint(1, len(ids))]
    for _ in range(rng.randint(1, 4) if kind == "spoilt" else 0):
        if rng.random() < 0.5 and len(ids) > 1:
            del ids[rng.randrange(len(ids))]
        else:
            tag = tokenizer.convert_tokens_to_ids(rng.choice(TAGS))
            ids.insert(rng.randrange(len(ids) + 1), tag)
    return ids


FIXED_SOUPS = (
    # Each of these ended a server once.
    "<Parallel><Goal><Outline>1: a</Outline></Goal></Parallel>",
    "<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal><Path>1: long long",
    "<Parallel><Goal><Outline>1: a</Outline></Goal><Path>1: a</Path></Parallel>",
    "<Parallel><Goal></Goal><Path>1: a</Path></Parallel>",
    "</Path></Goal><Path>",
)


@pytest.mark.server
def test_tag_soup(server: Server, tiny_tokenizer: Any) -> None:
    rng = random.Random(5)
    prompts = [soup(rng, tiny_tokenizer) for _ in range(200)]
    prompts += [tiny_tokenizer.encode(s, add_special_tokens=False) for s in FIXED_SOUPS] * 3

    def ask(job: tuple[int, list[int]]) -> None:
        number, ids = job
        rng = random.Random(number)
        budget = rng.choice((0, 1, 4, 12, 40))
        body = {
            "input_ids": ids,
            "sampling_params": {"max_new_tokens": budget, "temperature": rng.choice((0, 1))},
            "return_logprob": rng.random() < 0.3,
            "multiverse": {
                "guard": rng.random() < 0.7,
                "max_parallel_branches": rng.choice((1, 2, 256)),
            },
        }
        answer = server.http.post("/generate", json=body, timeout=60)
        assert answer.status_code == 200, (body, answer.text)
        found = answer.json()
        meta = found["meta_info"]
        assert meta["finish_reason"]["type"] in ("stop", "length"), body
        assert meta["completion_tokens"] == len(found["output_ids"]) <= budget, body
        assert meta["multiverse"]["tokens"] == len(found["output_ids"]), body
        # It may exceed them: behind a prompt's longer branch the positions go on from its end.
        assert meta["multiverse"]["critical_path_tokens"] >= 0, body

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, enumerate(prompts)))
    check_idle(server)


# --- clients that go away ----------------------------------------------------


def leave_amid(server: Server, number: int) -> bool:
    """Ask, then hang up at a random moment; whether any of the answer was seen."""
    rng = random.Random(number)
    problem = problems.generate(
        rng.randrange(500), "held-out", rng.choice(("flat", "nested", "rounds"))
    )
    stream = rng.random() < 0.7
    options: dict[str, Any] = {"max_parallel_branches": rng.choice((1, 3, 256))}
    if stream and rng.random() < 0.5:
        options["stream"] = "branches"
    asked: dict[str, Any] = {"stream": stream, "multiverse": options}
    if rng.random() < 0.5:
        route = "/v1/chat/completions"
        asked |= {"model": "m", "messages": user(problem.prompt), "max_tokens": 600}
    else:
        route = "/generate"
        params = {"max_new_tokens": 500, "n": rng.choice((1, 2))}
        asked |= {"text": f"{problem.prompt}\nLet's think", "sampling_params": params}
    body = json.dumps(asked).encode()
    head = (
        f"POST {route} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    seen = b""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + body)
        leaves = time.monotonic() + rng.uniform(0, 1.6)
        while (left := leaves - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                got = connection.recv(4096)
            except TimeoutError:
                break
            if not got:
                break
            seen += got
    return bool(seen)


@pytest.mark.server
@pytest.mark.slow
def test_two_hundred_clients_leave_amid_their_answers(server: Server) -> None:
    check_idle(server)
    with ThreadPoolExecutor(10) as clients:
        seen = list(clients.map(lambda number: leave_amid(server, number), range(200)))
    # Some left while they waited, some amid a stream.
    assert 20 < sum(seen) < 200
    check_idle(server)
    assert server.generate("Amy has 2 apples.")["output_ids"]


@pytest.mark.server
@pytest.mark.parametrize("everyone", [False, True])
@pytest.mark.parametrize("stage", ["plan", "branches", "after"])
def test_abort_request(server: Server, tiny_tokenizer: Any, stage: str, everyone: bool) -> None:
    """By id and all at once: while the trunk decodes, while it is parked, after the join."""
    ids = chat_ids(problems.generate(0, "held-out", "flat"), tiny_tokenizer)
    sign = {"plan": "<Outline>", "branches": "<Path>\n1:", "after": "</Conclusion>"}[stage]
    asked = {
        "input_ids": ids,
        "rid": f"aborted-{stage}-{everyone}",
        "stream": True,
        # It would go on for long.
        "sampling_params": {"temperature": 0, "max_new_tokens": 1500, "ignore_eos": True},
    }
    last: dict[str, Any] = {}
    aborted = False
    with server.http.stream("POST", "/generate", json=asked) as answer:
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line[6:])
            if not aborted and sign in last["text"]:
                aborted = True
                how = {"abort_all": True} if everyone else {"rid": asked["rid"]}
                assert httpx.post(f"{server.url}/abort_request", json=how).status_code == 200
    assert aborted
    meta = last["meta_info"]
    assert meta["finish_reason"]["type"] == "abort"
    assert meta["completion_tokens"] < 1000
    check_idle(server)


@pytest.mark.server
def test_abort_spares_the_others(server: Server, tiny_tokenizer: Any) -> None:
    problem = problems.generate(0, "held-out", "flat")
    ids = chat_ids(problem, tiny_tokenizer)
    alone = server.generate(ids)
    with ThreadPoolExecutor(4) as clients:
        endless = {"ignore_eos": True, "max_new_tokens": 1900}
        running = {
            name: clients.submit(
                server.generate, ids, rid=name, sampling_params=endless if name == "b1" else {}
            )
            for name in ("a1", "b1", "c1")
        }
        while not running["b1"].done():  # an abort that comes before its request finds nothing
            httpx.post(f"{server.url}/abort_request", json={"rid": "b1"})
            time.sleep(0.1)
        answers = {name: one.result() for name, one in running.items()}
    assert answers["b1"]["meta_info"]["finish_reason"]["type"] == "abort"
    for name in ("a1", "c1"):
        assert answers[name]["output_ids"] == alone["output_ids"]


# --- servers that cannot fork ------------------------------------------------


def scheduler(**changed: Any) -> Any:
    """The part of a scheduler that is looked at, all of it fine but for what is `changed`."""
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    arguments = {
        "disaggregation_mode": "null",
        "pp_size": 1,
        "tokenizer_worker_num": 1,
        **dict.fromkeys(
            (
                "enable_dp_attention",
                "enable_hierarchical_cache",
                "grpc_mode",
                "smg_grpc_mode",
                "enable_pdmux",
                "enable_lmcache",
                "enable_streaming_session",
            ),
            False,
        ),
    }
    own = {
        "spec_algorithm": SimpleNamespace(is_none=lambda: True),
        "page_size": 1,
        "is_hybrid_swa": False,
        "is_hybrid_ssm": False,
        "rust_server": None,
        "tree_cache": UnifiedRadixCache.__new__(UnifiedRadixCache),
    }
    for name, value in changed.items():
        (arguments if name in arguments else own)[name] = value
    return SimpleNamespace(server_args=SimpleNamespace(**arguments), **own)


def test_an_ordinary_server_is_not_refused() -> None:
    refuse_unsupported(scheduler())


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"spec_algorithm": SimpleNamespace(is_none=lambda: False)}, "--speculative-algorithm"),
        ({"disaggregation_mode": "prefill"}, "--disaggregation-mode"),
        ({"pp_size": 2}, "--pp-size"),
        ({"enable_dp_attention": True}, "--enable-dp-attention"),
        ({"enable_hierarchical_cache": True}, "--enable-hierarchical-cache"),
        ({"is_hybrid_swa": True}, "--model-path"),
        ({"is_hybrid_ssm": True}, "--model-path"),
        ({"tree_cache": object()}, "--radix-cache-backend"),
        ({"grpc_mode": True}, "--grpc-mode"),
        ({"smg_grpc_mode": True}, "--grpc-mode"),
        ({"rust_server": object()}, "--grpc-mode"),
        ({"enable_pdmux": True}, "--enable-pdmux"),
        ({"enable_lmcache": True}, "--enable-lmcache"),
        ({"enable_streaming_session": True}, "--enable-streaming-session"),
    ],
)
def test_what_cannot_fork_is_refused_by_flag_and_reason(changed: dict[str, Any], flag: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"^{flag}.*not supported .*\(.+\).*--no-multi"):
        refuse_unsupported(scheduler(**changed))


def test_several_http_processes_need_the_app_that_has_the_hooks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(APP_PATH_ENV, WORKER_APP)
    refuse_unsupported(scheduler(tokenizer_worker_num=2))
    monkeypatch.setenv(APP_PATH_ENV, "another:app")
    refuse_unsupported(scheduler())
    with pytest.raises(UnsupportedError, match=rf"^--tokenizer-worker-num with {APP_PATH_ENV}"):
        refuse_unsupported(scheduler(tokenizer_worker_num=2))


@dataclass(frozen=True)
class Refusal:
    """A job: a server that ends while it starts, and what it says."""

    flags: tuple[str, ...]

    def __call__(self, folder: Path, stack: ExitStack) -> tuple[int, str]:
        server = Server(*self.flags)
        stack.callback(server.stop)
        return server.launch().wait(180), server.log


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(
    "flag",
    [
        pytest.param(flags[0], marks=pytest.mark.ahead(job=Refusal(flags)))
        for flags in (("--enable-streaming-session",),)
    ],
)
def test_a_refused_server_ends_and_says_why(ahead: tuple[int, str], flag: str) -> None:
    code, log = ahead
    assert code != 0
    assert f"{flag}: not supported with a Multiverse model yet" in log
