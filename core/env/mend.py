"""`env check --fix`: the edits that findings carry, made in the files' own text."""

from __future__ import annotations

import difflib
import stat
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Place, UsageError
from ..files import write_together
from ..findings import Edit, Finding
from ..keys import KeyPath
from ..secrets import mask_text, secret_texts

_MARK = "\ufeff"
"""The byte order mark that some editors put in front."""


@dataclass(frozen=True, slots=True)
class Mended:
    """A file with edits made, not yet written.

    Attributes:
        path: the file.
        before: its text as it is.
        after: its text with the edits.
        findings: those whose edits were made.
    """

    path: Path
    before: str = field(repr=False)
    after: str = field(repr=False)
    findings: tuple[Finding, ...]

    @property
    def diff(self) -> str:
        """What changes, as a unified diff with secrets masked."""
        secrets = secret_texts(parsed_toml(self.before) or {})
        lines = difflib.unified_diff(
            mask_text(self.before, secrets).splitlines(),
            mask_text(self.after, secrets).splitlines(),
            f"{self.path} (as it is)",
            f"{self.path} (mended)",
            lineterm="",
        )
        return "\n".join(lines)

    def write(self) -> None:
        """Write the file, as `write_mended` does."""
        write_mended([self])


def write_mended(files: Iterable[Mended]) -> None:
    """Write all files or none, with the permissions they had; a link stays a link.

    Raises:
        UsageError: if a file has changed since it was read.
        OSError: if one cannot be written; all are then as they were.
    """
    written = []
    for one in files:
        path = one.path.resolve()
        if path.read_bytes().decode("utf-8") != one.before:
            raise UsageError(
                f"{one.path} was changed by someone else just now, and was left as it is.",
                place=Place(str(one.path)),
                fix="Run the command again.",
            )
        written.append((path, one.after.encode(), stat.S_IMODE(path.stat().st_mode)))
    write_together(written)


def mend(findings: Iterable[Finding]) -> list[Mended]:
    """Make the edits that findings carry, file by file; comments stay, and nothing is written.

    Raises:
        UsageError: if a file's form does not let the edits be made without touching more.
    """
    by_file: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.fix and finding.fix.edit and finding.place.file and finding.profile:
            by_file.setdefault(finding.place.file, []).append(finding)
    mended = [_mended(Path(file), mendable) for file, mendable in by_file.items()]
    return [one for one in mended if one.after != one.before]


def key_path(table: Any, key: str) -> KeyPath:
    """A finding's key as a path into `table`: in `mounts.0.path` the 0 is an index of a list."""
    path: KeyPath = ()
    for part in key.split("."):
        path += (int(part),) if part.isdigit() and isinstance(table, list) else (part,)
        table = value_at(table, path[-1:])
    return path


def value_at(table: Any, path: Sequence[str | int]) -> Any:
    """The value at a path of nested tables and lists; None where it leads nowhere."""
    for part in path:
        inside = part in range(len(table)) if isinstance(table, list) else _has(table, part)
        if not inside:
            return None
        table = table[part]
    return table


def _has(table: Any, key: str | int) -> bool:
    return isinstance(table, Mapping) and key in table


def _mended(path: Path, findings: list[Finding]) -> Mended:
    before = path.read_bytes().decode("utf-8")
    wanted = parsed_toml(before) or {}
    edits = [(f, f.fix.edit) for f in findings if f.fix and f.fix.edit]
    edits.sort(key=lambda pair: _order(*pair))
    text = before
    for finding, edit in edits:
        text = _rename(text, finding, edit) if edit.op == "rename" else text
    text = _set_and_remove(text, [pair for pair in edits if pair[1].op != "rename"])
    for finding, edit in edits:
        _apply(wanted.get(finding.profile or "", {}), edit)
    if parsed_toml(text) != wanted:
        raise UsageError(
            f"{path} is written in a form that cannot be mended without touching more than that.",
            place=findings[0].place,
            fix="Make the changes by hand, as the findings say.",
        )
    return Mended(path, before, text, tuple(findings))


def parsed_toml(text: str) -> dict[str, Any] | None:
    """The data of an env file's text, None where it is no TOML."""
    try:
        return tomllib.loads(text.removeprefix(_MARK).replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError:
        return None


def _order(finding: Finding, edit: Edit) -> tuple[bool, int, int]:
    """Renames first, and from the end of the file, so that places and indexes stay right."""
    return edit.op != "rename", -(finding.place.line or 0), -(finding.place.column or 0)


def _rename(text: str, finding: Finding, edit: Edit) -> str:
    """Put the new key where the old one stands; the finding's place is that of the key itself."""
    old, new = edit.key.rpartition(".")[2], str(edit.value).rpartition(".")[2]
    lines = text.split("\n")
    line, column = (finding.place.line or 1) - 1, (finding.place.column or 1) - 1
    start = column + lines[line].startswith(('"', "'"), column)
    lines[line] = lines[line][:start] + new + lines[line][start + len(old) :]
    return "\n".join(lines)


def _set_and_remove(text: str, edits: list[tuple[Finding, Edit]]) -> str:
    if not edits:
        return text
    import tomlkit

    bare = text.removeprefix(_MARK)
    document = tomlkit.parse(bare)
    for finding, edit in edits:
        _apply(document.get(finding.profile or "", {}), edit)
    return text[: len(text) - len(bare)] + tomlkit.dumps(document)


def _apply(profile: Any, edit: Edit) -> None:
    """Make one edit in a profile's table, plain or tomlkit's. A key that has gone needs none."""
    path = key_path(profile, edit.key)
    table, last = value_at(profile, path[:-1]), path[-1]
    if value_at(table, (last,)) is None:
        return
    if edit.op == "set":
        table[last] = edit.value
    elif edit.op == "remove":
        del table[last]
    else:
        table[str(edit.value).rpartition(".")[2]] = table.pop(last)
