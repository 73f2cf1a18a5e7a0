"""Records that outlive a kill: one SQLite file below a folder, written by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "records.sqlite"


def digest(value: Any) -> str:
    """SHA-256 of a value as canonical JSON, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def exit_code(command: Callable[[], int], expected: type[Exception]) -> int:
    """Run a command that can be given again; what ends it early is one line, not a trace.

    Returns what it returned, 2 for an `expected` error or records that cannot be written,
    130 when it was interrupted.
    """
    try:
        return command()
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (OSError, sqlite3.Error) as error:  # such as a full disk
        print(f"error: out: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


class Records:
    """The file, open, and its lock. A statement is committed when it has been executed.

    Args:
        tables: the statements that create them where they are not.
        probe: one of the tables; a file without it is none of ours.
        in_memory: a copy of what there is, to try things on.

    Raises:
        the exception that `wrong` makes: the file cannot be used, or another run has it.
    """

    def __init__(
        self,
        folder: Path,
        tables: str,
        probe: str,
        wrong: Callable[[str], Exception],
        *,
        read_only: bool = False,
        in_memory: bool = False,
    ) -> None:
        path = folder / FILE
        if read_only and not path.is_file():
            raise wrong(f"out: there are no records in {folder}")
        self._lock = None
        if in_memory:
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            if path.is_file():
                with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
                    file.backup(self._db)
            self._db.executescript(tables)
            return
        try:
            if read_only:
                self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
                self._db.execute(f"SELECT 1 FROM {probe} LIMIT 1")
                return
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db = sqlite3.connect(path, isolation_level=None)
            # Enough against the death of the process; a power cut may lose the last calls.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(tables)
        except BlockingIOError:
            raise wrong(f"out: another run is writing to {folder}") from None
        except (OSError, sqlite3.Error) as error:
            raise wrong(f"out: {path} cannot be used: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.close()
