"""What a launch would do differently from the last run of the same step and config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .replays.lock import Change, changes_between, lock_of

if TYPE_CHECKING:
    from .runs.record import RunRecord
    from .runs.registry import Registry


@dataclass(frozen=True, slots=True)
class Since:
    """The last run, and every resolved value that is another one now.

    Attributes:
        record: the run.
        changes: what differs; where the profile is another one, that alone is said of it.
    """

    record: RunRecord
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """`{run_id, name, changes}`."""
        return {
            "run_id": self.record.run_id,
            "name": self.record.name,
            "changes": [change.to_json() for change in self.changes],
        }


def since_last(plan: Mapping[str, Any], registry: Registry) -> Since | None:
    """Hold a plan against the newest run of its step and config; None where there is none.

    One that goes on from a run is held against that run.

    Args:
        plan: `Plan.to_json()`.
        registry: where the runs are.
    """
    for record in registry.list(step=plan["step"]):
        goes_on = Path(plan["config"]).parent == Path(record.run_dir)
        if not (goes_on or record.config == plan["config"]) or record.run_id == plan["run_id"]:
            continue
        if "cwd" not in record.plan["selection"]:  # launched from elsewhere, and taken in since
            continue
        other = record.profile != plan["profile"]
        changes = changes_between(lock_of(record.plan), lock_of(plan), other_profile=other)
        if other:
            changes = [Change("profile", record.profile, plan["profile"]), *changes]
        return Since(record, tuple(changes))
    return None
