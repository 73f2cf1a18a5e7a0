"""What our code reaches in SGLang, read off the code itself.

`uses()` walks the package and finds every name imported from SGLang, every
method of our subclasses that replaces one of SGLang's or goes to it through
`super()`, and every attribute of something whose name says which SGLang class
it is (`OWNERS`). `problem(use)` says what the installed SGLang lacks of it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import sglang_multiverse

PACKAGE = Path(sglang_multiverse.__file__).parent

_BATCH = "sglang.srt.managers.schedule_batch"
_REQ = f"{_BATCH}.Req"
_SCHEDULE_BATCH = f"{_BATCH}.ScheduleBatch"
# The last name of an expression → the class of SGLang that it holds.
OWNERS = {
    **dict.fromkeys(("req", "trunk", "branch", "child", "parent", "member"), _REQ),
    **dict.fromkeys(("batch", "running_batch", "last_batch"), _SCHEDULE_BATCH),
    "kv": f"{_BATCH}.ReqKvInfo",
    "scheduler": "sglang.srt.managers.scheduler.Scheduler",
    "tree_cache": "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache",
    "pool": "sglang.srt.mem_cache.memory_pool.ReqToTokenPool",
    "req_to_token_pool": "sglang.srt.mem_cache.memory_pool.ReqToTokenPool",
    "future_map": "sglang.srt.managers.overlap_utils.FutureMap",
    "sampling_params": "sglang.srt.sampling.sampling_params.SamplingParams",
    "output_streamer": (
        "sglang.srt.managers.scheduler_components.output_streamer.SchedulerOutputStreamer"
    ),
}
# What we hang on objects of SGLang's, by class.
OURS = {OWNERS["tree_cache"]: {"multiverse_rows"}}


class Use(NamedTuple):
    """One place: `kind` is import, override, super or attribute; `target` a dotted name."""

    kind: str
    target: str
    where: str
    parameters: tuple[str, ...] = ()


def uses() -> list[Use]:
    """Everything our package reaches, each target and kind once, in order of name."""
    found: dict[tuple[str, str], Use] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for use in _uses_of(tree, str(path.relative_to(PACKAGE))):
            found.setdefault((use.kind, use.target), use)
    return sorted(found.values())


def _uses_of(tree: ast.Module, file: str) -> Iterator[Use]:
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sglang":
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield Use("import", f"{node.module}.{alias.name}", f"{file}:{node.lineno}")
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        base = None
        if isinstance(node, ast.ClassDef):
            bases = [b.id for b in node.bases if isinstance(b, ast.Name) and b.id in imported]
            base = imported[bases[0]] if bases else None
        if base is not None and isinstance(node, ast.ClassDef):
            yield from _overrides(node, base, file)
        if file.startswith("engine/") and not file.startswith("engine/http/"):
            yield from _attributes(node, base, modules, file)


def _overrides(node: ast.ClassDef, base: str, file: str) -> Iterator[Use]:
    """Methods of a subclass that call `super()` under their own name, or replace one there."""
    for method in node.body:
        if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        reached = {
            call.attr
            for call in ast.walk(method)
            if isinstance(call, ast.Attribute)
            and isinstance(call.value, ast.Call)
            and isinstance(call.value.func, ast.Name)
            and call.value.func.id == "super"
        }
        for name in sorted(reached):
            yield Use("super", f"{base}.{name}", f"{file}:{method.lineno}")
        if method.name in reached or method.name in members(base):
            arguments = method.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)][1:]
            names += [a.arg for a in arguments.kwonlyargs]
            where = f"{file}:{method.lineno}"
            yield Use("override", f"{base}.{method.name}", where, tuple(names))


def _attributes(node: ast.stmt, base: str | None, modules: set[str], file: str) -> Iterator[Use]:
    for found in ast.walk(node):
        if not isinstance(found, ast.Attribute) or found.attr.startswith("__"):
            continue
        holder = found.value
        if isinstance(holder, ast.Name):
            owner = base if holder.id == "self" else OWNERS.get(holder.id)
            if holder.id in modules:
                owner = None
        elif isinstance(holder, ast.Attribute):
            owner = OWNERS.get(holder.attr)
        else:
            owner = None
        if owner is None or found.attr in own_members(owner):
            continue
        yield Use("attribute", f"{owner}.{found.attr}", f"{file}:{found.lineno}")


@cache
def members(target: str) -> frozenset[str]:
    """All names that objects of a class have: methods, fields, and what methods assign."""
    cls: Any = pkgutil.resolve_name(target)
    names = set(dir(cls))
    for parent in cls.__mro__[:-1]:
        names.update(getattr(parent, "__annotations__", {}))
        names.update(getattr(parent, "__slots__", ()))
        try:
            source = textwrap.dedent(inspect.getsource(parent))
        except (OSError, TypeError):
            continue
        names.update(_assigned(ast.parse(source)))
    return frozenset(names)


def _assigned(tree: ast.AST) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


@cache
def own_members(owner: str) -> frozenset[str]:
    """What our subclass of `owner` adds; nothing that SGLang's class may have lost."""
    names = set(OURS.get(owner, ()))
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and _extends(node, owner):
                names.update(_declared(node))
    return frozenset(names)


def _extends(node: ast.ClassDef, owner: str) -> bool:
    own = owner.rpartition(".")[2]
    return any(isinstance(base, ast.Name) and base.id == own for base in node.bases)


def _declared(node: ast.ClassDef) -> set[str]:
    names = set()
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(item.name)
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            names.add(item.target.id)
        elif isinstance(item, ast.Assign):
            names.update(t.id for t in item.targets if isinstance(t, ast.Name))
    return names | _assigned(node)


def problem(use: Use) -> str | None:
    """What is wrong with a use under the installed SGLang; `None` if nothing is."""
    owner, _, name = use.target.rpartition(".")
    if use.kind == "import":
        module = importlib.import_module(owner)
        if not hasattr(module, name):
            try:
                importlib.import_module(use.target)
            except ImportError:
                return f"{use.target} is gone ({use.where})"
        return None
    if name not in members(owner):
        return f"{use.target} is gone ({use.where})"
    if use.kind != "override" or name == "__init__":
        return None  # who makes one of ours is ours
    overridden = getattr(pkgutil.resolve_name(owner), name)
    if not callable(overridden):
        return None  # a property
    theirs = inspect.signature(overridden).parameters
    if any(p.kind is p.VAR_KEYWORD for p in theirs.values()):
        return None
    lost = [parameter for parameter in use.parameters if parameter not in theirs]
    return f"{use.target} has no parameter {', '.join(lost)} ({use.where})" if lost else None
