"""A profile, resolved: its layers laid over each other, interpolated, its secrets taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import UsageError
from ..findings import Finding
from ..keys import leaf_paths
from ..origins import Sourced
from ..plan import SecretRef
from ..secrets import is_secret_name
from .inherit import Inheritance, LeafPath, Tree, nested, overlay
from .interpolate import Interpolator, reads_keys
from .interpolation_problem import InterpolationProblem
from .load import EnvFiles
from .secret_refs import HIDDEN, Cleared, clear, declared_secrets, problem_at, reads_secret

Layer = Mapping[str, Sourced]
"""A layer around the profile: dotted key (`env_vars.HF_HOME`) → value and where it comes from."""


@dataclass(frozen=True, slots=True)
class ResolvedProfile:
    """A profile with everything it inherits, as a plan takes it. Holds no secret's value.

    Attributes:
        name: the profile.
        executor: the backend's name; empty if the profile names none.
        values: the keys as nested plain data. Environment variables that are secrets are not among
            `env_vars`; any other secret key holds the reference `${oc.env:NAME}`.
        origins: dotted leaf key → value, place and what it overrode, the secrets as references.
        env_vars: the environment variables that are no secrets, as text.
        secrets: those that are.
        wandb: the `[wandb]` table of the profile's file, resolved.
    """

    name: str
    executor: str
    values: Mapping[str, Any]
    origins: Mapping[str, Sourced] = field(repr=False)
    env_vars: Mapping[str, str] = field(repr=False)
    secrets: tuple[SecretRef, ...]
    wandb: Mapping[str, Any] = field(repr=False)


def resolve_profile(
    files: EnvFiles,
    name: str,
    *,
    step_defaults: Layer | None = None,
    run_env: Layer | None = None,
    command_line: Layer | None = None,
) -> ResolvedProfile:
    """Resolve a profile. Later wins: step, parents, profile, the config's `run.env`, command line.

    Maps merge deep, lists are replaced; only the `mounts` of profile and config join.

    Args:
        files: the env files in use.
        name: the profile.
        step_defaults: what the step asks for when nobody else says anything.
        run_env: the config's `run.env`.
        command_line: the `run.env.*` overrides.

    Raises:
        UsageError: if there is no such profile, it names no executor, it cannot be inherited or
            interpolated, or a secret would end up where it can be read.
    """
    profile, problems = Resolver(files).attempt(
        name, step_defaults=step_defaults, run_env=run_env, command_line=command_line
    )
    raise_first(problems)
    if not profile.executor:
        raise UsageError(
            f"Profile '{name}' names no executor.",
            place=files.profile(name).place(),
            fix='Add one, for example executor = "slurm", or extend a profile that has one.',
        )
    return profile


def raise_first(problems: list[Finding]) -> None:
    """Raise the first of the problems that stood in a profile's way, if there is one.

    Raises:
        UsageError: with the problem's place and remedy.
    """
    if problems:
        first = problems[0]
        raise UsageError(first.message, place=first.place, fix=first.fix.words if first.fix else "")


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf with its interpolations resolved, and the raw one, by whose id it is kept."""

    cleared: Cleared
    sourced: Sourced
    problem: Finding | None = None


class Resolver:
    """Resolves any number of profiles of the same env files; what they share is worked out once."""

    def __init__(self, files: EnvFiles) -> None:
        self._files = files
        self._inheritance = Inheritance(files)
        self._interpolator = Interpolator()
        self._leaves: dict[tuple[int, frozenset[str]], _Leaf] = {}

    def attempt(
        self,
        name: str,
        *,
        step_defaults: Layer | None = None,
        run_env: Layer | None = None,
        command_line: Layer | None = None,
    ) -> tuple[ResolvedProfile, list[Finding]]:
        """Resolve a profile as far as it goes, with what stood in the way.

        Takes what `resolve_profile` takes. A value that cannot be resolved stays as written.

        Raises:
            UsageError: if there is no such profile, or it cannot be inherited.
        """
        tree = _tree(step_defaults)
        overlay(tree, self._inheritance.tree(name))
        overlay(tree, _with_mounts_joined(tree, _tree(run_env)))
        overlay(tree, _tree(command_line))

        declared = declared_secrets(tree)
        names = frozenset(declared)
        leaves = {
            path: self._leaves.get((id(sourced), names)) or self._leaf(path, sourced, declared)
            for path, sourced in tree.items()
        }
        raw = {path: leaf.cleared.value for path, leaf in leaves.items()}
        for path, leaf in leaves.items():
            if leaf.cleared.value is not HIDDEN and reads_keys(leaf.cleared.value):
                leaves[path] = self._resolved(path, leaf.cleared, raw)
        secrets = [leaf.cleared.secret for leaf in leaves.values() if leaf.cleared.secret]
        profile = self._profile(name, leaves, {**declared, **{s.name: s for s in secrets}})
        problems = [leaf.cleared.problem or leaf.problem for leaf in leaves.values()]
        return profile, [replace(p, profile=p.profile or name) for p in problems if p]

    def _leaf(self, path: LeafPath, sourced: Sourced, declared: Mapping[str, SecretRef]) -> _Leaf:
        cleared = clear(path, sourced, declared)
        if cleared.shown is not None:
            leaf = _Leaf(cleared, Sourced(cleared.shown, sourced.origin, cleared.overrode))
        elif reads_keys(cleared.value):
            leaf = _Leaf(cleared, sourced)
        else:
            leaf = self._resolved(path, cleared, {path: cleared.value})
        self._leaves[id(sourced), frozenset(declared)] = leaf
        return leaf

    def _resolved(self, path: LeafPath, cleared: Cleared, raw: Mapping[LeafPath, Any]) -> _Leaf:
        origin = cleared.raw.origin
        try:
            value = self._interpolator.resolve(cleared.value, path, raw)
            if HIDDEN in _texts(value):
                raise InterpolationProblem(
                    f"'{'.'.join(path)}' takes over the value of a secret.",
                    "Let the job read the environment variable itself.",
                )
        except InterpolationProblem as problem:
            return _Leaf(cleared, cleared.raw, problem_at(path, origin, problem))
        return _Leaf(cleared, Sourced(value, origin, cleared.overrode))

    def _profile(
        self, name: str, leaves: Mapping[LeafPath, _Leaf], secrets: Mapping[str, SecretRef]
    ) -> ResolvedProfile:
        values = nested(
            {
                path: leaf.sourced.value
                for path, leaf in leaves.items()
                if path[0] != "env_vars" or path[-1] not in secrets
            }
        )
        env_vars = values.get("env_vars")
        return ResolvedProfile(
            name=name,
            executor=str(values.get("executor") or ""),
            values=values,
            origins={".".join(path): leaf.sourced for path, leaf in leaves.items()},
            env_vars={
                key: _as_text(value)
                for key, value in (env_vars if isinstance(env_vars, dict) else {}).items()
                if value is not None
            },
            secrets=tuple(secrets[key] for key in sorted(secrets)),
            wandb=self._wandb(name),
        )

    def _wandb(self, name: str) -> dict[str, Any]:
        """The `[wandb]` table beside the profile, without what is secret or cannot be resolved."""
        table = dict(leaf_paths(self._files.reserved("wandb", name)))
        resolved = {}
        for path, value in table.items():
            try:
                if not is_secret_name(path[-1]) and not reads_secret(value):
                    resolved[path] = self._interpolator.resolve(value, path, table)
            except InterpolationProblem:
                continue  # `env check` says so
        return nested(resolved)


def _tree(layer: Layer | None) -> Tree:
    return {tuple(key.split(".")): sourced for key, sourced in (layer or {}).items()}


def _with_mounts_joined(tree: Tree, run_env: Tree) -> Tree:
    """The config's layer, its mounts after the profile's; what both have is there once."""
    mounts = ("mounts",)
    if mounts not in tree or mounts not in run_env:
        return run_env
    joined: list[Any] = []
    for item in (*_as_list(tree[mounts].value), *_as_list(run_env[mounts].value)):
        if item not in joined:
            joined.append(item)
    return {**run_env, mounts: Sourced(joined, run_env[mounts].origin, run_env[mounts].overrode)}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_text(value: Any) -> str:
    """An environment variable's value as the file has it: a TOML `true` is `true`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _texts(value: Any) -> str:
    """All texts in a value, one after the other."""
    if isinstance(value, list):
        return "".join(_texts(item) for item in value)
    if isinstance(value, Mapping):
        return "".join(_texts(item) for item in value.values())
    return value if isinstance(value, str) else ""
