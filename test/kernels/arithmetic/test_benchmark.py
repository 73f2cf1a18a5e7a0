"""`benchmark/kernels.py` runs without a GPU; what it does on one is tried with a false clock."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE

pytestmark = pytest.mark.skipif(DEVICE != "cpu", reason="on a GPU, run the benchmark itself")
BENCHMARK = Path(__file__).resolve().parents[3] / "benchmark"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The script as a module, under a name that is no package's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARK)
        spec = importlib.util.spec_from_file_location("benchmark_kernels", BENCHMARK / "kernels.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def run(benchmark: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Any:
    """Its exit status and results."""
    monkeypatch.setattr(sys, "argv", ["kernels.py", "--out", str(out), *more])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    return ended.value.code, json.loads(out.read_text())


def test_every_peer_is_right_or_says_why_it_is_not_there(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result = run(benchmark, tmp_path / "out.json", monkeypatch)
    assert code == 0
    assert len(result["cases"]) == 4
    for case in result["cases"].values():
        for name, said in case["peers"].items():
            if name.startswith("FlashInfer"):
                assert said == {"skipped": "FlashInfer needs a GPU"}
            else:
                assert said["right"], (name, said)
    shared = result["cases"]["decode: 2 families of 2 of 2, tiny"]
    row = 2 * 2 * 64 * 4  # K and V, 2 heads of 64, in fp32
    tokens = 2 * 140 + 4 * 130 + 8 * 9
    assert shared["bytes"] == tokens * row + 2 * 8 * 4 * 64 * 4
    assert shared["bytes_unshared"] == 8 * (140 + 130 + 9) * row + 2 * 8 * 4 * 64 * 4


def test_a_wrong_or_failing_kernel_is_said_and_ends_with_1(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(given: Any) -> Any:
        return lambda: torch.zeros_like(given.tensors.q)

    def failing(given: Any) -> Any:
        raise RuntimeError("out of something")

    peers = {"ours": wrong, "other": failing, "reference": benchmark.DECODE_PEERS["reference"]}
    monkeypatch.setattr(benchmark, "DECODE_PEERS", peers)
    monkeypatch.setattr(benchmark, "SMOKE_EXTENDS", ())
    code, result = run(benchmark, tmp_path / "out.json", monkeypatch)
    assert code == 1
    said = next(iter(result["cases"].values()))["peers"]
    assert not said["ours"]["right"]
    assert said["other"] == {"failed": "RuntimeError: out of something"}


def test_when_the_time_is_up_it_says_what_is_missing(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result = run(benchmark, tmp_path / "out.json", monkeypatch, "--minutes", "-1")
    assert code == 0
    assert set(map(str, result["cases"].values())) == {"{'skipped': 'the time is up'}"}


def test_shares_of_the_card(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 ms in a graph, where the card's bandwidth would allow 1 ms and its products half of one."""

    def bench(call: Any, *_args: Any, quantiles: Any = None, **_kwargs: Any) -> Any:
        call()
        return [2.5, 3.0, 3.5] if quantiles else 3.0

    def graph(call: Any, **_kwargs: Any) -> float:
        call()
        return 2.0

    monkeypatch.setattr("triton.testing.do_bench", bench)
    monkeypatch.setattr("triton.testing.do_bench_cudagraph", graph)
    given = benchmark.SMOKE_DECODES[1].build(benchmark.SMOKE, torch.float32, "cpu")
    best = {"bytes_s": given.bytes * 1e3, "operations_s": given.operations * 2e3}
    peers = {name: benchmark.DECODE_PEERS[name] for name in ("ours", "reference")}
    found = benchmark.measure(given, peers, best)
    assert found["ours"]["ms"] == {"q1": 2.5, "median": 3.0, "q3": 3.5, "graph": 2.0}
    assert found["ours"]["share_of_bandwidth"] == pytest.approx(0.5)
    assert found["ours"]["share_of_products"] == pytest.approx(0.25)
    assert found["ours"]["share_of_roofline"] == pytest.approx(0.5)
    assert found["ours"]["gb_s"] == pytest.approx(given.bytes / 2e-3 / 1e9)
    assert found["reference"]["ms"] == {"median": 3.0, "graph": None}
    assert found["reference"]["share_of_roofline"] == pytest.approx(1 / 3)
    assert "50% of the roofline" in benchmark._table("case", {"peers": found})


def test_ours_shares_and_the_other_does_not(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is the same, so it does not show."""
    given = benchmark.SMOKE_DECODES[0].build(benchmark.SMOKE, torch.float32, "cpu")
    seen = []

    def decode(*args: Any, **_kwargs: Any) -> None:
        seen.append(args[5])

    monkeypatch.setattr("attention_peers.shared_prefix_decode", decode)
    for name in ("ours", "ours, nothing shared"):
        benchmark.DECODE_PEERS[name](given)()
    assert seen == [given.tables, None]


def test_the_cases_for_a_gpu_can_be_built(benchmark: Any) -> None:
    tiny = benchmark.SMOKE._replace(d=16)
    for case in benchmark.DECODES:
        given = case.build(tiny, torch.float32, "cpu")
        shares = case.rows_under(0) > 1
        assert (given.tables.pieces.count_nonzero() > 0) == shares
        assert (given.bytes < given.bytes_unshared) == shares
    for case in benchmark.EXTENDS:
        assert case.blocks * (case.text + case.branches * case.length) <= case.new
        given = case.build(tiny, torch.float32, "cpu")
        assert given.seen == case.sequences * int(given.visible().sum())
