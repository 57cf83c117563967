"""The registry: every run there was, from before the network call that started it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .. import locations
from ..backends.base import Handle
from ..errors import NotFoundError
from ..states import RunState, Status
from ..text import did_you_mean
from .record import RunRecord
from .registry_file import RegistryFile

__all__ = ["Registry", "RunRecord"]

_Records: TypeAlias = list[RunRecord]

_SEE_ALL = "See what there is: tunedeck runs list"


class Registry:
    """The table of runs, in a SQLite file that any number of processes share.

    Each operation opens the file, so that an object can be used from any thread and after a fork.

    Args:
        path: the database; the user's own one by default. Made when it is first written to.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or locations.registry_file()
        self._file = RegistryFile(self.path)

    def add(self, record: RunRecord) -> None:
        """Save a new run. Called before anything is sent anywhere.

        Raises:
            TunedeckError: if it cannot be saved; then nothing may be sent.
        """
        row = record.to_row()
        columns, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._file.writing() as db:
            db.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", row)  # noqa: S608 - own names

    def update(
        self, run_id: str, status: Status | None = None, *, handle: Handle | None = None
    ) -> RunRecord:
        """Save what has been learnt of a run, and return the record as it then is.

        A state moves forward only: what several processes learn arrives in any order, so a terminal
        state gives way to no other, save `lost` to the truth that was found later.

        Args:
            run_id: the run.
            status: its status as its backend tells it.
            handle: how its backend finds it again.
        """
        with self._file.writing() as db:
            if handle is not None:
                db.execute(
                    "UPDATE runs SET job_id = ?, handle = ? WHERE run_id = ?",
                    (handle.job_id, json.dumps(handle.data), run_id),
                )
            if status is not None:
                _save_status(db, run_id, status)
            row = db.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise NotFoundError(
                f"Run {run_id} is no longer in the registry.",
                fix="See what there is: tunedeck runs list",
            )
        return RunRecord.from_row(row)

    def reopen(self, run_id: str, status: Status, handle: Handle) -> RunRecord:
        """Save that a run which had been put on hold goes on, and return its record."""
        with self._file.writing() as db:
            db.execute(
                """
                UPDATE runs SET job_id = ?, handle = ?, state = ?, word = ?, reason = ?,
                    exit_code = ?, ended_at = ?
                WHERE run_id = ? AND state = ?
                """,
                (
                    handle.job_id,
                    json.dumps(handle.data),
                    str(status.state),
                    status.word,
                    status.reason,
                    status.exit_code,
                    status.ended_at,
                    run_id,
                    str(RunState.PREEMPTED),
                ),
            )
        return self.get(run_id)

    def get(self, run_id: str) -> RunRecord:
        """The run of exactly this id.

        Raises:
            NotFoundError: if there is none.
        """
        found = self._select("WHERE run_id = ?", run_id)
        if not found:
            raise NotFoundError(f"There is no run {run_id}.", fix=_SEE_ALL)
        return found[0]

    def list(
        self, *, states: Sequence[RunState] = (), step: str | None = None, limit: int | None = None
    ) -> _Records:
        """Runs, newest first.

        Args:
            states: only runs in one of these states.
            step: only runs of this step, by its id or the tail of it.
            limit: at most so many.
        """
        clauses, values = ["1"], list[Any]()
        if states:
            clauses.append(f"state IN ({', '.join('?' * len(states))})")
            values += [str(state) for state in states]
        if step:
            clauses.append("(step = ? OR substr(step, -length(?)) = ?)")
            values += [step, f"/{step}", f"/{step}"]
        tail = "ORDER BY run_id DESC LIMIT ?"
        return self._select(f"WHERE {' AND '.join(clauses)} {tail}", *values, limit or -1)

    def find(self, query: str) -> RunRecord:
        """The run that a person means: by id, by name (the newest of it), or by the start of an id.

        Raises:
            NotFoundError: if none or more than one fits; the nearest are named.
        """
        by_id = self._select("WHERE run_id = ?", query)
        by_name = by_id or self._select("WHERE name = ? ORDER BY run_id DESC LIMIT 1", query)
        if by_name:
            return by_name[0]
        # An empty word starts every id: a variable of a script that is not set means no run.
        beginning = "WHERE substr(run_id, 1, length(?)) = ? ORDER BY run_id DESC LIMIT 6"
        by_start = self._select(beginning, query, query) if query else []
        if len(by_start) == 1:
            return by_start[0]
        if by_start:
            shown = ", ".join(record.run_id for record in by_start[:5])
            more = ", …" if len(by_start) > 5 else ""
            raise NotFoundError(
                f"'{query}' is the start of several run ids: {shown}{more}.",
                fix="Give more of the id.",
            )
        known = [name for record in self.list() for name in (record.name, record.run_id)]
        raise NotFoundError(
            f"There is no run '{query}'. {did_you_mean(query, known)}".strip(),
            fix=_SEE_ALL,
        )

    def delete(self, run_id: str) -> None:
        """Forget a run. Its folder is the caller's matter."""
        with self._file.writing() as db:
            db.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def _select(self, tail: str, *values: Any) -> _Records:
        if not self.path.exists():
            return []
        with self._file.open() as db:
            rows = db.execute(f"SELECT * FROM runs {tail}", values).fetchall()  # noqa: S608 - own text
        return [RunRecord.from_row(row) for row in rows]


def _save_status(db: sqlite3.Connection, run_id: str, status: Status) -> None:
    row = db.execute("SELECT state FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is None or not _follows(RunState(row["state"]), status.state):
        return
    db.execute(
        """
        UPDATE runs SET state = ?, word = ?, reason = ?, exit_code = coalesce(?, exit_code),
            started_at = coalesce(?, started_at), ended_at = coalesce(?, ended_at)
        WHERE run_id = ?
        """,
        (
            str(status.state),
            status.word,
            status.reason,
            status.exit_code,
            status.started_at,
            status.ended_at,
            run_id,
        ),
    )


def _follows(known: RunState, told: RunState) -> bool:
    """Whether what is told may replace what is known."""
    if known is RunState.LOST:
        return told.terminal
    return not known.terminal or told is known
