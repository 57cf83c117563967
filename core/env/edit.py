"""One profile as a form, and its keys set in the file's own text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.overrides import Override, parse_override, text_override
from ..errors import UsageError
from ..findings import Finding
from ..origins import Sourced
from ..text import did_you_mean
from ..toml.text import refuse_null
from .check import check_text
from .compare import explain
from .inherit import refuse_secret
from .load import EnvFiles, Profile
from .mend import Mended, parsed_toml, value_at
from .models import MODELS, keys_of
from .models.words import type_words
from .resolve import Resolver

_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """One key that a profile may have.

    Attributes:
        key: its name; a key of a table is dotted, as in `env_vars.NCCL_DEBUG`.
        type: what it may be, in words.
        description: what it is for.
        value: what it resolves to, secrets masked; None where it is not set.
        sourced: where that comes from; None where it is not set.
        own: what the profile's own table says, as it is written; None where it says nothing.
    """

    key: str
    type: str
    description: str
    value: Any
    sourced: Sourced | None
    own: Any


@dataclass(frozen=True, slots=True)
class Edited:
    """A profile with keys set, not yet written.

    Attributes:
        mended: the file as it is and as it would be.
        findings: what `env check` says of the profile as it would be.
    """

    mended: Mended
    findings: tuple[Finding, ...]


def profile_form(files: EnvFiles, name: str) -> tuple[ProfileRow, ...]:
    """The keys of a profile: those that are set first, then all that its executor knows.

    Raises:
        UsageError: if there is no such profile, or what it extends is not there.
    """
    profile = files.profile(name)
    resolved, _ = Resolver(files).attempt(name)
    values = explain(resolved)
    model = MODELS.get(resolved.executor)
    fields = keys_of(resolved.executor) if model else {}
    rows = []
    unset = [key for key in model.model_fields if key not in values] if model else []
    for key in [*values, *unset]:
        info = fields.get(key.partition(".")[0])
        sourced = values.get(key)
        rows.append(
            ProfileRow(
                key=key,
                type=type_words(model, key) if model else "any value",
                description=(info.description or "") if info else "",
                value=sourced.value if sourced else None,
                sourced=sourced,
                own=_own(profile, key),
            )
        )
    return tuple(rows)


def override_of(row: ProfileRow, text: str) -> str:
    """The override that sets a row to what was typed.

    What YAML would take for something else, `010` or `on`, stays the text it is where the key
    wants one; nothing typed takes the key out.
    """
    if not text.strip():
        return f"{row.key}=null"
    if row.type == "text" and text != "null":
        return text_override(row.key, text)
    return f"{row.key}={text}"


def edit_profile(files: EnvFiles, name: str, overrides: Iterable[str]) -> Edited:
    """Set keys of a profile in the text of its file; comments and all else stay as they are.

    Args:
        files: the env files in use.
        name: the profile.
        overrides: `key=value`, typed as YAML; null takes the key out of this profile.

    Raises:
        UsageError: if the profile is the built-in one, a key is unknown or an override malformed,
            or the file's form does not let it be done without touching more.
    """
    profile = files.profile(name)
    if profile.source is None:
        raise UsageError(
            f"The profile '{name}' is built in and stands in no file.",
            fix="Define it in an env file, and it replaces the built-in one: "
            "tunedeck env init -c local",
        )
    path = Path(profile.source.file)
    wanted = [parse_override(text) for text in overrides]
    executor = str(Resolver(files).attempt(name)[0].executor)
    for override in wanted:
        _check_key(override, name, executor)
        if override.value is not None:
            refuse_null(override.value, override.text)
            refuse_secret(override.path, override.value)
    before = path.read_bytes().decode("utf-8")
    after = _set(before, profile, wanted)
    findings = tuple(f for f in check_text(after, path) if f.profile in (name, None))
    return Edited(Mended(path, before, after, ()), findings)


def _own(profile: Profile, key: str) -> Any:
    return value_at(profile.table, key.split("."))


def _check_key(override: Override, name: str, executor: str) -> None:
    if executor not in MODELS:
        return
    known = ["executor", "extends", *keys_of(executor)]
    first = str(override.path[0])
    if first not in known:
        raise UsageError(
            f"'{override.text}': a {executor} profile has no key '{first}'. "
            f"{did_you_mean(first, known)}".strip(),
            fix=f"See what '{name}' has: tunedeck env show {name}",
        )


def _set(text: str, profile: Profile, wanted: list[Override]) -> str:
    import tomlkit

    bare = text.removeprefix(_MARK)
    document = tomlkit.parse(bare)
    plain = parsed_toml(text) or {}
    for override in wanted:
        path = tuple(override.path)
        _put(document[profile.name], path, override.value)
        _put(plain[profile.name], path, override.value)
    after = text[: len(text) - len(bare)] + tomlkit.dumps(document)
    if parsed_toml(after) != plain:
        raise UsageError(
            f"{profile.place()} is written in a form that cannot be edited without touching more.",
            place=profile.place(),
            fix="Make the change by hand.",
        )
    return after


def _put(table: Any, path: tuple[str | int, ...], value: Any) -> None:
    from tomlkit.items import Table

    *way, last = path
    for part in way:
        inside = part in range(len(table)) if isinstance(table, list) else part in table
        if not inside:
            if value is None:
                return
            table[part] = {}
        table = table[part]
        if not isinstance(table, Mapping | list):
            raise UsageError(
                f"'{part}' is no table, so it has no key '{last}'.",
                fix=f"Set it as a whole: {part}='{{{last}: …}}'",
            )
    if value is None:
        present = last in range(len(table)) if isinstance(table, list) else last in table
        if present:
            del table[last]
    elif last not in table and isinstance(table, Table):
        # The comment that stands above the next table is the last thing in this one.
        body = table.value.body
        below: list[Any] = []
        while body and body[-1][0] is None:
            below.insert(0, body.pop())
        table[str(last)] = value
        body.extend(below)
    else:
        table[last] = value
