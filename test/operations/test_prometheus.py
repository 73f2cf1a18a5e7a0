"""Prometheus itself scrapes a live server, and every query of the dashboard finds something."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from asking import user, wait_until
from models import problems
from server import Server, free_port

from .tools import DASHBOARD, DOCKER, tool

pytestmark = pytest.mark.server
COUNTED = ("tokens", "critical_path_tokens", "branches", "blocks", "forced_tokens")
PROMPT = problems.generate(3, "held-out", "nested").prompt


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10)

    def answers(self) -> bool:
        try:
            return self.http.get("/status/buildinfo").is_success
        except httpx.TransportError:
            return False

    def values(self, query: str) -> list[float]:
        """One value a series, now; raises if the query is wrong."""
        answer = self.http.get("/query", params={"query": query})
        answer.raise_for_status()
        return [float(series["value"][1]) for series in answer.json()["data"]["result"]]

    def counts(self) -> dict[str, list[float]]:
        """Our counters; each a list of no or one value."""
        return {name: self.values(f"sum(sglang:multiverse_{name}_total)") for name in COUNTED}


@pytest.fixture(scope="module")
def prometheus(
    server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Prometheus, dict[str, float]]]:
    """With the configuration that we ship, but for the address and a shorter interval.

    And what our counters must come to: one forked answer was given while it watched.
    """
    folder: Path = tmp_path_factory.mktemp("prometheus")
    shipped = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    (job,) = shipped["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
    shipped["global"]["scrape_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(shipped))
    rules = (DOCKER / "prometheus" / "rules.yml").read_text()
    (folder / "rules.yml").write_text(rules)
    port = free_port()
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    found = Prometheus(port)
    try:
        wait_until(lambda: process.poll() is not None or found.answers())
        assert process.poll() is None, (folder / "log").read_text()
        # A rate needs a value from before: only what happens after this counts.
        wait_until(lambda: all(found.counts().values()))
        before = found.counts()
        body = {"model": "m", "messages": user(PROMPT), "temperature": 0}
        answer = server.http.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        said = answer.json()["choices"][0]["multiverse"]
        yield found, {name: before[name][0] + said[name] for name in COUNTED}
    finally:
        found.http.close()
        process.terminate()
        process.wait(30)


def queries() -> list[tuple[str, str]]:
    """Panel and query, with Grafana's variables set as it would: any model, a range of scrapes."""
    return [
        (
            panel["title"],
            target["expr"].replace("$model", ".*").replace("$__rate_interval", "2m"),
        )
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


@pytest.mark.parametrize(("panel", "query"), queries())
def test_a_query_finds_numbers(
    prometheus: tuple[Prometheus, dict[str, float]], panel: str, query: str
) -> None:
    found, _ = prometheus

    def numbers() -> bool:
        values = found.values(query)
        return bool(values) and all(map(math.isfinite, values))

    wait_until(numbers)


def test_the_counters_are_those_of_the_answer(
    prometheus: tuple[Prometheus, dict[str, float]],
) -> None:
    found, expected = prometheus
    wait_until(lambda: found.counts() == {name: [value] for name, value in expected.items()})


def test_the_dashboards_variable_lists_the_model(
    prometheus: tuple[Prometheus, dict[str, float]], server: Server
) -> None:
    found, _ = prometheus
    (variable,) = (
        one
        for one in json.loads(DASHBOARD.read_text())["templating"]["list"]
        if one["name"] == "model"
    )
    metric, label = variable["query"]["query"].removeprefix("label_values(").rstrip(")").split(", ")
    answer = found.http.get(f"/label/{label}/values", params={"match[]": metric})
    served = server.http.get("/v1/models").json()["data"][0]["id"]
    assert answer.json()["data"] == [served]


def test_the_alerts_are_loaded_and_silent(
    prometheus: tuple[Prometheus, dict[str, float]],
) -> None:
    found, _ = prometheus
    (group,) = found.http.get("/rules").json()["data"]["groups"]
    wait_until(lambda: found.values('up{job="multiverse"}') == [1.0])
    assert {rule["state"] for rule in group["rules"]} == {"inactive"}
