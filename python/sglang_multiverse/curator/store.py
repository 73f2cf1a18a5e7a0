"""What a run has paid for and made, in one SQLite file.

A call's answer is committed before it is used, so that a kill loses at most
the calls in flight; what follows from the answers is computed again from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..records import Records
from .errors import CuratorError
from .request import Reply

_TABLES = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, example TEXT NOT NULL, stage TEXT NOT NULL, round INTEGER NOT NULL,
    attempt INTEGER NOT NULL, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS examples (
    key TEXT PRIMARY KEY, id TEXT NOT NULL, status TEXT NOT NULL, content TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_id ON examples (id);
CREATE TABLE IF NOT EXISTS run (position INTEGER PRIMARY KEY, key TEXT NOT NULL, id TEXT NOT NULL);
"""


class Stored(NamedTuple):
    """A finished example: `status` is `done` or `failed`."""

    id: str
    status: str
    content: dict[str, Any]


class Store(Records):
    """The records below one output directory.

    Raises:
        CuratorError: the file is no store, or another run has it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False, in_memory: bool = False) -> None:
        super().__init__(
            folder, _TABLES, "run", CuratorError, read_only=read_only, in_memory=in_memory
        )

    def reply(self, key: str) -> Reply | None:
        """The answer to a call that was made before."""
        row = self._db.execute(
            "SELECT text, finish, prompt_tokens, completion_tokens FROM calls WHERE key = ?", (key,)
        ).fetchone()
        return Reply(*row) if row else None

    def keep_reply(
        self,
        key: str,
        reply: Reply,
        *,
        example: str,
        stage: str,
        round: int,
        attempt: int,
        model: str,
        cost: float,
    ) -> None:
        """Commit an answer; one asked anew replaces the old one."""
        self._db.execute(
            "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, example, stage, round, attempt, model, *reply, cost),
        )

    def example(self, key: str) -> Stored | None:
        row = self._db.execute(
            "SELECT id, status, content FROM examples WHERE key = ?", (key,)
        ).fetchone()
        return Stored(row[0], row[1], json.loads(row[2])) if row else None

    def keep_example(self, key: str, stored: Stored) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO examples VALUES (?, ?, ?, ?)",
            (key, stored.id, stored.status, json.dumps(stored.content, ensure_ascii=False)),
        )

    def forget_example(self, key: str) -> None:
        """What was made of it no longer holds; its calls stay."""
        self._db.execute("DELETE FROM examples WHERE key = ?", (key,))

    def begin(self) -> None:
        """Start a run: the examples it is about are listed anew."""
        self._db.execute("DELETE FROM run")

    def list_example(self, position: int, key: str, id: str) -> None:
        """Example `id`, known by `key`, stands at `position` of this run's source."""
        self._db.execute("INSERT INTO run VALUES (?, ?, ?)", (position, key, id))

    def listed(self) -> Iterator[tuple[str, Stored | None]]:
        """This run's examples in the order of the source: id, and what was made of it."""
        rows = self._db.execute(
            "SELECT run.id, examples.status, examples.content FROM run "
            "LEFT JOIN examples ON examples.key = run.key ORDER BY position"
        )
        for name, status, content in rows:
            yield name, Stored(name, status, json.loads(content)) if status else None

    def by_id(self, id: str) -> Stored | None:
        """The example of this run with that id."""
        row = self._db.execute("SELECT key FROM run WHERE id = ?", (id,)).fetchone()
        return self.example(row[0]) if row else None

    def ids(self, most: int) -> list[str]:
        """The first examples of this run."""
        rows = self._db.execute("SELECT id FROM run ORDER BY position LIMIT ?", (most,))
        return [row[0] for row in rows]

    def calls_of(self, id: str) -> list[tuple[int, str, int, str, str]]:
        """Round, stage, attempt, finish and answer of every call kept for an example."""
        return list(
            self._db.execute(
                "SELECT round, stage, attempt, finish, text FROM calls WHERE example = ?", (id,)
            )
        )

    def spent(self) -> list[tuple[str, int, int, int, float]]:
        """Per stage: calls, prompt tokens, answer tokens and cost of all calls kept."""
        return list(
            self._db.execute(
                "SELECT stage, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens), SUM(cost) "
                "FROM calls GROUP BY stage"
            )
        )
