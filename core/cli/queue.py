"""`tunedeck queue`: what a place has free, and what waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import env_file_option, examples, json_option, profile_argument

if TYPE_CHECKING:
    from ..backends.base import Backend


@click.command("queue", epilog=examples("tunedeck queue slurm_base"))
@profile_argument
@env_file_option
@json_option
def queue(profile: str, env_file: Path | None, as_json: bool) -> None:
    """Show what the place that PROFILE submits to has free, and my jobs there."""
    from ..inventory import inventory_of, tables_of
    from .output import line, print_json

    backend, values = backend_of_profile(profile, env_file)
    found = asyncio.run(inventory_of(backend.name, values))
    if as_json:
        print_json(found)
        return
    for number, table in enumerate(tables_of(found)):
        if number:
            line()
        if table.title:
            line(table.title, bold=True)
        for text in table.lines():
            line(f"  {text}")


def backend_of_profile(name: str, env_file: Path | None) -> tuple[Backend, dict[str, Any]]:
    """The backend of a profile, and the profile's resolved values."""
    from ..backends.base import load_backend
    from ..env.check import mistyped
    from ..env.find import find_env_files
    from ..env.load import load_env_files
    from ..env.resolve import raise_first, resolve_profile

    files = load_env_files(find_env_files(Path.cwd(), env_file))
    profile = resolve_profile(files, name)
    raise_first(mistyped(profile))
    values = dict(profile.values)
    return load_backend(profile.executor, values), values
