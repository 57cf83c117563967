"""Why an interpolation cannot be resolved, in words that say what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ..text import did_you_mean
from .inherit import LeafPath

Leaves = Mapping[LeafPath, Any]
"""A profile's raw values by path."""

ENV = re.compile(r"\$\{\s*oc\.env\s*:\s*(?P<name>[^,}]*?)\s*(?P<end>[,}])")
"""An environment variable that is read; `end` tells whether a default follows."""

PLAIN_NAME = re.compile(r"(?P<quote>[\"']?)(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P=quote)")
"""A variable's name that is written out, in quotes or not."""

REFERENCE = re.compile(r"(?<!\\)\$\{\s*(?P<key>\w[\w.-]*)\s*\}")
"""Another key of the profile, by its full name."""

_UNKNOWN_RESOLVER = re.compile(r"Unsupported interpolation type (\S+)")
_RESOLVERS = ("oc.env", "oc.decode", "oc.select", "oc.create")


class InterpolationProblem(Exception):
    """Why a value cannot be resolved, and what to do about it."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def explain(path: LeafPath, tree: Leaves, error: str) -> InterpolationProblem:
    """What OmegaConf objected to in the leaf at `path`."""
    value = tree.get(path)
    return (
        _missing_variable(value)
        or _circular(path, tree)
        or _unknown_resolver(value, error)
        or _missing_key(value, tree)
        or InterpolationProblem(
            f"{_shown(value)} is not a well-formed interpolation: {error.splitlines()[0]}.",
            "Write ${oc.env:NAME,default}; text with commas or braces in a default goes in quotes. "
            "What the job's shell is to read is written \\${NAME}, in single quotes.",
        )
    )


def unending(path: LeafPath, tree: Leaves) -> InterpolationProblem:
    """Why the leaf at `path` has no end."""
    return _circular(path, tree) or InterpolationProblem(
        f"{_shown(tree.get(path))} is nested too deep to be resolved.",
        "Write it with less nesting.",
    )


def _missing_variable(value: Any) -> InterpolationProblem | None:
    for match in ENV.finditer(str(value)):
        plain = PLAIN_NAME.fullmatch(match["name"])
        if match["end"] == "}" and plain and plain["name"] not in os.environ:
            name = plain["name"]
            return InterpolationProblem(
                f"The environment variable {name} is not set, and {_shown(value)} "
                "gives no default.",
                f"Set it (export {name}=…) or give a default: ${{oc.env:{name},default}}",
            )
    return None


def _circular(path: LeafPath, tree: Leaves) -> InterpolationProblem | None:
    """Follow the first reference of each leaf from `path`, until one comes again."""
    way = [".".join(path)]
    while True:
        value = tree.get(tuple(way[-1].split(".")))
        keys = [match["key"] for match in REFERENCE.finditer(str(value))]
        following = next((key for key in keys if _in_tree(key, tree)), None)
        if following is None:
            return None
        way.append(following)
        if following in way[:-1]:
            circle = " → ".join(way[way.index(following) :])
            return InterpolationProblem(
                f"Keys refer to each other in a circle: {circle}.",
                "Give one of them a value of its own.",
            )


def _unknown_resolver(value: Any, error: str) -> InterpolationProblem | None:
    unknown = _UNKNOWN_RESOLVER.search(error)
    if unknown is None:
        return None
    return InterpolationProblem(
        f"{_shown(value)} asks for '{unknown[1]}', which is no interpolation known here.",
        did_you_mean(unknown[1], _RESOLVERS)
        or "Write what it stands for: in the file, or for this launch with run.env.KEY=VALUE. "
        "Environment variables are read with ${oc.env:NAME,default}.",
    )


def _missing_key(value: Any, tree: Leaves) -> InterpolationProblem | None:
    keys = [match["key"] for match in REFERENCE.finditer(str(value))]
    missing = next((key for key in keys if not _in_tree(key, tree)), None)
    if missing is None:
        return None
    return InterpolationProblem(
        f"{_shown(value)} refers to a key '{missing}', which this profile does not have.",
        f"For an environment variable write ${{oc.env:{missing}}}; "
        f"for a variable of the job's shell write ${missing} without braces.",
    )


def _in_tree(key: str, tree: Leaves) -> bool:
    path = tuple(key.split("."))
    return any(known[: len(path)] == path for known in tree)


def _shown(value: Any) -> str:
    text = str(value)
    return f"'{text}'" if len(text) <= 120 else f"'{text[:100]}…'"
