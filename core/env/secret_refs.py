"""Taking the secrets out of a profile: what is left of each is the name it is found under."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..findings import Finding, Fix
from ..origins import Origin, Sourced
from ..plan import SecretRef
from ..secrets import MASK, WORDS, is_secret_name, literal_in, mask_text, shows_secret
from .inherit import LeafPath, Tree, without_secret
from .interpolate import env_names
from .interpolation_problem import InterpolationProblem
from .placeholder import is_placeholder

HIDDEN = "\0secret\0"
"""Stands for a secret among the raw values, so that another key that refers to it is noticed."""

_ONE_REFERENCE = re.compile(r"\s*\$\{\s*oc\.env\s*:[^${}]*(?:\$\{[^${}]*\}[^${}]*)*\}\s*")


@dataclass(frozen=True, slots=True)
class Cleared:
    """One raw leaf of a profile after its secret, if it is one, was taken out.

    Attributes:
        raw: the leaf as it was.
        value: its value; `HIDDEN` for a secret.
        shown: for a secret, what may be shown instead: `${oc.env:NAME}`, or `MASK` where it was
            written in clear.
        secret: for a secret that the job sees as an environment variable, its name.
        overrode: what it replaced, without secrets.
        problem: what would have let a secret through.
    """

    raw: Sourced
    value: Any
    shown: str | None = None
    secret: SecretRef | None = None
    overrode: tuple[tuple[Any, Origin], ...] = ()
    problem: Finding | None = None


def clear(path: LeafPath, sourced: Sourced, declared: Mapping[str, SecretRef]) -> Cleared:
    """Take a leaf's secret out.

    Args:
        path: where the leaf is in the profile.
        sourced: the raw leaf.
        declared: the secrets that the profile names, as `declared_secrets` gives them.
    """
    problem = source = None
    try:
        if not _is_secret(path, sourced.value, declared):
            _refuse_secret_text(path, sourced.value)
            return Cleared(sourced, sourced.value, overrode=sourced.overrode)
        source = _source(path, sourced)
    except InterpolationProblem as error:
        problem = problem_at(path, sourced.origin, error)
    name = path[-1]
    remote = name in declared and declared[name].remote
    return Cleared(
        raw=sourced,
        value=HIDDEN,
        shown=_reference(source, sourced.value),
        secret=None if path[0] != "env_vars" or remote else SecretRef(name, source or name),
        overrode=tuple((_masked(old), origin) for old, origin in sourced.overrode),
        problem=problem,
    )


def declared_secrets(tree: Tree) -> dict[str, SecretRef]:
    """What `secrets` names: a list of names, or a table of names at the service."""
    declared: dict[str, SecretRef] = {}
    for path, sourced in tree.items():
        if path == ("secrets",):
            names = sourced.value if isinstance(sourced.value, list) else [sourced.value]
            declared.update({n: SecretRef(n, n) for n in names if isinstance(n, str)})
        elif path[0] == "secrets" and isinstance(sourced.value, str):
            declared[path[-1]] = SecretRef(path[-1], sourced.value, remote=True)
    return declared


def reads_secret(value: Any, declared: Collection[str] = ()) -> str | None:
    """The secret environment variable that a value reads, or None.

    Raises:
        InterpolationProblem: if it cannot be told.
    """
    names = env_names(str(value)) if "${" in str(value) else []
    return next((name for name in names if is_secret_name(name) or name in declared), None)


def problem_at(path: LeafPath, origin: Origin, problem: InterpolationProblem) -> Finding:
    """An error about one leaf, at its place and of the profile that it was written in."""
    layer, _, profile = origin.layer.partition(" ")
    return Finding(
        "error",
        mask_text(problem.message),
        place=origin.place,
        profile=profile if layer == "profile" else None,
        key=".".join(path),
        fix=Fix(mask_text(problem.fix)),
    )


def _is_secret(path: LeafPath, value: Any, declared: Collection[str]) -> bool:
    if path[0] == "secrets":
        return False
    if is_secret_name(path[-1]):
        return True
    read = reads_secret(value, declared)
    if path[0] == "env_vars":
        return path[-1] in declared or read is not None
    if read is not None:
        raise InterpolationProblem(
            f"'{'.'.join(path)}' reads the secret {read}; its value would be written down.",
            f'Name it in secrets = ["{read}"], and let the job read it: ${read}',
        )
    return False


def _source(path: LeafPath, sourced: Sourced) -> str | None:
    """The environment variable that a secret is read from; None where it stands there in clear."""
    text = "" if sourced.value is None else str(sourced.value)
    own_name = path[-1] if path[0] == "env_vars" else path[-1].upper()
    literal = literal_in(text)
    if literal is not None and not sourced.origin.layer.startswith("profile "):
        raise InterpolationProblem(
            f"'{'.'.join(path)}' is a secret and is given in clear.",
            f"Export it instead: export {own_name}=…; it is read as the run is handed over.",
        )
    if literal is not None:
        return None
    if not text.strip():
        return own_name
    names = env_names(text)
    if not names or not _ONE_REFERENCE.fullmatch(text):
        raise InterpolationProblem(
            f"'{'.'.join(path)}' is a secret, and must be one environment variable as it is.",
            f"Write ${{oc.env:{own_name}}}, and put the whole value into that variable.",
        )
    return next((name for name in names if name in os.environ), names[0])


def _masked(value: Any) -> Any:
    """A value that a secret replaced, by whatever name it is known to be one."""
    return without_secret(next(iter(WORDS)), value)


def _reference(source: str | None, value: Any) -> str:
    """What may be shown instead of a secret's value. A placeholder is not a secret yet."""
    if source:
        return f"${{oc.env:{source}}}"
    literal = literal_in(value)
    return str(value) if literal and is_placeholder(literal) else MASK


def _refuse_secret_text(path: LeafPath, value: Any) -> None:
    if shows_secret(value):
        raise InterpolationProblem(
            f"'{'.'.join(path)}' shows a secret in clear.",
            "Put the secret into an environment variable, name that in 'secrets', "
            "and let the job read it, for example $HF_TOKEN.",
        )
