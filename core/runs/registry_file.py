"""The registry's SQLite file: opened at this version's schema, its failures put into words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import locations
from ..errors import Place, TunedeckError
from ..files import is_full, on_network

_BUSY_S = 30.0
_MIGRATIONS = (
    """
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        step TEXT NOT NULL,
        config TEXT NOT NULL,
        profile TEXT NOT NULL,
        backend TEXT NOT NULL,
        run_dir TEXT NOT NULL,
        created_at REAL NOT NULL,
        plan TEXT NOT NULL,
        forced INTEGER NOT NULL,
        launcher TEXT,
        job_id TEXT,
        handle TEXT,
        state TEXT NOT NULL,
        word TEXT NOT NULL,
        reason TEXT NOT NULL,
        exit_code INTEGER,
        started_at REAL,
        ended_at REAL
    ) WITHOUT ROWID;
    CREATE INDEX runs_by_name ON runs (name, run_id);
    CREATE INDEX runs_by_state ON runs (state);
    """,
)
"""One script a schema version; `PRAGMA user_version` says how many have been applied."""


class RegistryFile:
    """A database that any number of processes share.

    Args:
        path: the file. Made, with its folder, when it is first opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a transaction that holds the write lock from its start."""
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection to a database of this version.

        Raises:
            TunedeckError: if the file is locked, damaged, not writable, or of a later version.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = self._connect()
            try:
                db.row_factory = sqlite3.Row
                self._migrate(db)
                yield db
            finally:
                db.close()
        except (sqlite3.DatabaseError, OSError) as error:
            raise self._trouble(error) from error

    def _connect(self) -> sqlite3.Connection:
        where, uri = str(self.path), False
        if self.path.exists() and not os.access(self.path.parent, os.W_OK):
            # SQLite makes files beside it even to read, unless told that nobody writes to it.
            how = "mode=ro" if Path(f"{where}-wal").exists() else "immutable=1"
            where, uri = f"{self.path.absolute().as_uri()}?{how}", True
        return sqlite3.connect(where, timeout=_BUSY_S, isolation_level=None, uri=uri)

    def _migrate(self, db: sqlite3.Connection) -> None:
        if _version(db) == len(_MIGRATIONS):
            return
        # WAL needs memory that all its readers share: those of one machine do.
        db.execute(f"PRAGMA journal_mode = {'DELETE' if on_network(self.path) else 'WAL'}")
        db.execute("BEGIN IMMEDIATE")
        version = _version(db)  # another process may have been first
        if version > len(_MIGRATIONS):
            raise TunedeckError(
                f"The registry is of version {version}, made by a newer tunedeck; this one knows "
                f"up to {len(_MIGRATIONS)}.",
                place=Place(str(self.path)),
                fix="Upgrade: pip install --upgrade tunedeck. Or set TUNEDECK_HOME elsewhere.",
            )
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
        db.execute("COMMIT")

    def _trouble(self, error: sqlite3.DatabaseError | OSError) -> TunedeckError:
        """What a failure of the database means to a person, and the way out. Nothing is deleted."""
        place, words = Place(str(self.path)), str(error)
        if "locked" in words:
            text, fix = (
                f"The registry has been locked by another process for {_BUSY_S:.0f} s.",
                f"See which: fuser {self.path}",
            )
        elif "full" in words or is_full(self.path.parent):  # "disk I/O error" may mean it too
            text, fix = (
                "The registry cannot be written: the disk is full.",
                "Free some room on that disk, or set TUNEDECK_HOME to a folder on another one.",
            )
        elif isinstance(error, OSError | sqlite3.OperationalError):
            text, fix = (
                f"The registry cannot be used: {words}.",
                "Check its permissions, or set TUNEDECK_HOME to a folder that you can write to.",
            )
        else:
            text, fix = (
                f"The registry is damaged: {words}.",
                f"Set it aside, and a new one is made: mv {self.path} {self.path}.damaged. "
                f"Runs go on, and their folders stay in {locations.runs_dir()}.",
            )
        return TunedeckError(text, place=place, fix=fix)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
