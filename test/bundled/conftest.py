"""A tiny bundle, and the tests' model in the place of a base in a package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bundled import tiny
from sglang_multiverse.bundled import cache


@pytest.fixture(scope="session")
def tiny_bundle(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return tiny.make_bundle(tmp_path_factory.mktemp("bundle"), tiny_path)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def _base(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cache.BUNDLED, str(tiny_path), None)
    monkeypatch.setattr(cache, "find_gguf", tiny.find_base)


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging takes no time and gives no model."""
    monkeypatch.setattr(cache, "_merge", tiny.fake_merge)
