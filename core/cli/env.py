"""`tunedeck env`: check, list, show and compare profiles. Generating a file is `env_init`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitCode
from .complete import complete_profile
from .env_print import print_findings, print_mended, print_summary, short, shown, side_by_side, told
from .lazy import LazyGroup
from .options import env_file_option, examples, json_option, profile_argument
from .output import line, note, print_error, print_json, print_table

if TYPE_CHECKING:
    from ..env.find import FoundFiles
    from ..env.load import EnvFiles
    from ..env.mend import Mended
    from ..findings import Finding

_ROUNDS = 20  # one mend may bring another mistake to light


_COMMANDS = {
    "init": "env_init:init_command",
    "check": "env:check",
    "diff": "env:diff",
    "list": "env:list_command",
    "show": "env:show",
    "set": "env_set:set_command",
    "rename": "env_profiles:rename",
    "delete": "env_profiles:delete",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def env() -> None:
    """Generate, check, explain and change env files."""


@click.command(
    epilog=examples("""
    tunedeck env check
    tunedeck env check env.slurm.toml --fix --strict
    """),
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@env_file_option
@click.option("--strict", is_flag=True, help="Take warnings for errors.")
@click.option("--fix", is_flag=True, help="Make the mends that are beyond doubt; shows the diff.")
@click.option("--only", metavar="PROFILE.KEY", help="With --fix: mend this key alone.")
@json_option
def check(
    file: Path | None,
    env_file: Path | None,
    strict: bool,
    fix: bool,
    only: str | None,
    as_json: bool,
) -> int:
    """Check env files: FILE, or those that are found. Exits 2 if there is an error."""
    from ..env.check import check_files
    from ..env.mend import mend, write_mended

    found = _found(file or env_file)
    findings = check_files(found)
    mended: list[Mended] = []
    while fix and len(mended) < _ROUNDS and (new := mend(_chosen(findings, only))):
        if not as_json:
            print_mended(new)
        write_mended(new)
        mended += new
        findings = check_files(found)
    if as_json:
        document: dict[str, Any] = {"findings": [finding.to_json() for finding in findings]}
        if fix:
            document["fixed"] = [{"file": str(m.path), "diff": m.diff} for m in mended]
        print_json(document)
    else:
        if fix and not mended:
            note("Nothing here can be mended without you.")
        print_findings(findings)
        print_summary(findings, found)
    failing = ("error", "warning") if strict else ("error",)
    return ExitCode.USAGE if any(f.severity in failing for f in findings) else ExitCode.OK


@click.command(
    "list",
    short_help="List the profiles and the files they are from.",
    epilog=examples("tunedeck env list --json"),
)
@env_file_option
@json_option
def list_command(env_file: Path | None, as_json: bool) -> int:
    """List the profiles, and say which files they are from and why those.

    Where a file cannot be read, those of the others are listed, and the command fails.
    """
    from ..env.find import find_env_files, passed_over
    from ..env.load import load_readable

    found = find_env_files(env_file=env_file)
    over = passed_over(found, env_file=env_file)
    files, unread = load_readable(found)
    rows = _summaries(files)
    if as_json:
        if unread:
            raise unread[0]
        print_json(
            {
                "files": [{"file": str(path), "reason": found.reason} for path in found.files],
                "reason": found.reason,
                "passed_over": [{"file": str(o.file), "reason": o.reason} for o in over],
                "profiles": rows,
            }
        )
        return ExitCode.OK
    for path in found.files:
        note(f"Env file: {short(path)} ({found.reason})")
    if not found.files:
        note(f"Env file: {found.reason}. Make one: tunedeck env init -c slurm")
    for item in over:
        note(f"Passed over: {short(item.file)} ({item.reason})")
    print_table(
        ("PROFILE", "EXECUTOR", "NODES", "GPUS", "EXTENDS", "PLACE"),
        [
            (
                row["name"],
                row["executor"],
                row["nodes"],
                row["gpus_per_node"],
                ", ".join(row["extends"]),
                f"{short(Path(row['file']))}:{row['line']}" if row["file"] else "built in",
            )
            for row in rows
        ],
    )
    for error in unread:
        print_error(error)
    return ExitCode.USAGE if unread else ExitCode.OK


@click.command(
    short_help="Show a profile and where its values come from.",
    epilog=examples("tunedeck env show slurm_peft_automodel"),
)
@profile_argument
@env_file_option
@json_option
def show(profile: str, env_file: Path | None, as_json: bool) -> int:
    """Show a profile resolved: each value, where it comes from, and what it overrode."""
    from ..env.compare import explain, to_json

    (resolved,) = _resolved(env_file, profile)
    values = explain(resolved)
    if as_json:
        print_json(
            {
                "profile": resolved.name,
                "executor": resolved.executor or None,
                "values": {key: to_json(sourced) for key, sourced in values.items()},
            }
        )
        return ExitCode.OK
    line(f"{resolved.name}  {resolved.executor or 'no executor'}", bold=True)
    rows: list[tuple[str, str, str]] = []
    for key, sourced in values.items():
        rows.append((key, shown(sourced.value), told(sourced.origin)))
        rows.extend(
            ("", f"over {shown(value)}", told(origin)) for value, origin in sourced.overrode
        )
    print_table(("KEY", "VALUE", "FROM"), rows)
    return ExitCode.OK


@click.command(epilog=examples("tunedeck env diff slurm_base slurm_peft_automodel"))
@click.argument("a", shell_complete=complete_profile)
@click.argument("b", shell_complete=complete_profile)
@env_file_option
@json_option
def diff(a: str, b: str, env_file: Path | None, as_json: bool) -> int:
    """Show in which values two profiles differ, once resolved."""
    from ..env.compare import differences, to_json

    one, other = _resolved(env_file, a, b)
    found = differences(one, other)
    if as_json:
        changes = [
            {
                "key": difference.key,
                "a": to_json(difference.a) if difference.a else None,
                "b": to_json(difference.b) if difference.b else None,
            }
            for difference in found
        ]
        print_json({"a": a, "b": b, "changes": changes})
    elif found:
        print_table(("KEY", a.upper(), b.upper()), [side_by_side(item) for item in found])
    else:
        note(f"'{a}' and '{b}' resolve to the same values.")
    return ExitCode.OK


def _chosen(findings: list[Finding], only: str | None) -> list[Finding]:
    if only is None:
        return findings
    return [one for one in findings if f"{one.profile}.{one.key}" == only]


def _found(file: Path | None) -> FoundFiles:
    from ..env.find import FoundFiles, find_env_files
    from ..errors import UsageError

    if file is not None:
        return FoundFiles((file,), "named on the command line")
    found = find_env_files()
    if not found.files:
        raise UsageError(
            f"There is no env file to check: {found.reason}.",
            fix="Name one (tunedeck env check FILE), or make one: tunedeck env init -c slurm",
        )
    return found


def _resolved(env_file: Path | None, *names: str) -> list[Any]:
    """Resolve profiles for looking at: one without an executor can be shown too."""
    from ..env.find import find_env_files
    from ..env.load import load_env_files
    from ..env.resolve import Resolver, raise_first

    resolver = Resolver(load_env_files(find_env_files(env_file=env_file)))
    profiles = []
    for name in names:
        resolved, problems = resolver.attempt(name)
        raise_first(problems)
        profiles.append(resolved)
    return profiles


def _summaries(files: EnvFiles) -> list[dict[str, Any]]:
    from ..env.inherit import parents_of
    from ..env.resolve import Resolver
    from ..errors import UsageError

    resolver = Resolver(files)
    rows = []
    for profile in files.profiles.values():
        try:
            values = resolver.attempt(profile.name)[0].values
            extends = parents_of(profile, files)
        except UsageError as error:
            note(error.message)
            values, extends = profile.table, []
        place = profile.place()
        rows.append(
            {
                "name": profile.name,
                "executor": values.get("executor"),
                "extends": extends,
                "nodes": values.get("nodes"),
                "gpus_per_node": values.get("gpus_per_node"),
                "file": place.file,
                "line": place.line,
            }
        )
    return rows
