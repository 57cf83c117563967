"""A profile under another name, or taken out: its tables in the files' own text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import back_up
from .load import BUILT_IN, RESERVED, EnvFiles, Profile
from .mend import Mended, parsed_toml, write_mended

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(
    r"[ \t]*\[\[?[ \t]*(?P<key>[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')[ \t]*"
    r"(?:\.[^\]\n]*)?\]\]?[ \t]*(?:#.*)?\r?"
)
_PARENT = re.compile(r"[ \t]*(?:extends|[\"']extends[\"'])[ \t]*=")


@dataclass(frozen=True, slots=True)
class Changed:
    """Env files with a profile renamed or taken out, not yet written.

    Attributes:
        files: those that change.
        followed: the profiles whose `extends` follows to the new name.
    """

    files: tuple[Mended, ...]
    followed: tuple[str, ...] = ()

    @property
    def diff(self) -> str:
        """What changes in all of them."""
        return "\n".join(one.diff for one in self.files)

    def write(self) -> list[Path]:
        """Write all files or none; each is copied to a `.bak` first.

        Returns:
            The copies. Where nothing could be written, none is left.

        Raises:
            UsageError: if a file has changed since it was read.
            OSError: if one cannot be written.
        """
        backups: list[Path] = []
        try:
            for one in self.files:
                backups.append(back_up(one.path.resolve()))
            write_mended(self.files)
        except (UsageError, OSError):
            for backup in backups:
                backup.unlink(missing_ok=True)
            raise
        return backups


def rename_profile(files: EnvFiles, name: str, new: str) -> Changed:
    """Give a profile another name; all that extend it follow, in whichever file they are.

    Raises:
        UsageError: if there is no such profile, it is the built-in one, the new name is taken or is
            none, or a file's form does not let it be done without touching more.
    """
    profile = _written(files, name)
    _check_new(files, new)
    assert profile.source is not None
    if "executor" in profile.table and "executor" not in profile.source.data[name]:
        raise UsageError(
            f"'{name}' says by its name alone that it runs on this machine.",
            place=profile.place(),
            fix=f"Say it first: tunedeck env set {name} executor=local",
        )
    heirs = extending(files, name)
    sources = {one.source.file: one.source for one in (profile, *heirs) if one.source}
    changed = []
    for file, source in sources.items():
        before = Path(file).read_bytes().decode("utf-8")
        after, wanted = before, dict(source.data)
        for heir in heirs:
            if heir.source is source:
                after = _follow(after, heir, name, new)
                wanted[heir.name] = {**wanted[heir.name], "extends": _followed(heir, name, new)}
        if source is profile.source:
            after = _rename_tables(after, name, new)
            wanted = {new if key == name else key: value for key, value in wanted.items()}
        changed.append(_checked(Path(file), before, after, wanted, profile))
    return Changed(tuple(changed), tuple(heir.name for heir in heirs))


def delete_profile(files: EnvFiles, name: str) -> Changed:
    """Take a profile out of its file, with the comment right above it.

    Raises:
        UsageError: if there is no such profile, it is the built-in one, other profiles extend it,
            or its form does not let it be taken out without touching more.
    """
    profile = _written(files, name)
    if heirs := extending(files, name):
        names = ", ".join(heir.name for heir in heirs)
        raise UsageError(
            f"'{name}' cannot be taken out: {names} extend{'s' * (len(heirs) == 1)} it.",
            place=heirs[0].place("extends"),
            fix=f"Give them another base first: tunedeck env set {heirs[0].name} extends=…",
        )
    assert profile.source is not None
    file = Path(profile.source.file)
    before = file.read_bytes().decode("utf-8")
    wanted = {key: value for key, value in profile.source.data.items() if key != name}
    after = _without_tables(before, name)
    return Changed((_checked(file, before, after, wanted, profile),))


def extending(files: EnvFiles, name: str) -> list[Profile]:
    """The profiles that name another one in their `extends`."""
    return [one for one in files.profiles.values() if name in _parents(one)]


def _parents(profile: Profile) -> list[Any]:
    extends = profile.table.get("extends", [])
    return extends if isinstance(extends, list) else [extends]


def _written(files: EnvFiles, name: str) -> Profile:
    profile = files.profile(name)
    if profile.source is None:
        raise UsageError(
            f"The profile '{name}' is built in and stands in no file.",
            fix="See which can be changed: tunedeck env list",
        )
    return profile


def _check_new(files: EnvFiles, new: str) -> None:
    if not _NAME.fullmatch(new):
        raise UsageError(
            f"'{new}' is no name for a profile.", fix="Take letters, digits, '_' and '-'."
        )
    if new in RESERVED:
        raise UsageError(
            f"'{new}' is a reserved table of env files, not a profile.", fix="Take another name."
        )
    if new == BUILT_IN.name:
        raise UsageError(
            f"'{new}' stands for this machine: launches without a profile run by it.",
            fix="Take another name.",
        )
    if new in files.profiles:
        raise UsageError(
            f"There is a profile '{new}' already.",
            place=files.profiles[new].place(),
            fix="Take another name.",
        )


def _checked(
    file: Path, before: str, after: str, wanted: dict[str, Any], profile: Profile
) -> Mended:
    """The change, if it does what is wanted and nothing else."""
    if parsed_toml(after) != wanted:
        raise UsageError(
            f"{profile.place()} is written in a form that cannot be edited without touching more.",
            place=profile.place(),
            fix="Make the change by hand.",
        )
    return Mended(file, before, after, ())


def _followed(heir: Profile, name: str, new: str) -> Any:
    extends = heir.table["extends"]
    if isinstance(extends, str):
        return new
    return [new if parent == name else parent for parent in extends]


def _follow(text: str, heir: Profile, name: str, new: str) -> str:
    """Put the new name into a profile's `extends`, which may go over several lines."""
    lines = text.split("\n")
    at = (heir.place("extends").line or 1) - 1
    last = at
    if isinstance(heir.table["extends"], list):
        while "]" not in lines[last].partition("#")[0] and last + 1 < len(lines):
            last += 1
    quoted = re.compile(rf"([\"']){re.escape(name)}\1")
    for number in range(at, last + 1):
        code, hash_, comment = lines[number].partition("#")
        head = _PARENT.match(code)
        start = head.end() if head else 0
        code = code[:start] + quoted.sub(lambda found: found[1] + new + found[1], code[start:])
        lines[number] = code + hash_ + comment
    return "\n".join(lines)


def _rename_tables(text: str, name: str, new: str) -> str:
    """Put the new name into the headers of a profile's tables."""
    lines = text.split("\n")
    for number, start, end in _headers(lines, name.__eq__):
        lines[number] = f"{lines[number][:start]}{new}{lines[number][end:]}"
    return "\n".join(lines)


def _without_tables(text: str, name: str) -> str:
    """Leave a profile's tables out, with the comments right above their headers.

    A comment below the last key belongs to what follows, and stays.
    """
    lines = text.split("\n")
    starts = [number for number, _, _ in _headers(lines, lambda _key: True)]
    gone: set[int] = set()
    for number, _, _ in _headers(lines, name.__eq__):
        begin, end = number, next((start for start in starts if start > number), len(lines))
        while begin and _is_comment(lines[begin - 1]):
            begin -= 1
        while not lines[end - 1].strip() or _is_comment(lines[end - 1]):
            end -= 1
        while end < len(lines) and not lines[end].strip():
            end += 1
        gone.update(range(begin, end))
    kept = "\n".join(line for number, line in enumerate(lines) if number not in gone)
    return f"{kept.rstrip()}\n" if kept.strip() else ""


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _headers(lines: list[str], wanted: Callable[[str], bool]) -> Iterator[tuple[int, int, int]]:
    """Headers whose first name is wanted: the line, and where in it that name begins and ends."""
    for number, line in enumerate(lines):
        found = _HEADER.fullmatch(line)
        if found and wanted(found["key"].strip("\"'")):
            yield number, *found.span("key")
