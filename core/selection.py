"""What a person chose, and what is chosen when a run goes on: the input of `resolve`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .files import write_atomic
from .keys import table_in

if TYPE_CHECKING:
    from .runs.record import RunRecord


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person chose: the input of `resolve`, and the ingredients of a replay.

    Attributes:
        step: a step id or an unambiguous tail of one.
        config: a config's name or path; None takes the step's default.
        overrides: `key=value` in OmegaConf's dotlist syntax; `run.env.*` goes to the profile.
        profile: the env profile; `local` always exists.
        env_file: an env file to use instead of the ones that are found.
        catalog: additional folders of steps.
        name: a name for the run; None makes one from step and config.
        from_run: a run whose product fills the step's input of the fitting type.
        cwd: the folder that relative paths start from.
        detached: whether the launcher leaves once it is submitted; a profile may have partitions
            of its own for that.
    """

    step: str
    config: str | None = None
    overrides: tuple[str, ...] = ()
    profile: str = "local"
    env_file: Path | None = None
    catalog: tuple[Path, ...] = ()
    name: str | None = None
    from_run: str | None = None
    cwd: Path = field(default_factory=Path.cwd)
    detached: bool = False

    def to_json(self) -> dict[str, Any]:
        """The selection as plain data, for records and replays."""
        return {
            "step": self.step,
            "config": self.config,
            "overrides": list(self.overrides),
            "profile": self.profile,
            "env_file": str(self.env_file) if self.env_file else None,
            "catalog": [str(folder) for folder in self.catalog],
            "name": self.name,
            "cwd": str(self.cwd),
            "detached": self.detached,
        }


def resume_selection(
    record: RunRecord, overrides: Iterable[str], *, detached: bool = False
) -> Selection:
    """The selection that goes on from an ended run's last published checkpoint.

    The config is the one that the run recorded, so that nothing which changed since changes the
    run; `overrides` come on top.

    Raises:
        UsageError: if the run published no checkpoint.
    """
    run_dir = Path(record.run_dir)
    away = record.backend != "local" and (record.handle or {}).get("run_dir")
    recorded = table_in(record.plan["config_values"], "checkpoint")
    folder = recorded.get("checkpoint_dir") or f"{away or run_dir}/checkpoints"
    latest = Path(folder) / "latest"
    if not away and not latest.exists():
        raise UsageError(
            f"Run {record.run_id} published no checkpoint to resume from.",
            fix=f"Start it again instead: tunedeck replays save NAME --from {record.run_id}, "
            "then tunedeck replay NAME.",
        )
    chosen = record.plan["selection"]
    config = run_dir / "config.yaml"
    if away:  # what lies here, if anything, was brought home and names paths of over there
        config = run_dir / "planned.yaml"
        write_atomic(config, json.dumps(record.plan["config_values"], indent=2))  # JSON is YAML
    return Selection(
        step=record.step,
        config=str(config),
        overrides=(f"checkpoint.restore_from={latest if away else latest.resolve()}", *overrides),
        profile=record.profile,
        env_file=Path(chosen["env_file"]) if chosen.get("env_file") else None,
        catalog=tuple(Path(folder) for folder in chosen.get("catalog", ())),
        name=record.name,
        cwd=Path(chosen["cwd"]),
        detached=detached,
    )
