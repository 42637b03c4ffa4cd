"""A study's folder: its clips, and one SQLite file with its raters, their trials and answers.

    <folder>/study.db          the definition, the token of its address, and everything answered
    <folder>/clips/<name>.png  names are random, and say nothing

An answer is on the disk when it is confirmed (WAL, synchronous=FULL). The trials of a rater are
written when the rater joins; an answer belongs to (rater, position), once, in order.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.studying.plan import RATINGS, Study, Trial, trials_of

DATABASE = "study.db"
_BUSY_S = 10.0
_SCHEMA = """
CREATE TABLE study (token TEXT NOT NULL, definition TEXT NOT NULL);
CREATE TABLE clip (name TEXT PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rater (
    number INTEGER PRIMARY KEY,
    code TEXT NOT NULL UNIQUE,
    key_sha256 TEXT NOT NULL UNIQUE,
    joined_at TEXT NOT NULL
);
CREATE TABLE trial (
    rater INTEGER NOT NULL REFERENCES rater,
    position INTEGER NOT NULL,
    is_check INTEGER NOT NULL,
    first TEXT NOT NULL REFERENCES clip,
    second TEXT REFERENCES clip,
    PRIMARY KEY (rater, position)
) WITHOUT ROWID;
CREATE TABLE answer (
    rater INTEGER NOT NULL,
    position INTEGER NOT NULL,
    value INTEGER NOT NULL CHECK (value BETWEEN 0 AND 10),
    answered_at TEXT NOT NULL,
    PRIMARY KEY (rater, position),
    FOREIGN KEY (rater, position) REFERENCES trial
) WITHOUT ROWID;
"""
_ROWS = """
SELECT rater.code, position, is_check, one.source, two.source, first, second, value, answered_at
FROM answer JOIN trial USING (rater, position) JOIN rater ON rater.number = rater
JOIN clip AS one ON one.name = first LEFT JOIN clip AS two ON two.name = second
ORDER BY rater, position
"""


class RefusedError(Exception):
    """What the state of the study does not allow: out of order, answered otherwise, or full."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a rater is. shown: the clips of the next question, coming: of the one after."""

    code: str
    done: int
    shown: tuple[str, ...]
    coming: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one rater said to one trial.

    sources, clips: of what was shown, in that order. value: in pairs the place of the clip chosen,
    0 or 1; in a rating 1 to 10.
    """

    rater: str
    position: int
    is_check: bool
    sources: tuple[str, ...]
    clips: tuple[str, ...]
    value: int
    answered_at: str


class Answers:
    """The open study of a folder; safe to use from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Opens what `create` made. Raises ValueError where there is none."""
        self.folder = folder
        if not (folder / DATABASE).is_file():
            raise ValueError(f"no study at {folder}")
        self._lock = threading.Lock()
        self._open = sqlite3.connect(
            folder / DATABASE, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._open.execute("PRAGMA synchronous=FULL")
        self._open.execute("PRAGMA foreign_keys=ON")
        self.token, definition = self._open.execute(
            "SELECT token, definition FROM study"
        ).fetchone()
        self.study = Study.from_json(definition)
        self.clips: dict[str, list[str]] = {}
        for name, source in self._open.execute("SELECT name, source FROM clip ORDER BY name"):
            self.clips.setdefault(source, []).append(name)

    @classmethod
    def create(cls, folder: Path, study: Study, source_of: Mapping[str, str]) -> None:
        """Writes the database of a new study into `folder`. source_of: by clip's name."""
        with sqlite3.connect(folder / DATABASE, isolation_level=None) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.executescript(_SCHEMA)
            database.execute("BEGIN")
            database.execute(
                "INSERT INTO study VALUES (?, ?)", (secrets.token_urlsafe(24), study.to_json())
            )
            database.executemany("INSERT INTO clip VALUES (?, ?)", sorted(source_of.items()))
            database.execute("COMMIT")
        database.close()

    def close(self) -> None:
        """Closes the database, folding its log into it."""
        self._open.close()

    def join(self, most: int) -> str:
        """A new rater's secret key. Raises RefusedError when there are `most` of them already."""
        key, code = secrets.token_urlsafe(24), secrets.token_hex(4)
        with self._transaction() as database:
            (raters,) = database.execute("SELECT count(*) FROM rater").fetchone()
            if raters >= most:
                raise RefusedError("this study has all the raters that it wants")
            number = raters + 1
            database.execute(
                "INSERT INTO rater VALUES (?, ?, ?, ?)", (number, code, _sha256(key), _now())
            )
            database.executemany(
                "INSERT INTO trial VALUES (?, ?, ?, ?, ?)",
                [
                    (number, position, trial.is_check, *_two(trial))
                    for position, trial in enumerate(trials_of(self.study, self.clips, number))
                ],
            )
        return key

    def rater(self, key: str) -> int | None:
        """The number of the rater with this key."""
        with self._lock:
            found = self._open.execute(
                "SELECT number FROM rater WHERE key_sha256 = ?", (_sha256(key),)
            ).fetchone()
        return found and int(found[0])

    def standing(self, rater: int) -> Standing:
        """What the rater has done, and is to be shown."""
        with self._lock:
            (code,) = self._open.execute(
                "SELECT code FROM rater WHERE number = ?", (rater,)
            ).fetchone()
            done = _done(self._open, rater)
            ahead = self._open.execute(
                "SELECT first, second FROM trial WHERE rater = ? AND position IN (?, ?) "
                "ORDER BY position",
                (rater, done, done + 1),
            ).fetchall()
        shown, coming, *_ = [tuple(filter(None, clips)) for clips in ahead] + [(), ()]
        return Standing(code=code, done=done, shown=shown, coming=coming)

    def answer(self, rater: int, position: int, value: int) -> bool:
        """Stores an answer; False when it had been stored before, and nothing changed.

        Raises ValueError for what is no answer to any trial, RefusedError for an answer ahead of
        its turn, and for another than the one that stands.
        """
        valid = range(2) if self.study.mode == "pairs" else RATINGS
        if value not in valid:
            raise ValueError(f"value: {value} must be from {valid[0]} to {valid[-1]}")
        if not 0 <= position < self.study.length:
            raise ValueError(f"position: there is no trial {position}")
        with self._transaction() as database:
            done = _done(database, rater)
            if position > done:
                raise RefusedError(
                    f"position: trial {position} is not to be answered before {done}"
                )
            stored = database.execute(
                "SELECT value FROM answer WHERE rater = ? AND position = ?", (rater, position)
            ).fetchone()
            if stored is None:
                database.execute(
                    "INSERT INTO answer VALUES (?, ?, ?, ?)", (rater, position, value, _now())
                )
            elif stored[0] != value:
                raise RefusedError(f"position: trial {position} has another answer, which stands")
        return stored is None

    def all(self) -> list[Answer]:
        """Every answer, by rater and position."""
        with self._lock:
            rows = self._open.execute(_ROWS).fetchall()
        return [
            Answer(
                rater=code,
                position=position,
                is_check=bool(is_check),
                sources=tuple(filter(None, sources)),
                clips=tuple(filter(None, clips)),
                value=value,
                answered_at=answered_at,
            )
            for code, position, is_check, *both, value, answered_at in rows
            for sources, clips in [(both[:2], both[2:])]
        ]

    def raters(self) -> list[str]:
        """The codes of all raters in the order they joined, those without an answer too."""
        with self._lock:
            return [c for (c,) in self._open.execute("SELECT code FROM rater ORDER BY number")]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._open.execute("BEGIN IMMEDIATE")
            try:
                yield self._open
                self._open.execute("COMMIT")
            except BaseException:
                if self._open.in_transaction:
                    self._open.execute("ROLLBACK")
                raise


def clip_file(folder: Path, name: str) -> Path:
    """The file of the clip `name` in a study's folder."""
    return folder / "clips" / f"{name}.png"


def _done(database: sqlite3.Connection, rater: int) -> int:
    """Answers of the rater, which is also the position of the next: they come in order."""
    row = database.execute("SELECT count(*) FROM answer WHERE rater = ?", (rater,)).fetchone()
    return int(row[0])


def _two(trial: Trial) -> tuple[str, str | None]:
    first, *second = trial.shown
    return first, second[0] if second else None


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
