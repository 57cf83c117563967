"""The env profiles that one may choose among: resolved, checked, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .env.check import check_env_files
from .env.compare import explain
from .env.find import find_env_files
from .env.load import load_readable
from .env.resolve import ResolvedProfile, Resolver
from .errors import Place, UsageError
from .findings import Finding
from .origins import Sourced


@dataclass(frozen=True, slots=True)
class ProfileLook:
    """One profile.

    Attributes:
        executor: its backend's name; empty if it names none.
        place: where its table stands; nowhere for the built-in one.
        values: resolved; empty where it cannot be inherited.
        explained: each key with its value and origin, secrets masked.
        findings: what is wrong with it, with what it inherits too.
    """

    name: str
    executor: str
    place: Place
    values: Mapping[str, Any]
    explained: Mapping[str, Sourced]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Profiles:
    """All profiles, in the order of their files, and why those files.

    Attributes:
        findings: what is wrong with the files and is about none of their profiles.
    """

    files: tuple[Path, ...]
    reason: str
    profiles: tuple[ProfileLook, ...]
    findings: tuple[Finding, ...] = ()


def look_at_profiles(cwd: Path | None = None, env_file: Path | None = None) -> Profiles:
    """Find, read, resolve and check the env files. Uses no network.

    A file that cannot be read at all, or that defines a profile once more, is a finding: the
    profiles are those of the others, and the built-in one.

    Raises:
        UsageError: if a file that was named is not there.
    """
    found = find_env_files(cwd, env_file)
    files, unread = load_readable(found)
    findings = check_env_files(files)
    resolver = Resolver(files)
    profiles = []
    for profile in files.profiles.values():
        own = tuple(finding for finding in findings if finding.profile == profile.name)
        try:
            resolved, _ = resolver.attempt(profile.name)
        except UsageError as error:
            at = error.place or profile.place()
            own = own or (replace(Finding.of(error), place=at, profile=profile.name),)
            profiles.append(ProfileLook(profile.name, "", profile.place(), {}, {}, own))
            continue
        profiles.append(
            ProfileLook(
                profile.name,
                resolved.executor,
                profile.place(),
                resolved.values,
                explain(resolved),
                own + tuple(_inherited(findings, resolved)),
            )
        )
    of_files = [one for one in findings if one.profile not in files.profiles]
    told = (*map(Finding.of, unread), *of_files)
    return Profiles(found.files, found.reason, tuple(profiles), told)


def made_for(names: Iterable[str], step: str) -> list[str]:
    """The profiles that are meant for a step, going by their names as `env init` gives them.

    A name ends in the step's last words (`hf_peft_automodel`); where none does, those that hold
    the first one count (`hf_convert_model`).
    """
    words = step.replace("/", "_").split("_")
    known = list(names)
    tail = "_" + "_".join(words[-max(len(words) - 1, 2) :])
    closest = [name for name in known if f"_{name}".endswith(tail)]
    return closest or [name for name in known if step and words[0] in name.split("_")]


def _inherited(findings: Iterable[Finding], profile: ResolvedProfile) -> Iterator[Finding]:
    """What is wrong with values that a profile has from another one."""
    for finding in findings:
        key = finding.key or ""
        while key and key not in profile.origins:
            key = key.rpartition(".")[0]
        if not key or finding.profile == profile.name:
            continue
        if profile.origins[key].origin.layer == f"profile {finding.profile}":
            yield finding
