"""The two locks, pyproject.toml and what is installed agree."""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import lock  # noqa: E402

import install  # noqa: E402


def locked(path: Path) -> dict[str, Version]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    found = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(found) == len(lines), f"{path.name} names a package twice"
    return {str(name): version for name, version in found.items()}


FULL, LIGHT = locked(lock.FULL), locked(lock.LIGHT)


@pytest.mark.parametrize("path", [lock.FULL, lock.LIGHT], ids=lambda path: path.name)
def test_a_lock_has_what_pyproject_asks_for(path: Path) -> None:
    versions = locked(path)
    for line in [*lock.requirements(), *lock.ALONE]:
        asked = Requirement(line)
        assert asked.specifier.contains(versions[canonicalize_name(asked.name)]), line


def test_the_locks_share_versions_but_for_the_builds_that_are_named() -> None:
    assert LIGHT.keys() <= FULL.keys()
    differ = {name for name, version in LIGHT.items() if version != FULL[name]}
    assert differ == lock.CPU_BUILDS.keys()
    for name, version in lock.CPU_BUILDS.items():
        assert LIGHT[name] == Version(version)


def test_the_light_lock_leaves_out_what_it_says() -> None:
    left_out = {canonicalize_name(name) for names in lock.LEFT_OUT.values() for name in names}
    assert left_out <= FULL.keys()
    assert not left_out & LIGHT.keys()
    assert not [name for name in LIGHT if re.match("nvidia-(?!ml-py)|cuda", name)]


def test_what_is_installed_is_a_lock() -> None:
    """Else the tests show nothing of the lock: by hand, a missing package is soon at hand."""
    found = {
        str(canonicalize_name(one.metadata["Name"])): Version(one.version)
        for one in distributions()
    }
    if found["torch"].local != "cpu":
        pytest.skip("the full environment")
    extra = found.keys() - LIGHT.keys() - {"pip", "sglang-multiverse", "faults"}
    assert not extra, f"not of {lock.LIGHT.name}: {extra}; delete the environment"
    assert {name: found[name] for name in LIGHT} == LIGHT


def test_requirements_are_followed_around_what_is_left_out() -> None:
    packages = {
        "a": lock.Package("A", "1", ["b", "C[fast]>=1", 'd; extra == "more"']),
        "b": lock.Package("b", "1", ["heavy"]),
        "c": lock.Package("C", "1", ['e; extra == "fast"', 'f; sys_platform == "no"']),
        "d": lock.Package("d", "1", []),
        "e": lock.Package("e", "1", ["a"]),
        "f": lock.Package("f", "1", []),
        "heavy": lock.Package("heavy", "1", ["d"]),
    }
    assert lock.reached(["a"], packages, {"heavy"}) == {"a", "b", "c", "e"}
    assert lock.reached(["a"], packages, set()) == {"a", "b", "c", "d", "e", "heavy"}
    assert lock.reached(["a[more]"], packages, {"heavy"}) == {"a", "b", "c", "d", "e"}


def test_uv_is_told_what_pip_is() -> None:
    listed = """\
:env:.find-links='/here /there'
:env:.index-url='https://mine/simple'
global.extra-index-url='\\nfile:///a\\nfile:///b'
global.index-url='https://other/simple'
global.require-virtualenv='true'
install.no-index='true'
"""
    assert install.settings(listed) == {
        "UV_DEFAULT_INDEX": "https://mine/simple",
        "UV_FIND_LINKS": "/here,/there",
        "UV_INDEX": "file:///a file:///b",
        "UV_NO_INDEX": "true",
    }
