"""What a command has asked and got, in one SQLite file.

An answer is committed with its grade as soon as it is there, so that a kill loses at most the
answers in flight. What a report says is computed from these records alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..records import Records
from .client import Answer
from .errors import EvaluationError
from .series import Series
from .tasks import Grade, Problem

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    key TEXT PRIMARY KEY, status TEXT NOT NULL, facts TEXT NOT NULL, text TEXT NOT NULL,
    reasoning TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, about TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS problems (
    series INTEGER NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL, messages TEXT NOT NULL,
    reference TEXT NOT NULL, groups TEXT NOT NULL, branches TEXT NOT NULL,
    PRIMARY KEY (series, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS members (
    series INTEGER NOT NULL, position INTEGER NOT NULL, sample INTEGER NOT NULL,
    key TEXT NOT NULL, PRIMARY KEY (series, position, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timings (
    key TEXT PRIMARY KEY, position INTEGER NOT NULL, content TEXT NOT NULL
) WITHOUT ROWID;
"""

Kind = Literal["run", "budget", "latency"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, or that there is none.

    Attributes:
        status: `answered`, or `failed` for one that did not come after all retries.
        why: of a failed one.
        note: what the grader had to say besides its verdict, such as a time-out.
        reused: the larger budget whose answer this is, unchanged; 0 if it was asked for.
    """

    status: Literal["answered", "failed"]
    why: str = ""
    finish: str = ""
    prompt_tokens: int | None = None
    tokens: int | None = None
    structure: dict[str, Any] | None = None
    ttft: float | None = None
    seconds: float | None = None
    tries: int = 0
    right: bool = False
    extracted: str | None = None
    note: str = ""
    reused: int = 0


def answered(answer: Answer, grade: Grade, note: str) -> Sample:
    return Sample(
        status="answered",
        finish=answer.finish,
        prompt_tokens=answer.prompt_tokens,
        tokens=answer.tokens,
        structure=answer.structure,
        ttft=answer.ttft,
        seconds=answer.seconds,
        tries=answer.tries,
        right=grade.right,
        extracted=grade.extracted,
        note=note,
    )


class Asked(NamedTuple):
    """A problem of a series and what came of its samples; `None` for one not asked yet.

    `messages` are the problem's own, without what the series adds to them. `texts` are those of the
    answers, empty where there is none.
    """

    id: str
    messages: list[dict[str, str]]
    reference: str
    groups: dict[str, str]
    branches: tuple[int, ...] | None
    samples: list[Sample | None]
    texts: list[str]


class Store(Records):
    """The records below one output directory.

    Raises:
        EvaluationError: the file is no store, or another command has it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        super().__init__(folder, _TABLES, "samples", EvaluationError, read_only=read_only)

    def fact(self, name: str) -> Any:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def keep_fact(self, name: str, value: Any) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _json(value)))

    def claim(self, kind: Kind) -> None:
        """Make the directory one for this kind of command.

        Raises:
            EvaluationError: it is one for another.
        """
        found = self.fact("kind")
        if found not in (None, kind):
            raise EvaluationError(f"out: holds the records of `{found}`, not of `{kind}`")
        self.keep_fact("kind", kind)

    def begin(self, series: Series, problems: Sequence[Problem], samples: int) -> int:
        """List a series anew; its number. Answers that are there stay."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute(
                "INSERT INTO series (key, about) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET about = excluded.about",
                (series.key, _json({**asdict(series), "samples": samples})),
            )
            (number,) = self._db.execute(
                "SELECT id FROM series WHERE key = ?", (series.key,)
            ).fetchone()
            for table in ("problems", "members"):
                self._db.execute(f"DELETE FROM {table} WHERE series = ?", (number,))
            for position, problem in enumerate(problems):
                messages = _json([dict(message) for message in problem.messages])
                self._db.execute(
                    "INSERT INTO problems VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(number, position, problem.id, messages, problem.reference),
                        *(_json(dict(problem.groups)), _json(problem.branches)),
                    ),
                )
                self._db.executemany(
                    "INSERT INTO members VALUES (?, ?, ?, ?)",
                    [
                        (number, position, index, series.sample_key(problem, index))
                        for index in range(samples)
                    ],
                )
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return int(number)

    def status(self, key: str) -> str | None:
        row = self._db.execute("SELECT status FROM samples WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def sample(self, key: str) -> Sample | None:
        row = self._db.execute("SELECT facts FROM samples WHERE key = ?", (key,)).fetchone()
        return Sample(**json.loads(row[0])) if row else None

    def texts(self, key: str) -> tuple[str, str] | None:
        """Text and reasoning of an answer."""
        row = self._db.execute(
            "SELECT text, reasoning FROM samples WHERE key = ?", (key,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def keep(self, key: str, sample: Sample, text: str = "", reasoning: str = "") -> None:
        """Commit what came of a sample."""
        self._db.execute(
            "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?)",
            (key, sample.status, _json(asdict(sample)), text, reasoning),
        )

    def all_series(self) -> list[tuple[int, dict[str, Any]]]:
        """Number and description of every series, in the order in which they were begun."""
        rows = self._db.execute("SELECT id, about FROM series ORDER BY id")
        return [(number, json.loads(about)) for number, about in rows]

    def asked(self, series: int) -> list[Asked]:
        """The problems of a series, with their samples in order."""
        samples: dict[int, list[Sample | None]] = {}
        texts: dict[int, list[str]] = {}
        for position, facts, text in self._db.execute(
            "SELECT position, samples.facts, samples.text FROM members LEFT JOIN samples "
            "ON samples.key = members.key WHERE series = ? ORDER BY position, sample",
            (series,),
        ):
            samples.setdefault(position, []).append(Sample(**json.loads(facts)) if facts else None)
            texts.setdefault(position, []).append(text or "")
        rows = self._db.execute(
            "SELECT position, id, messages, reference, groups, branches FROM problems "
            "WHERE series = ? ORDER BY position",
            (series,),
        )
        return [
            Asked(
                *(name, json.loads(said), wanted, json.loads(groups)),
                None if (asked := json.loads(branches)) is None else tuple(asked),
                *(samples[position], texts[position]),
            )
            for position, name, said, wanted, groups, branches in rows
        ]

    def answers(self, series: int) -> Iterator[dict[str, Any]]:
        """Every sample there is of a series, with its problem and texts."""
        for name, index, reference, facts, text, reasoning in self._db.execute(
            "SELECT problems.id, members.sample, reference, facts, text, reasoning "
            "FROM members JOIN samples ON samples.key = members.key JOIN problems ON "
            "problems.series = members.series AND problems.position = members.position "
            "WHERE members.series = ? ORDER BY members.position, members.sample",
            (series,),
        ):
            yield {
                "problem": name,
                "sample": index,
                "reference": reference,
                "text": text,
                "reasoning": reasoning,
                **json.loads(facts),
            }

    def timing(self, key: str) -> dict[str, Any] | None:
        row = self._db.execute("SELECT content FROM timings WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def keep_timing(self, key: str, position: int, content: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO timings VALUES (?, ?, ?)", (key, position, _json(content))
        )

    def timings(self) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT content FROM timings ORDER BY position")
        return [json.loads(content) for (content,) in rows]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
