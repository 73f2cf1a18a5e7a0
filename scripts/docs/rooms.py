"""The rooms of the package: what each is for, by its own docstring, and whose code it imports."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tables import code, table

ROOT = Path(__file__).resolve().parents[2]
NAME = "sglang_multiverse"
PACKAGE = ROOT / "python" / NAME


def rooms() -> str:
    """A table of the folders and single modules of the package."""
    purpose: dict[str, str] = {}
    imports: defaultdict[str, set[str]] = defaultdict(set)
    for path, parts in _modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        room = parts[0]
        if parts in ((room,), (room, "__init__")):
            said = (ast.get_docstring(tree) or "").partition("\n\n")[0]
            purpose[room] = re.sub(r"^`python -m [^`]*`: ", "", said)
        package = [NAME, *parts[:-1]]
        for name in _imported(tree, package):
            if name[0] == NAME and len(name) > 1 and name[1] != room:
                imports[room].add(name[1])
    known = purpose.keys()
    return table(
        ("Room", "What it is for", "Imports"),
        [
            (code(room), text, ", ".join(map(code, sorted(imports[room] & known))) or "nothing")
            for room, text in sorted(purpose.items())
        ],
    )


def _modules() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Each source file, and its place below the package; `kernels` is a link in it."""
    for base, prefix in ((PACKAGE, ()), (ROOT / "kernels", ("kernels",))):
        for path in sorted(base.rglob("*.py")):
            parts = (*prefix, *path.relative_to(base).with_suffix("").parts)
            if parts[0] != "__init__" and (prefix or parts[0] != "kernels"):
                yield path, parts


def _imported(tree: ast.Module, package: list[str]) -> Iterator[list[str]]:
    """The dotted names that a module imports, late imports included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            yield from ([*base, alias.name] for alias in node.names)
