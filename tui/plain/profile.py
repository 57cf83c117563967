"""Setting the keys of a profile, one by one, in its own file."""

from __future__ import annotations

from ...core.cli.output import line, note, print_error, print_findings
from ...core.env.edit import ProfileRow, edit_profile, override_of, profile_form
from ...core.env.find import find_env_files
from ...core.env.load import load_env_files
from ...core.errors import UsageError
from ...core.selection import Selection
from ...core.text import did_you_mean, holds
from .ask import BACK, ask, sure

_WORDS = (
    "Type a key to set it, key=value, or nothing to see what would be written. Or: list tells all "
    "that may be set, list WORD those that have it, back leaves the file as it is."
)


def edit_keys(name: str, selection: Selection) -> None:
    """Ask for keys until there are none, show the difference, and write it if that is wanted.

    Args:
        name: the profile.
        selection: says which env files are in use.

    Raises:
        Left: if the person leaves; nothing is written then.
        UsageError: if the profile is built in, or its file cannot be edited.
        OSError: if the file cannot be written.
    """
    files = load_env_files(find_env_files(selection.cwd, selection.env_file))
    edit_profile(files, name, ())  # one that cannot be edited is told before anything is asked
    rows = profile_form(files, name)
    _say([row for row in rows if row.value is not None])
    note(_WORDS)
    changes: dict[str, str] = {}
    while text := ask("Key"):
        if text == BACK:
            note("Nothing was written.")
            return
        first, _, rest = text.partition(" ")
        if first == "list":
            _say([row for row in rows if holds(f"{row.key} {row.description}", rest)])
            continue
        try:
            key, override = _override(rows, text)
            edited = edit_profile(files, name, [*changes.values(), override])
        except UsageError as error:
            print_error(error)
            continue
        changes[key] = override
        print_findings(one for one in edited.findings if one.key == key)
    edited = edit_profile(files, name, changes.values())
    if edited.mended.after == edited.mended.before:
        note("Nothing is changed.")
        return
    line(edited.mended.diff)
    print_findings(edited.findings)
    if sure(f"Write {edited.mended.path.name}?", default=True):
        # What someone else wrote into the file meanwhile is kept.
        files = load_env_files(find_env_files(selection.cwd, selection.env_file))
        edit_profile(files, name, changes.values()).mended.write()
        note(f"Wrote {edited.mended.path}.")
    else:
        note("Nothing was written.")


def _override(rows: tuple[ProfileRow, ...], text: str) -> tuple[str, str]:
    if "=" in text:
        return text.partition("=")[0].strip(), text
    row = next((one for one in rows if one.key == text), None)
    if row is None:
        hint = did_you_mean(text, [one.key for one in rows])
        raise UsageError(f"There is no key '{text}'. {hint}".strip(), fix="Type 'list'.")
    line(f"{row.description} It takes: {row.type}. Nothing takes it out.")
    return row.key, override_of(row, ask(row.key, "" if row.own is None else str(row.own)))


def _say(rows: list[ProfileRow]) -> None:
    for row in rows:
        value = "not set" if row.value is None else row.value
        origin = f" From {row.sourced.origin}." if row.sourced else ""
        line(f"{row.key} = {value}. {row.description}{origin}")
