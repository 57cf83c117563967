"""What can only be seen in the files as they are written, before profiles are resolved."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ...errors import Place
from ...findings import Finding, Fix
from ...keys import leaf_paths
from ...secrets import is_secret_name, literal_in
from ..interpolate import env_names
from ..interpolation_problem import InterpolationProblem
from ..load import RESERVED, EnvFiles, Profile
from ..placeholder import is_placeholder, placeholder_in


def raw_tables(files: EnvFiles) -> Iterator[Finding]:
    """Empty credentials, and reserved tables."""
    said: set[str] = set()
    for profile in files.profiles.values():
        if profile.source is not None:
            yield from _empty_credentials(profile, said)
    for source in files.sources:
        for name in RESERVED:
            for path, value in leaf_paths(source.data.get(name, {})):
                yield from _reserved(source.locate((name, *path)), name, path, value)


def _empty_credentials(profile: Profile, said: set[str]) -> Iterator[Finding]:
    """A reference to a secret that is not there now, once for each: preflight will insist on it."""
    for path, value in leaf_paths(profile.table):
        if path[0] == "secrets" or not is_secret_name(path[-1]) or literal_in(value):
            continue
        try:
            names = env_names(str(value))
        except InterpolationProblem:
            continue  # said when the profile is resolved
        if any(os.environ.get(name) for name in names):
            continue
        name = names[0] if names else path[-1]
        if name in said:
            continue
        said.add(name)
        key = ".".join(path)
        yield Finding(
            "warning",
            f"'{key}' is empty: the environment variable {name} is not set.",
            place=profile.place(*path),
            profile=profile.name,
            key=key,
            fix=Fix(f"Set it before you submit: export {name}=…"),
        )


def _reserved(place: Place, table: str, path: tuple[str, ...], value: object) -> Iterator[Finding]:
    key = ".".join((table, *path))
    if is_secret_name(path[-1]):
        literal = literal_in(value)
        if literal is not None and not is_placeholder(literal):
            yield Finding(
                "error",
                f"'{key}' is a secret in clear.",
                place=place,
                key=key,
                fix=Fix("Take it out, and export it as an environment variable."),
            )
    elif isinstance(value, str) and (found := placeholder_in(value)):
        yield Finding(
            "error",
            f"'{key}' is still a placeholder: '{found}'.",
            place=place,
            key=key,
            fix=Fix("Put your own value in its place."),
        )
