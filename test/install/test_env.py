"""Which lock scripts/env.sh takes, and how the installer is called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import install  # noqa: E402

GPU = any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg"))


def where(lock: str | None, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MULTIVERSE_")
    }
    environment["XDG_CACHE_HOME"] = str(tmp_path)
    if lock is not None:
        environment["MULTIVERSE_LOCK"] = lock
    command = ["bash", str(ROOT / "scripts" / "env.sh"), "--where"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_each_lock_has_its_own_place_and_the_machine_decides(tmp_path: Path) -> None:
    light, full = (where(lock, tmp_path).stdout for lock in ("light", "full"))
    assert light.startswith(f"{tmp_path}/sglang-multiverse/env-light-")
    assert full.startswith(f"{tmp_path}/sglang-multiverse/env-") and "light" not in full
    assert where(None, tmp_path).stdout == (full if GPU else light)


def test_another_lock_is_refused(tmp_path: Path) -> None:
    done = where("heavy", tmp_path)
    assert done.returncode == 1
    assert "MULTIVERSE_LOCK=heavy is neither light nor full" in done.stderr


@pytest.mark.parametrize("known", [True, False])
def test_pytorch_s_own_index_is_asked_where_no_other_has_its_cpu_build(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("# of everything\nsix==1.17.0\ntorch==2.13.0+cpu\n")
    calls: list[tuple[list[str], dict[str, Any]]] = []

    def run(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        calls.append((words, dict(options.get("env") or {})))
        failed = "--dry-run" in words and not known
        return subprocess.CompletedProcess(words, int(failed), "global.index-url='https://a'\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["install.py", str(lock)])
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    install.main()
    (probe, _), (words, environment) = calls[-2:]
    assert probe[-2:] == ["--dry-run", "torch==2.13.0+cpu"]
    assert words[-2:] == ["--requirement", str(lock)] and "--no-deps" in words
    assert environment.get("UV_TORCH_BACKEND") == (None if known else "cpu")
    assert environment["UV_DEFAULT_INDEX"] == "https://a"


def test_a_failed_installation_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.lock").write_text("six==1.17.0\n")

    def run(command: list[Any], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], int("--requirement" in command), "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["install.py", str(tmp_path / "some.lock")])
    with pytest.raises(SystemExit, match=r"could not install some\.lock"):
        install.main()
