"""The lock of a saved launch: what it resolved to, what has changed since, how to hold it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..config.paths import set_path
from ..resolve import MACHINE_KEYS

_PLAIN_KEY = re.compile(r"[\w-]+")


class Lock(BaseModel):
    """What a launch resolved to when it was saved. Holds no secret, and no path below its folder.

    Attributes:
        tunedeck: the version that saved it.
        plan: the plan's digest.
        step: digest of the step's definition.
        code: digest of the code that runs.
        secrets: names of the secrets that it needs.
        inputs: config keys whose files are known by content; `config` has their digests.
        launch: how the processes are started.
        config, profile: the resolved values. What is null is left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tunedeck: str
    plan: str
    step: str
    code: str
    secrets: list[str] = []
    inputs: list[str] = []
    launch: dict[str, Any] = {}
    config: dict[str, Any] = {}
    profile: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Change:
    """One resolved value that is not what it was. None stands for a value that is not there."""

    key: str
    locked: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.locked)} → {_shown(self.now)}"

    def to_json(self) -> dict[str, Any]:
        """`{key, locked, now}`."""
        return {"key": self.key, "locked": self.locked, "now": self.now}


def lock_of(plan: Mapping[str, Any]) -> Lock:
    """The lock of a plan.

    Args:
        plan: `Plan.to_json()`, from a plan just made or from a run's record.
    """
    from ... import __version__

    cwd = str(plan["selection"]["cwd"])
    config = copy.deepcopy(dict(plan["config_values"]))
    for item in plan["inputs"]:
        set_path(config, item["key"], item["digest"])
    profile = {key: v for key, v in plan["profile_values"].items() if key not in MACHINE_KEYS}
    return Lock(
        tunedeck=__version__,
        plan=plan["digest"],
        step=plan["step_digest"],
        code=plan["code"],
        secrets=sorted(plan["secrets"]),
        inputs=[item["key"] for item in plan["inputs"]],
        launch=_portable(plan["launch"], cwd),
        config=_portable(config, cwd),
        profile=_portable(profile, cwd),
    )


def changes_between(locked: Lock, now: Lock, *, other_profile: bool = False) -> list[Change]:
    """What differs between two locks, value by value.

    Args:
        locked: what was saved.
        now: what the same ingredients come to now.
        other_profile: whether another profile was asked for: then its values are no change.
    """
    before, after = dict(_facts(locked)), dict(_facts(now))
    keys = [*before, *(key for key in after if key not in before)]
    if other_profile:
        keys = [key for key in keys if not key.startswith(("profile.", "launch.", "secrets"))]
    return [
        Change(key, before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


def holding(changes: list[Change], locked: Lock) -> tuple[str, ...]:
    """The overrides that put changed values of config and profile back to what was locked.

    A file's content, the step's definition and the code cannot be put back by an override.
    """
    present = [key for key, _ in _facts(locked)]
    overrides: dict[str, None] = {}
    # What has to go goes first: a table may have to make room for its own keys.
    for change in sorted(changes, key=lambda change: change.locked is not None):
        key = change.key if change.locked is not None else _outermost_absent(change.key, present)
        table, _, inner = key.partition(".")
        if table == "profile":
            inner = f"run.env.{inner}"
        elif table != "config" or any(_touches(inner, name) for name in locked.inputs):
            continue
        overrides[f"{inner}={json.dumps(change.locked, ensure_ascii=False)}"] = None
    return tuple(overrides)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted leaf key → value. A list is one leaf, and so is a table whose keys are no words."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and all(map(_PLAIN_KEY.fullmatch, value)):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _facts(lock: Lock) -> Iterator[tuple[str, Any]]:
    yield "step", lock.step
    yield "code", lock.code
    yield "secrets", lock.secrets
    yield from leaves(lock.launch, "launch.")
    yield from leaves(lock.config, "config.")
    yield from leaves(lock.profile, "profile.")


def _portable(value: Any, cwd: str) -> Any:
    """Plain data as TOML takes it, without nulls, and with paths below `cwd` relative to it."""
    if isinstance(value, Mapping):
        return {key: _portable(item, cwd) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return ["null" if item is None else _portable(item, cwd) for item in value]
    if isinstance(value, str):
        if value == cwd:
            return "."
        return "./" + value.removeprefix(f"{cwd}/") if value.startswith(f"{cwd}/") else value
    return value


def _outermost_absent(key: str, present: Iterable[str]) -> str:
    """The table that was not there at all, where it is more than the one key: `peft`, not its dim.

    A table cannot be taken away key by key.
    """
    names = list(present)
    parts = key.split(".")
    prefixes = (".".join(parts[:end]) for end in range(2, len(parts)))
    return next((p for p in prefixes if not any(_touches(p, name) for name in names)), key)


def _touches(key: str, name: str) -> bool:
    return name == key or name.startswith((f"{key}.", f"{key}["))


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if text.startswith("sha256:"):
        return text[:19]
    return text if len(text) <= 60 else f"{text[:59]}…"
