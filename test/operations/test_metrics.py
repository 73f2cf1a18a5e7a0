"""What `/metrics` says of forks, joins and live branches."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asking import chat_ids, check_idle, user, wait_until
from models import problems
from server import Server
from sglang_multiverse.engine.metrics import COUNTERS, GAUGES, HISTOGRAMS
from sglang_multiverse.structure import Role

pytestmark = pytest.mark.server


def samples(server: Server) -> dict[str, float]:
    """Our samples by their name without `sglang:multiverse_`, over all label values."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(server.http.get("/metrics").text):
        for sample in family.samples:
            prefix, _, name = sample.name.partition("multiverse_")
            if prefix == "sglang:" and not name.endswith("_bucket"):
                found[name] = found.get(name, 0.0) + sample.value
    return found


def problem(kind: str) -> problems.Problem:
    return problems.generate(3, "held-out", kind)


def test_every_metric_is_there_before_anything_happened(server: Server) -> None:
    """A query of a counter that appears with its first event misses that event."""
    found = samples(server)
    names = {f"{name}_total" for name in COUNTERS} | set(GAUGES)
    names |= {f"{name}_count" for name in HISTOGRAMS}
    assert names <= found.keys()


def test_health_checks_are_no_requests(server: Server) -> None:
    before = samples(server)
    server.http.get("/health_generate").raise_for_status()
    check_idle(server)
    assert samples(server) == before


@pytest.mark.parametrize("kind", ["flat", "nested", "rounds"])
def test_every_fork_and_join_is_timed_once(server: Server, kind: str) -> None:
    before = samples(server)
    start = time.monotonic()
    answer = server.http.post(
        "/v1/chat/completions",
        json={"model": "m", "messages": user(problem(kind).prompt), "temperature": 0},
    ).json()
    took = time.monotonic() - start
    check_idle(server)
    after = samples(server)

    def gained(name: str) -> float:
        return after[name] - before[name]

    said = answer["choices"][0]["multiverse"]
    assert said["branches"] >= 2
    assert gained("fork_seconds_count") == gained("branches_total") == said["branches"]
    assert gained("join_seconds_count") == gained("blocks_total") == said["blocks"]
    # Branches fork beside each other, and every wait is part of the answer.
    assert 0 < gained("join_seconds_sum") < took
    assert 0 < gained("fork_seconds_sum") < took * said["branches"]
    assert after["live_branches"] == 0


def test_live_branches_are_counted_and_an_abort_ends_them(
    server: Server, tiny_tokenizer: Any, tiny_tags: Any
) -> None:
    endless = {str(tiny_tags.id_of[Role.BRANCH_CLOSE]): -100}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(
            server.generate,
            chat_ids(problem("flat"), tiny_tokenizer),
            sampling_params={"logit_bias": endless, "max_new_tokens": 1900, "ignore_eos": True},
            rid="endless",
        )
        wait_until(lambda: samples(server)["live_branches"] >= 2 or asked.done())
        live = samples(server)["live_branches"]
        server.http.post("/abort_request", json={"rid": "endless"}).raise_for_status()
        answer = asked.result(60)
    assert answer["meta_info"]["finish_reason"]["type"] == "abort"
    # None of them could close; some may have branched again since.
    assert 2 <= live <= answer["meta_info"]["multiverse"]["branches"]
    check_idle(server)
    assert samples(server)["live_branches"] == 0
