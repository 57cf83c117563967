"""The env profiles that one may choose among: resolved, checked, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .env.check import check_env_files
from .env.compare import explain
from .env.find import find_env_files
from .env.load import load_env_files
from .env.resolve import Resolver
from .errors import Place, UsageError
from .findings import Finding, Fix
from .origins import Sourced


@dataclass(frozen=True, slots=True)
class ProfileLook:
    """One profile.

    Attributes:
        executor: its backend's name; empty if it names none.
        place: where its table stands; nowhere for the built-in one.
        values: resolved; empty where it cannot be inherited.
        explained: each key with its value and origin, secrets masked.
        findings: what is wrong with it.
    """

    name: str
    executor: str
    place: Place
    values: Mapping[str, Any]
    explained: Mapping[str, Sourced]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles, in the order of their files, and why those files."""

    files: tuple[Path, ...]
    reason: str
    profiles: tuple[ProfileLook, ...]


def look_at_profiles(cwd: Path | None = None, env_file: Path | None = None) -> Profiles:
    """Find, read, resolve and check the env files. Uses no network.

    Raises:
        UsageError: if a file cannot be read or a profile is defined twice.
    """
    found = find_env_files(cwd, env_file)
    files = load_env_files(found)
    findings = check_env_files(files)
    resolver = Resolver(files)
    profiles = []
    for profile in files.profiles.values():
        own = tuple(finding for finding in findings if finding.profile == profile.name)
        try:
            resolved, _ = resolver.attempt(profile.name)
        except UsageError as error:
            fix = Fix(error.fix) if error.fix else None
            place = error.place or profile.place()
            own = own or (Finding("error", error.message, place, profile.name, fix=fix),)
            profiles.append(ProfileLook(profile.name, "", profile.place(), {}, {}, own))
            continue
        profiles.append(
            ProfileLook(
                profile.name,
                resolved.executor,
                profile.place(),
                resolved.values,
                explain(resolved),
                own,
            )
        )
    return Profiles(found.files, found.reason, tuple(profiles))
