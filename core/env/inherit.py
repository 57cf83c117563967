"""`extends`: a profile with what it inherits, each value with its place and what it overrode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..findings import Edit
from ..keys import dotted, leaf_paths
from ..origins import Origin, Sourced
from ..secrets import MASK, is_secret_name, literal_in, shows_secret
from ..text import nearest
from .load import EnvFiles, Profile
from .placeholder import is_placeholder
from .spellings import other_spellings

LeafPath = tuple[str, ...]
Tree = dict[LeafPath, Sourced]
"""A profile as its leaves: `("env_vars", "HF_HOME")` → value. A list is one leaf."""


class InheritanceError(UsageError):
    """A profile that cannot be inherited; the place is that of its `extends`.

    Args:
        profile: the profile whose `extends` is wrong.
        message: what is wrong with it.
        fix: what to do about it.
        edit: the mend, where it is beyond doubt.
    """

    def __init__(self, profile: Profile, message: str, fix: str, edit: Edit | None = None) -> None:
        super().__init__(message, place=profile.place("extends"), fix=fix)
        self.profile = profile.name
        self.edit = edit


class Inheritance:
    """The profiles of env files with what they inherit, each worked out once."""

    def __init__(self, files: EnvFiles) -> None:
        self._files = files
        self._done: dict[str, Tree] = {}
        self._failed: dict[str, InheritanceError] = {}

    def tree(self, name: str) -> Tree:
        """The leaves of a profile, parents first. Chains may be of any length.

        Raises:
            UsageError: if there is no profile of that name.
            InheritanceError: if a parent does not exist, or profiles extend each other in a circle.
                It is the same error for all that inherit from there.
        """
        self._files.profile(name)
        way = [name]
        try:
            while way:
                profile = self._files.profiles[way[-1]]
                parent = self._first_open(profile)
                if parent is None:
                    self._done[way.pop()] = self._merged(profile)
                elif parent in way:
                    raise _circle(profile, parent, way)
                else:
                    way.append(parent)
        except InheritanceError as error:
            self._failed.update(dict.fromkeys(way, error))
            raise
        return self._done[name]

    def _first_open(self, profile: Profile) -> str | None:
        """The first parent that is not worked out yet."""
        if profile.name in self._failed:
            raise self._failed[profile.name]
        parents = parents_of(profile, self._files)
        return next((parent for parent in parents if parent not in self._done), None)

    def _merged(self, profile: Profile) -> Tree:
        tree: Tree = {}
        for parent in parents_of(profile, self._files):
            overlay(tree, self._done[parent])
        layer = f"profile {profile.name}"
        own = {key: value for key, value in profile.table.items() if key != "extends"}
        overlay(
            tree,
            {
                path: Sourced(value, Origin(layer, profile.place(*path)))
                for path, value in leaf_paths(own)
            },
        )
        return tree


def parents_of(profile: Profile, files: EnvFiles) -> list[str]:
    """The names that a profile extends, in their order: a later parent wins over an earlier one.

    Raises:
        InheritanceError: if `extends` is neither a name nor a list of names, or names no profile.
    """
    extends = profile.table.get("extends", [])
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InheritanceError(
            profile,
            f"'extends' of profile '{profile.name}' must be a profile's name or a list of them.",
            'Write it like this: extends = "slurm_base"',
        )
    for name in names:
        if name not in files.profiles:
            match = nearest(name, files.profiles)
            known = f"Define [{name}], or extend one of: {_some(files.profiles)}."
            raise InheritanceError(
                profile,
                f"Profile '{profile.name}' extends '{name}', and there is no such profile.",
                f"Did you mean '{match}'?" if match else known,
                Edit("set", "extends", match) if match and isinstance(extends, str) else None,
            )
    return names


def overlay(tree: Tree, layer: Mapping[LeafPath, Sourced]) -> None:
    """Lay one layer over `tree` in place: maps merge deep, anything else is replaced."""
    if not tree:
        tree.update(layer)
        return
    for path, incoming in layer.items():
        covered: list[Sourced] = []
        if path in tree:
            covered.append(tree[path])
        else:
            inside = [known for known in tree if known[: len(path)] == path]
            if incoming.value == {} and inside:
                continue
            around = [path[:n] for n in range(1, len(path)) if path[:n] in tree]
            spelled = [(other,) for other in other_spellings(path[0])] if len(path) == 1 else []
            spelled = [other for other in spelled if other not in layer]  # both: an error to tell
            covered = [tree.pop(known) for known in (*inside, *around, *spelled) if known in tree]
        past = tuple(
            entry
            for old in covered
            for entry in ((without_secret(path[-1], old.value), old.origin), *old.overrode)
        )
        tree[path] = Sourced(incoming.value, incoming.origin, (*incoming.overrode, *past))


def nested(tree: Mapping[LeafPath, Any]) -> dict[str, Any]:
    """Leaves back into nested tables."""
    root: dict[str, Any] = {}
    for path, value in tree.items():
        table = root
        for key in path[:-1]:
            table = table.setdefault(key, {})
        table[path[-1]] = value
    return root


def _circle(profile: Profile, parent: str, way: list[str]) -> InheritanceError:
    circle = [*way[way.index(parent) :], parent]
    if len(circle) > 8:
        circle = [*circle[:4], "…", *circle[-3:]]
    return InheritanceError(
        profile,
        f"Profiles extend each other in a circle: {' → '.join(circle)}.",
        f"Take 'extends' out of one of them, for example out of [{profile.name}].",
    )


def _some(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:6]) + (", …" if len(known) > 6 else "")


def without_secret(name: str, value: Any) -> Any:
    """What may be kept of a value that was overridden: all of it, a reference, or the mask."""
    if is_secret_name(name):
        literal = literal_in(value)
        return MASK if literal is not None and not is_placeholder(literal) else value
    return MASK if shows_secret(value) else value


def writes_secret(path: Sequence[str | int], value: Any) -> bool:
    """Whether a profile's key would hold a secret in clear; `secrets` holds names of secrets."""
    return path[0] != "secrets" and without_secret(str(path[-1]), value) != value


def refuse_secret(path: Sequence[str | int], value: Any) -> None:
    """Refuse a value that would write a secret into an env file.

    Args:
        path: the key below its profile.
        value: what it is to be.

    Raises:
        UsageError: if it is one.
    """
    if writes_secret(path, value):
        name = path[-1] if path[0] == "env_vars" else "NAME"
        raise UsageError(
            f"'{dotted(tuple(path))}' is a secret, which no file may hold.",
            fix=f"Export it as a variable (export {name}=…) and write ${{oc.env:{name}}} here, or "
            "add its name to 'secrets'.",
        )
