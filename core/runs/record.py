"""The record of one run, as it is kept and as it is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..backends.base import Handle
from ..plan import Plan
from ..process import ProcessMark
from ..states import RunState


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One submission and its fate. Times are Unix seconds; there is no secret in any field.

    Attributes:
        plan: `Plan.to_json()`.
        forced: whether it was submitted despite errors that preflight found.
        launcher: the process that submits it, so that others can tell whether it still does.
        handle: what the backend wrote down at submission; None until it has answered.
        word: the backend's own word for the state.
    """

    run_id: str
    name: str
    step: str
    config: str
    profile: str
    backend: str
    run_dir: Path
    created_at: float
    state: RunState
    plan: Mapping[str, Any] = field(repr=False)
    forced: bool = False
    launcher: Mapping[str, Any] | None = field(default=None, repr=False)
    job_id: str | None = None
    handle: Mapping[str, Any] | None = field(default=None, repr=False)
    word: str = ""
    reason: str = ""
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None

    @classmethod
    def of(cls, plan: Plan, *, forced: bool) -> RunRecord:
        """The record of a plan that this process is about to submit."""
        launcher = ProcessMark.of(os.getpid())
        return cls(
            run_id=plan.run_id,
            name=plan.name,
            step=plan.step,
            config=plan.config_name,
            profile=plan.profile,
            backend=plan.executor,
            run_dir=plan.run_dir,
            created_at=plan.created_at,
            state=RunState.SUBMITTING,
            plan=plan.to_json(),
            forced=forced,
            launcher=launcher.to_json() if launcher else None,
        )

    @property
    def backend_handle(self) -> Handle | None:
        """The handle to ask the backend with, once there is one."""
        if self.job_id is None or self.handle is None:
            return None
        return Handle(self.run_id, self.job_id, dict(self.handle))

    @property
    def log(self) -> Path:
        """The log on this machine: the run's own, or the copy that is brought home."""
        return self.run_dir / "log.txt"

    def to_row(self) -> dict[str, Any]:
        """The record as a row of the registry."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "step": self.step,
            "config": self.config,
            "profile": self.profile,
            "backend": self.backend,
            "run_dir": str(self.run_dir),
            "created_at": self.created_at,
            "plan": json.dumps(self.plan),
            "forced": int(self.forced),
            "launcher": None if self.launcher is None else json.dumps(self.launcher),
            "job_id": self.job_id,
            "handle": None if self.handle is None else json.dumps(self.handle),
            "state": str(self.state),
            "word": self.word,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRecord:
        """Read back what `to_row` gave."""
        fields = {key: row[key] for key in row.keys()}  # noqa: SIM118 - a sqlite3.Row is no mapping
        for key in ("plan", "launcher", "handle"):
            fields[key] = None if fields[key] is None else json.loads(fields[key])
        fields["run_dir"] = Path(fields["run_dir"])
        fields["state"] = RunState(fields["state"])
        fields["forced"] = bool(fields["forced"])
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """The contract's shape for `runs list`."""
        return {
            "run_id": self.run_id,
            "name": self.name,
            "step": self.step,
            "config": self.config,
            "profile": self.profile,
            "backend": self.backend,
            "job_id": self.job_id,
            "state": str(self.state),
            "reason": self.reason,
            "exit_code": self.exit_code,
            "created_at": iso_utc(self.created_at),
            "started_at": iso_utc(self.started_at),
            "ended_at": iso_utc(self.ended_at),
            "run_dir": str(self.run_dir),
        }


def iso_utc(moment: float | None) -> str | None:
    """Unix seconds as ISO 8601 in UTC, to the millisecond: `2025-11-21T01:28:03.120Z`."""
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
