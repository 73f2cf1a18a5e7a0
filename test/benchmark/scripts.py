"""Benchmarks are scripts: they import what lies beside them by its bare name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def by_name(patch: pytest.MonkeyPatch, *folders: Path, under: Path) -> Iterator[None]:
    """Modules of `folders` can be imported; those from `under` are forgotten afterwards."""
    before = set(sys.modules)
    for folder in folders:
        patch.syspath_prepend(str(folder))
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(under)):
            del sys.modules[name]
