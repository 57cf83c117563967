"""`env check`: everything that can be said about env files without asking a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import NOWHERE, Place, UsageError
from ..findings import Finding, Fix
from ..origins import Sourced
from ..toml.source import parse_toml
from .find import FoundFiles
from .inherit import InheritanceError, parents_of
from .load import EnvFiles, Profile, env_files_of, load_readable
from .mend import key_path, value_at
from .models import MODELS
from .models.misfit import fit
from .resolve import ResolvedProfile, Resolver
from .rules import RULES
from .rules.keys import wrong_value
from .rules.subject import Subject
from .rules.tables import raw_tables


def check_files(found: FoundFiles) -> list[Finding]:
    """Check every profile of env files. What cannot be read at all is a finding too.

    Returns:
        Findings by file and line. What a profile inherits is said once, where it is written.
    """
    files, unread = load_readable(found)
    # The others may well name what is in a file that cannot be read.
    return [Finding.of(error) for error in unread] or check_env_files(files)


def check_text(text: str, path: Path) -> list[Finding]:
    """Check an env file that has not been written yet."""
    found = FoundFiles((path,), "given as text")
    try:
        return check_env_files(env_files_of((parse_toml(text, str(path)),), found))
    except UsageError as error:
        return [Finding.of(error)]


def check_env_files(files: EnvFiles) -> list[Finding]:
    """`check_files` for files that have been read."""
    resolver = Resolver(files)
    bases = _bases(files)
    found: dict[tuple[object, ...], Finding] = {}
    for profile in files.profiles.values():
        if profile.source is None:
            continue
        for finding in _of_profile(profile, resolver, bases):
            same = (finding.place, finding.profile, finding.key, finding.message)
            if same not in found:
                found[same] = _against_text(finding, files)
    order = {source.file: n for n, source in enumerate(files.sources)}
    return sorted(
        (*found.values(), *raw_tables(files)),
        key=lambda f: (order.get(f.place.file or "", -1), f.place.line or 0, f.place.column or 0),
    )


def check_profile(
    name: str,
    executor: str,
    values: Mapping[str, Any],
    origins: Mapping[str, Sourced],
    *,
    is_base: bool = False,
    place: Place = NOWHERE,
) -> list[Finding]:
    """Check one resolved profile: what `resolve_profile` gave, or what a plan carries.

    Args:
        name: the profile.
        executor: its executor.
        values: its resolved keys.
        origins: where each comes from.
        is_base: whether other profiles extend it, so that it need not be complete.
        place: where the profile's table stands.
    """
    subject = _subject(name, executor, values, origins, is_base=is_base, place=place)
    return [finding for rule in RULES for finding in rule(subject)]


def mistyped(profile: ResolvedProfile) -> list[Finding]:
    """The values that nothing can be planned with, being of another type than their keys'."""
    subject = _subject(profile.name, profile.executor, profile.values, profile.origins)
    return [wrong_value(subject, misfit) for misfit in subject.misfits if misfit.kind == "wrong"]


def _subject(
    name: str,
    executor: str,
    values: Mapping[str, Any],
    origins: Mapping[str, Sourced],
    *,
    is_base: bool = False,
    place: Place = NOWHERE,
) -> Subject:
    model = MODELS.get(executor)
    settings, misfits = fit(model, values) if model else (None, ())
    return Subject(name, executor, values, origins, model, settings, misfits, is_base, place)


def _of_profile(profile: Profile, resolver: Resolver, bases: set[str]) -> Iterator[Finding]:
    try:
        resolved, problems = resolver.attempt(profile.name)
    except InheritanceError as error:
        fix = Fix(error.fix, error.edit)
        place = error.place or NOWHERE
        yield Finding("error", error.message, place, error.profile, "extends", fix)
        return
    yield from problems
    unresolved = {problem.key for problem in problems}
    for finding in check_profile(
        profile.name,
        resolved.executor,
        resolved.values,
        resolved.origins,
        is_base=profile.name in bases,
        place=profile.place(),
    ):
        if finding.key not in unresolved:
            yield finding


def _bases(files: EnvFiles) -> set[str]:
    """The profiles that others extend."""
    bases: set[str] = set()
    for profile in files.profiles.values():
        try:
            bases.update(parents_of(profile, files))
        except InheritanceError:
            continue  # said when the profile itself is checked
    return bases


def _against_text(finding: Finding, files: EnvFiles) -> Finding:
    """Point at the very key or item, and offer no edit that would undo an interpolation."""
    profile = files.profiles.get(finding.profile or "")
    if profile is None:
        return finding
    path = key_path(profile.table, finding.key or "")
    if value_at(profile.table, path) is not None:
        finding = replace(finding, place=profile.place(*path))
    if finding.fix and finding.fix.edit and finding.fix.edit.op != "rename":
        written = value_at(profile.table, path)
        if "${" in str(written):
            finding = replace(finding, fix=replace(finding.fix, edit=None))
    return finding
