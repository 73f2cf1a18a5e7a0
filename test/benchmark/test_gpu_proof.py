"""The proof for a GPU: what keeps one chance from being lost to a typo or to one bad stage."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from benchmark.scripts import by_name

ROOT = Path(__file__).resolve().parent.parent.parent
GPU = ROOT / "benchmark/gpu"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The proof's modules by their names, and not beyond this file."""
    with by_name(monkeypatch, ROOT / "test/attention", GPU, under=ROOT):
        yield


def stage(name: str, code: str, group: int = 0, limit: int = 20, **more: Any) -> Any:
    command = (sys.executable, "-c", code)
    return import_module("stages").Stage(name, group, limit, 1, command, **more)


WRITES = "import sys, pathlib; pathlib.Path(sys.argv[-1]).write_text('[1]'); print('said')"


def run(stages: list[Any], out: Path, seconds: float = 60) -> dict[str, Any]:
    summary: dict[str, Any] = import_module("proof").run(stages, out, time.monotonic() + seconds)
    assert json.loads((out / "proof.json").read_text()) == summary
    return summary


def test_a_stage_that_fails_ends_nothing_but_itself(tmp_path: Path) -> None:
    summary = run([stage("bad", "1/0"), stage("good", WRITES, 1)], tmp_path)
    assert summary["bad"]["status"] == "failed" and "ZeroDivisionError" in summary["bad"]["tail"]
    assert summary["good"]["status"] == "done" and summary["good"]["tail"] == "said\n"
    assert summary["good"]["result"] == [1] and summary["bad"]["result"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["proof.json"]


def test_a_stage_is_cut_at_its_limit_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print(one.pid, flush=True)\n"
        f"exec({WRITES!r})\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    summary = run([stage("slow", code, limit=5)], tmp_path)
    assert time.monotonic() - began < 40
    assert summary["slow"]["status"] == "cut" and summary["slow"]["result"] == [1]
    child = int(summary["slow"]["tail"].split()[0])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie"


def test_stages_of_a_group_run_at_the_same_time(tmp_path: Path) -> None:
    began = time.monotonic()
    stages = [stage(name, "import time; time.sleep(4)") for name in ("a", "b", "c")]
    summary = run(stages, tmp_path)
    assert {said["status"] for said in summary.values()} == {"done"}
    assert time.monotonic() - began < 12  # one after the other


def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    summary = run(
        [stage("first", "import time; time.sleep(2)"), stage("late", WRITES, 1)], tmp_path, 2
    )
    assert summary["late"]["status"] == "skipped" and "s are left" in summary["late"]["why"]


def test_a_stage_is_run_once_more_the_other_way(tmp_path: Path) -> None:
    code = f"import sys\n{WRITES}\nsys.exit('--eager' not in sys.argv)"
    summary = run([stage("steps", code, again=("--eager",))], tmp_path)
    assert summary["steps"]["status"] == "done"
    assert summary["steps"]["first"]["status"] == "failed"
    assert summary["steps"]["first"]["result"] == [1]


def test_tests_are_recorded_one_by_one(tmp_path: Path) -> None:
    tests = "def test_a():\n    pass\n\n\ndef test_b():\n    assert 1 == 2\n"
    (tmp_path / "test_two.py").write_text(tests)
    out = tmp_path / "out.json"
    command = [sys.executable, str(GPU / "run_tests.py"), str(tmp_path / "test_two.py")]
    ended = subprocess.run([*command, "--out", str(out)], cwd=tmp_path, capture_output=True)
    assert ended.returncode == 1
    said = json.loads(out.read_text())
    assert (said["passed"], said["failed"]) == (1, 1)
    assert "assert 1 == 2" in next(t["why"] for n, t in said["tests"].items() if "test_b" in n)


@pytest.mark.parametrize("rehearse", [True, False])
def test_what_the_stages_name_is_there(rehearse: bool) -> None:
    for one in import_module("stages").stages(rehearse=rehearse):
        for word in one.command[1:]:
            if word.startswith("/"):
                assert Path(word).exists(), word


def test_the_limits_fit_into_the_time() -> None:
    """With everything at its limit, only the last stage is short of time."""
    groups: dict[int, int] = {}
    for one in import_module("stages").stages(rehearse=False):
        groups[one.group] = max(groups.get(one.group, 0), one.limit)
    assert sum(list(groups.values())[:-1]) <= 480


def test_flags_are_sglangs() -> None:
    from sglang.srt.server_args import ServerArgs

    from sglang_multiverse.attention import register

    register()
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    servers, steps, replay = map(import_module, ("servers", "steps", "replay_7b"))
    flags = [[*servers.SAFE, *way.flags] for way in (*servers.WAYS, *servers.TINY_WAYS)]
    flags += [steps.flags(steps.CASES, eager=eager) for eager in (False, True)]
    flags += [line.split() for tiny in (0, 1) for line in replay.servers(tiny=tiny).values()]
    flags.append(import_module("stages").SOAK_SERVER.split())
    for one in flags:
        parser.parse_args(["--model-path", "m", *one])


class Rehearsal(NamedTuple):
    code: int
    said: str
    out: Path


def rehearsal(folder: Path, stack: ExitStack) -> Rehearsal:
    """A job. What the other stages run is in tests of its own."""
    command = [str(GPU / "proof.sh"), "--rehearse", "--out", str(folder), "--seconds", "1100"]
    proof = subprocess.Popen(
        [*command, "--only", "machine", "servers", "training", "steps", "throughput"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stack.callback(proof.terminate)
    said, _ = proof.communicate()
    return Rehearsal(proof.returncode, said, folder)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.ahead(job=rehearsal)
def test_rehearsal(ahead: Rehearsal) -> None:
    """Its programs from end to end."""
    assert ahead.code == 0, ahead.said
    results = json.loads((ahead.out / "proof.json").read_text())
    servers, steps, throughput, training = (
        results[name]["result"] for name in ("servers", "steps", "throughput", "training")
    )
    assert all(said["right"] for said in servers.values())
    assert training["agreement"]["right"]
    (said,) = [s for name, s in steps["cases"].items() if not name.startswith("profile")]
    assert said["difference"] < 1e-5 and said["same_choice"] == 1
    assert len(steps["cases"]) == 2
    (case,) = throughput["closed"]
    assert list(case["ways"]) == ["parallel", "plain", "client"]
    assert not any(said["wrong"] for said in case["ways"].values())
