"""Env files read: the profiles they define and the tables that are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import NOWHERE, Place, UsageError
from ..text import did_you_mean
from ..toml.source import TomlSource, read_toml
from .find import FoundFiles

RESERVED = ("wandb", "cli", "cache", "artifacts")
"""Tables of an env file that are no profiles. They hold for the profiles of their own file."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile as it is written, before inheritance.

    Attributes:
        name: the table's name.
        table: its keys, `extends` among them. May hold a secret that someone wrote in clear.
        source: the file it stands in; None for the built-in one.
    """

    name: str
    table: Mapping[str, Any] = field(repr=False)
    source: TomlSource | None = field(default=None, repr=False)

    def place(self, *key: str | int) -> Place:
        """Where the profile, or a key of it, stands."""
        return self.source.locate((self.name, *key)) if self.source else NOWHERE


BUILT_IN = Profile("local", {"executor": "local", "nodes": 1, "nproc_per_node": 1})
"""There is always a profile `local`. An env file that defines one replaces it."""


@dataclass(frozen=True, slots=True)
class EnvFiles:
    """All env files that are in use, read.

    Attributes:
        found: the files and why they are used.
        sources: each file's text and places.
        profiles: name → profile, in the files' order; `local` is always among them.
    """

    found: FoundFiles
    sources: tuple[TomlSource, ...] = field(repr=False)
    profiles: Mapping[str, Profile] = field(repr=False)

    def profile(self, name: str) -> Profile:
        """The profile of that name.

        Raises:
            UsageError: if there is none; with the nearest name.
        """
        if name in self.profiles:
            return self.profiles[name]
        if name in RESERVED:
            raise UsageError(
                f"'{name}' is a reserved table of env files, not a profile.",
                fix="Name a profile; see them all: tunedeck env list",
            )
        where = ", ".join(str(file) for file in self.found.files) or "no env file was found"
        raise UsageError(
            f"There is no profile '{name}' ({where}). {did_you_mean(name, self.profiles)}".rstrip(),
            fix="See the profiles there are: tunedeck env list"
            if self.found.files
            else "Make an env file, for example: tunedeck env init -c slurm",
        )

    def reserved(self, table: str, profile: str) -> Mapping[str, Any]:
        """A reserved table of the file that defines `profile`, raw; empty where there is none."""
        source = self.profile(profile).source
        values: Mapping[str, Any] = source.data.get(table, {}) if source else {}
        return values


def load_env_files(found: FoundFiles) -> EnvFiles:
    """Read env files.

    Raises:
        UsageError: if a file cannot be read or is no TOML, if something at the top of it is no
            table, or if a profile is defined twice (both places are named).
    """
    return env_files_of(tuple(read_toml(path) for path in found.files), found)


def load_readable(found: FoundFiles) -> tuple[EnvFiles, list[UsageError]]:
    """The env files that can be read, for those who look, and why each other one cannot.

    Who launches uses `load_env_files`: the profile that is meant may stand in what is unreadable.
    """
    sources: tuple[TomlSource, ...] = ()
    errors = []
    for path in found.files:
        try:
            more = (*sources, read_toml(path))
            env_files_of(more, found)
        except UsageError as error:
            errors.append(error)
        else:
            sources = more
    return env_files_of(sources, found), errors


def env_files_of(sources: tuple[TomlSource, ...], found: FoundFiles) -> EnvFiles:
    """Env files from texts that have been read already; raises as `load_env_files` does."""
    profiles: dict[str, Profile] = {}
    for source in sources:
        for name, table in source.data.items():
            if not isinstance(table, dict):
                raise _no_table(source, name, table)
            if name in RESERVED:
                continue
            if name in profiles:
                raise UsageError(
                    f"Profile '{name}' is defined twice: here and at {profiles[name].place()}.",
                    place=source.locate((name,)),
                    fix="Give one of the two another name, or take one of the files away.",
                )
            profiles[name] = Profile(name, _with_executor(name, table), source)
    profiles.setdefault(BUILT_IN.name, BUILT_IN)
    return EnvFiles(found, sources, profiles)


def _with_executor(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """A file's own `local` need not say what its name says."""
    if name != BUILT_IN.name or "executor" in table or "extends" in table:
        return table
    return {"executor": "local", **table}


def _no_table(source: TomlSource, name: str, value: object) -> UsageError:
    what = "a list" if isinstance(value, list) else "a single value"
    return UsageError(
        f"'{name}' is {what} outside any profile; an env file holds one table a profile.",
        place=source.locate((name,)),
        fix=f"Move '{name}' below the header of its profile, for example [{BUILT_IN.name}].",
    )
