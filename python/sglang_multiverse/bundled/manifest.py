"""What a bundled model is made of, each part with its checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ADAPTER = "adapter"
_FILE = "manifest.json"
# Raise it when the same parts come to merge into another model: caches are then made anew.
_REVISION = 1


class BundledModelError(ValueError):
    """The bundled model cannot be made here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that the adapter was trained on.

    Attributes:
        name: as training calls it.
        requirement: the package that holds it, with its version, as pip takes it.
        sha256: of the file with its weights.
    """

    name: str
    requirement: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A bundle is a folder with this and `adapter/`.

    There is no checksum of the merged weights: their last bits depend on the processor's
    instruction set. The cache has its own record of them.

    Attributes:
        name: what the model is served as.
        adapter: name → sha256 of each file in `adapter/`.
    """

    name: str
    base: Base
    adapter: Mapping[str, str]

    @classmethod
    def read(cls, bundle: Path) -> Manifest:
        """Raises `BundledModelError` if there is none that can be read."""
        try:
            fields = json.loads((bundle / _FILE).read_text(encoding="utf-8"))
            return cls(fields["name"], Base(**fields["base"]), fields["adapter"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundledModelError(
                f"{bundle / _FILE} cannot be read: reinstall sglang-multiverse"
            ) from error

    def write(self, bundle: Path) -> None:
        (bundle / _FILE).write_text(self._text, encoding="utf-8")

    @property
    def digest(self) -> str:
        """Another digest, another model."""
        return hashlib.sha256(f"{_REVISION}\n{self._text}".encode()).hexdigest()

    @property
    def _text(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def packaged() -> Manifest:
    """The manifest of the model in this package."""
    return Manifest.read(PACKAGE)


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """Name → sha256 of every file in a folder."""
    return {path.name: checksum(path) for path in sorted(folder.iterdir())}
