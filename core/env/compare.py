"""Two resolved profiles side by side, and how one is told to others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..origins import Origin, Sourced
from ..secrets import MASK, is_secret_name
from .resolve import ResolvedProfile


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two profiles do not agree on; None on the side that does not have it."""

    key: str
    a: Sourced | None
    b: Sourced | None


def explain(profile: ResolvedProfile) -> dict[str, Sourced]:
    """Each key of a profile with its value, its place and what it overrode; secrets masked."""
    hidden = {f"env_vars.{secret.name}" for secret in profile.secrets}
    return {
        key: _masked(sourced) if key in hidden or _is_secret(key) else sourced
        for key, sourced in profile.origins.items()
    }


def differences(a: ResolvedProfile, b: ResolvedProfile) -> list[Difference]:
    """The keys in which two profiles differ. Secrets differ if they are read from elsewhere."""
    ours, theirs = explain(a), explain(b)
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return [
        Difference(key, ours.get(key), theirs.get(key))
        for key in keys
        if _value(a, key) != _value(b, key)
    ]


def to_json(sourced: Sourced) -> dict[str, Any]:
    """The contract's shape: `value, layer, file, line, overrode`, the latest override first."""
    overrode = [_entry(value, origin) for value, origin in sourced.overrode]
    return {**_entry(sourced.value, sourced.origin), "overrode": overrode}


def _entry(value: Any, origin: Origin) -> dict[str, Any]:
    return {
        "value": value,
        "layer": origin.layer,
        "file": origin.place.file,
        "line": origin.place.line,
    }


def _value(profile: ResolvedProfile, key: str) -> Any:
    return profile.origins[key].value if key in profile.origins else None


def _is_secret(key: str) -> bool:
    return not key.startswith("secrets.") and is_secret_name(key.rpartition(".")[2])


def _masked(sourced: Sourced) -> Sourced:
    return Sourced(MASK, sourced.origin, tuple((MASK, origin) for _, origin in sourced.overrode))
