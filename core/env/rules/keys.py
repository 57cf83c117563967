"""Keys that there are not, values of the wrong type, and what is missing after inheritance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...findings import Edit, Finding
from ...secrets import is_secret_name
from ...text import did_you_mean, nearest
from ..load import BUILT_IN
from ..models import MODELS, describe, item_keys, keys_of
from ..models.misfit import Misfit
from ..spellings import SPELLINGS
from .subject import Subject


def keys_and_types(subject: Subject) -> Iterable[Finding]:
    """The profile against the model of its executor."""
    if subject.model is None:
        yield from _executor(subject)
        return
    known = keys_of(subject.executor)
    for misfit in subject.misfits:
        if misfit.kind == "unknown" and misfit.key in known:
            continue  # another name of a key that is there already; `second_spellings` says so
        if misfit.kind == "unknown":
            yield _unknown(subject, misfit.key)
        elif misfit.kind == "missing":
            table, _, name = misfit.key.rpartition(".")
            yield subject.finding(
                "error",
                misfit.key,
                f"'{table}' has no '{name}'.",
                describe(subject.executor, table.split(".")[0]),
            )
        else:
            yield wrong_value(subject, misfit)
    if subject.name == BUILT_IN.name and subject.executor != BUILT_IN.table["executor"]:
        yield subject.finding(
            "error",
            "executor",
            f"Launches without a profile run by '{subject.name}', which stands for this machine "
            f"and not for '{subject.executor}'.",
            "Give the profile another name, and choose it with -r.",
        )
    yield from _missing(subject)


def _executor(subject: Subject) -> Iterator[Finding]:
    known = ", ".join(MODELS)
    if subject.executor:
        match = nearest(subject.executor, MODELS)
        yield subject.finding(
            "error",
            "executor",
            f"There is no executor '{subject.executor}'.",
            f"Did you mean '{match}'?" if match else f"Use one of: {known}.",
            Edit("set", "executor", match) if match else None,
        )
    elif not subject.is_base:
        yield subject.finding(
            "error",
            "executor",
            f"Profile '{subject.name}' has no 'executor', and inherits none.",
            f"Add one of: {known}.",
        )


def _unknown(subject: Subject, key: str) -> Finding:
    table, _, name = key.rpartition(".")
    siblings = _siblings(subject, table)
    match = nearest(name, siblings)
    others = [other for other in MODELS if not table and name in keys_of(other)]
    if others:
        return subject.finding(
            "warning" if _is_shared_layer(subject, key) else "error",
            key,
            f"'{key}' is a key of {' and '.join(others)}, not of {subject.executor}.",
            did_you_mean(name, siblings) or "Take it out of this profile.",
        )
    renamed = f"{table}.{match}" if table else match
    return subject.finding(
        "error",
        key,
        f"There is no key '{name}' in {table or f'a {subject.executor} profile'}.",
        f"Did you mean '{match}'?" if match else f"Take it out. {_list(siblings)}",
        Edit("rename", key, renamed) if match and not _is_taken(subject, table, match) else None,
    )


def second_spellings(subject: Subject) -> Iterable[Finding]:
    """Keys that a profile has twice under two names."""
    known = keys_of(subject.executor) if subject.model else None
    for names in SPELLINGS.values():
        there = [n for n in names if n in subject.values and (known is None or n in known)]
        for other in there[1:]:
            same = subject.values[there[0]] == subject.values[other]
            yield subject.finding(
                "error",
                other,
                f"'{there[0]}' and '{other}' are the same key.",
                f"Keep '{there[0]}' alone.",
                Edit("remove", other) if same else None,
            )


def _is_shared_layer(subject: Subject, key: str) -> bool:
    """A step or a config speaks to every executor; a profile and a command line to one."""
    return not subject.layer(key).startswith(("profile", "command line"))


def _siblings(subject: Subject, table: str) -> list[str]:
    """The keys that may stand beside an unknown one."""
    if table:
        return item_keys(subject.executor, table.split(".", maxsplit=1)[0])
    return list(keys_of(subject.executor))


def _is_taken(subject: Subject, table: str, name: str) -> bool:
    return not table and name in subject.values


def wrong_value(subject: Subject, misfit: Misfit) -> Finding:
    """What to say of a value that is of another type than its key's."""
    name = misfit.key.rpartition(".")[2]
    secret = is_secret_name(name) or misfit.key.startswith("secrets")
    is_plain = isinstance(misfit.value, str | int | float) and not secret
    shown = f", not {str(misfit.value)[:60]!r}" if is_plain else ""
    mended = misfit.mended
    if misfit.choices and (match := nearest(str(misfit.value), misfit.choices)):
        mended = match
    words = describe(subject.executor, misfit.key.split(".")[0])
    return subject.finding(
        "error",
        misfit.key,
        f"'{misfit.key}' must be {misfit.wanted}{shown}.",
        f'Write {name} = "{mended}"' if isinstance(mended, str) else words,
        Edit("set", misfit.key, mended) if mended is not None else None,
    )


def _missing(subject: Subject) -> Iterator[Finding]:
    assert subject.model is not None
    for key in subject.model.required(subject.values):
        if subject.values.get(subject.written(key)) in (None, ""):
            yield subject.finding(
                "info" if subject.is_base else "error",
                key,
                f"'{key}' is missing in profile '{subject.name}' and all it extends.",
                f"Add it: {describe(subject.executor, key)}",
            )


def _list(names: list[str]) -> str:
    return f"The keys are: {', '.join(names)}."
