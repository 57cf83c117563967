"""`tunedeck queue`: what a cluster has free, and what waits for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .complete import complete_profile

if TYPE_CHECKING:
    from ..backends.base import Backend


@click.command("queue")
@click.argument("profile", shell_complete=complete_profile)
@click.option("--env-file", type=click.Path(path_type=Path), help="Use this env file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
def queue(profile: str, env_file: Path | None, as_json: bool) -> None:
    """Show my jobs where PROFILE submits to, and what its partitions have free."""
    from .output import line, print_json

    backend, values = backend_of_profile(profile, env_file)
    if not backend.capabilities.inventory or not backend.capabilities.remote:
        raise UsageError(f"Profile '{profile}' submits to {backend.name}, which has no queue.")
    found = asyncio.run(backend.inventory(values))
    if as_json:
        print_json(found)
        return
    line("Partitions", bold=True)
    _table(
        ("name", "state", "limit", "nodes idle", "GPUs free", "running", "pending"),
        [
            (
                part["name"],
                part["state"],
                part["time_limit"],
                f"{part['idle_nodes']} of {part['nodes']}",
                f"{part['gpus_free']} of {part['gpus']}",
                str(part["running"]),
                str(part["pending"]),
            )
            for part in found["partitions"]
        ],
    )
    line()
    line("My jobs", bold=True)
    if not found["jobs"]:
        line("  none")
        return
    _table(
        ("job", "name", "partition", "state", "elapsed", "nodes", "waits for"),
        [
            (
                job["job_id"],
                job["name"],
                job["partition"],
                job["state"].lower(),
                job["elapsed"],
                str(job["nodes"]),
                _waits(job),
            )
            for job in found["jobs"]
        ],
    )


def backend_of_profile(name: str, env_file: Path | None) -> tuple[Backend, dict[str, Any]]:
    """The backend of a profile, and the profile's resolved values."""
    from ..backends.base import load_backend
    from ..env.find import find_env_files
    from ..env.load import load_env_files
    from ..env.resolve import resolve_profile

    files = load_env_files(find_env_files(Path.cwd(), env_file))
    profile = resolve_profile(files, name)
    values = dict(profile.values)
    return load_backend(profile.executor, values), values


def _waits(job: dict[str, Any]) -> str:
    """Why a job waits, and from when on it may run."""
    if job["state"] != "PENDING":
        return ""
    if job["starts_at"] is None:
        return str(job["reason"])
    starts = time.strftime("%a %H:%M", time.localtime(job["starts_at"]))
    return f"{job['reason']}; to start {starts}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from .output import line

    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    for row in (head, *rows):
        line("  " + "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip())
