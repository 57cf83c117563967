"""Resolving `${…}`: OmegaConf's interpolations, shipped assets, and secrets that stay names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import locations
from ..interpolation import value_at
from ..keys import KeyPath, dotted
from ..secrets import is_secret_name
from ..text import did_you_mean

_RESOLVERS = (
    "oc.env",
    "oc.select",
    "oc.decode",
    "oc.create",
    "oc.deprecated",
    "oc.dict.keys",
    "oc.dict.values",
    "tunedeck.asset",
)
_UNSET = "environment variable "
_NO_ASSET = "no asset "
_NO_DEFAULT = object()
_THEIR_ENV = re.compile(r"(?<!\\)\$\{\s*oc\.env\s*:")
_SECRET = re.compile(r"\$\{oc\.env:\s*([\w-]+)")


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An interpolation that could not be resolved.

    Attributes:
        path: the key whose value holds it.
        message, fix: what is wrong, and what to do.
        elsewhere: whether another machine may well know what is missing here.
    """

    path: KeyPath
    message: str
    fix: str
    elsewhere: bool = False


def interpolate(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Unresolved]]:
    """Resolve every interpolation of nested plain data.

    An environment variable that holds a secret, by its name, is not read: `${oc.env:HF_TOKEN}`
    stays as it is, a reference.

    Returns:
        The values, in which what could not be resolved stays as it was written; and what that is.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    values: dict[str, Any] = _copied(raw)
    written = list(_interpolated(raw, ()))
    if not written:
        return values, []
    _register()
    config = OmegaConf.create(_own_env(values))
    failed: list[Unresolved] = []
    for path, text in written:
        try:
            resolved = value_at(config, path)
        except (OmegaConfBaseException, RecursionError) as error:
            failed.append(_explained(error, path, text, raw))
            if "RecursionError" in f"{type(error)}{error}":
                break  # each of the others in the row would take as long to fail
            continue
        table: Any = values
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = resolved
    return values, failed


def secret_reference(value: Any) -> str | None:
    """The secret that a resolved value still refers to, by its name; None if there is none."""
    if isinstance(value, list | tuple):
        return next((name for item in value if (name := secret_reference(item))), None)
    if isinstance(value, Mapping):
        return secret_reference(list(value.values()))
    if not isinstance(value, str):
        return None
    return next((name for name in _SECRET.findall(value) if is_secret_name(name)), None)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _own_env(value: Any) -> Any:
    """The same with our own resolver for environment variables, which leaves secrets unread."""
    if isinstance(value, Mapping):
        return {key: _own_env(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_own_env(item) for item in value]
    return _THEIR_ENV.sub("${tunedeck.env:", value) if isinstance(value, str) else value


def _interpolated(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _interpolated(inner, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _interpolated(item, (*path, index))
    elif isinstance(value, str) and "${" in value:
        yield path, value


def _register() -> None:
    from omegaconf import OmegaConf

    OmegaConf.register_resolver("tunedeck.env", _env, replace=True)
    OmegaConf.register_resolver("tunedeck.asset", _asset, replace=True)


def _env(name: str, default: Any = _NO_DEFAULT) -> Any:
    if is_secret_name(name):
        return f"${{oc.env:{name}}}"
    if name in os.environ:
        return os.environ[name]
    if default is _NO_DEFAULT:
        raise LookupError(f"{_UNSET}{name} is not set")
    return None if default is None else str(default)


def _asset(name: str) -> str:
    path = locations.assets_dir() / name
    if not path.exists():
        raise LookupError(f"{_NO_ASSET}'{name}' ships with Tunedeck")
    return str(path)


def _explained(error: Exception, path: KeyPath, text: str, raw: Mapping[str, Any]) -> Unresolved:
    from omegaconf.errors import (
        InterpolationKeyError,
        InterpolationToMissingValueError,
        UnsupportedInterpolationType,
    )

    reason = str(error).splitlines()[0].rpartition("resolving interpolation: ")[2].strip("\"'")
    here = f"{dotted(path)} = {text}"
    if isinstance(error, UnsupportedInterpolationType):
        name = reason.rpartition(" ")[2]
        hint = did_you_mean(name, _RESOLVERS) or f"There are: {', '.join(_RESOLVERS)}."
        return Unresolved(path, f"{here}: there is no resolver '{name}'.", hint, elsewhere=True)
    if isinstance(error, InterpolationToMissingValueError):
        return Unresolved(path, f"{here}: it refers to a value that is not set ('???').", "Set it.")
    if isinstance(error, InterpolationKeyError):
        match = re.search(r"'([^']*)'", reason)
        name = match[1] if match else text
        known = [dotted(key) for key in _keys(raw, ())]
        return Unresolved(
            path,
            f"{here}: there is no key '{name}'.",
            did_you_mean(name, known) or "Name a key of this config, dotted from its root.",
        )
    if reason.startswith(_UNSET):
        name = reason.removeprefix(_UNSET).partition(" ")[0]
        return Unresolved(
            path,
            f"{here}: the {reason}.",
            f"Set it (export {name}=…), or give a default: ${{oc.env:{name},default}}.",
            elsewhere=True,
        )
    if reason.startswith(_NO_ASSET):
        fix = f"Name a file or folder below {locations.assets_dir()}."
        return Unresolved(path, f"{here}: {reason}.", fix)
    if "ecurs" in str(error) or "parent node" in reason:
        return Unresolved(
            path,
            f"{here}: the interpolation leads back to itself, or through too many others.",
            "Write the value out in one of the places.",
        )
    return Unresolved(
        path, f"{here}: {reason}.", "Interpolations are ${key} or ${oc.env:NAME,default}."
    )


def _keys(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield (*path, key)
            yield from _keys(inner, (*path, key))
