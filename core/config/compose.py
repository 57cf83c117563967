"""From a config file and overrides to checked values, each with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NOWHERE, Place, UsageError
from ..findings import Finding, Fix
from ..keys import KeyPath, dotted, leaf_paths
from ..origins import Origin, Sourced
from .chain import load_chain
from .interpolate import interpolate, secret_reference
from .layers import Tree, leaf_at, plain
from .overrides import Override, apply, parse_override
from .problems import ConfigErrors
from .validate import check
from .yaml_file import YamlFile

if TYPE_CHECKING:
    from ..schema.base import Shorthand, Table

DEFAULT = Origin("default")
"""The origin of a value that only the schema gives."""


@dataclass(frozen=True, slots=True)
class ComposedConfig:
    """A config with everything in it decided.

    Attributes:
        path: the file it was made from.
        values: plain nested data, interpolations resolved; with a schema also its defaults, and
            AutoModel's spellings translated, so that the same run has the same values.
        origins: dotted leaf key → value, origin and what it overrode. A list is one leaf.
        chain: the files it was read from, parents first.
        raw: the merged values as they are written, before interpolation and defaults.
        model: the values as the schema's typed model, where there is a schema.
        remarks: what is allowed but most likely not meant.
    """

    path: Path
    values: dict[str, Any]
    origins: Mapping[str, Sourced]
    chain: tuple[Path, ...]
    raw: dict[str, Any] = field(repr=False)
    model: Table | None = field(default=None, repr=False)
    remarks: tuple[Finding, ...] = ()


def compose(
    path: Path, overrides: Iterable[str] = (), *, schema: type[Table] | None = None
) -> ComposedConfig:
    """Compose a config: its `defaults:` chain, the overrides, interpolation, then the schema.

    Args:
        path: a YAML file.
        overrides: `key=value`, typed as OmegaConf's dotlist types them; later ones win.
        schema: what the values are checked against. Without one, as for steps of other catalogs,
            nothing is checked, and what only the machine that runs it knows stays unresolved.

    Raises:
        UsageError: if a file cannot be read; or all other mistakes together, as `ConfigErrors`.
    """
    words = _Words(schema)
    tree, files = load_chain(path, words.in_tree)
    findings: list[Finding] = []
    given: list[Override] = []
    for text in overrides:
        try:
            override = words.in_override(parse_override(text))
            tree = apply(tree, override)
            given.append(override)
        except UsageError as error:
            findings.append(Finding.of(error))
    lookup = _Lookup(tree, files, given)
    raw = plain(tree)
    values, unresolved = interpolate(raw)
    bad: set[KeyPath] = set()
    for problem in unresolved:
        if schema is None and problem.elsewhere:
            continue
        bad.add(problem.path)
        findings.append(lookup.finding(problem.path, problem.message, Fix(problem.fix)))
    for key in (key for key, value in leaf_paths(values) if value == "???"):
        bad.add(key)
        message = f"{dotted(key)} must be set: its value is left open as '???'."
        findings.append(lookup.finding(key, message, Fix(f"Set {dotted(key)}=…")))
    model: Table | None = None
    if schema is not None:
        model, problems = check(schema, values)
        findings.extend(_secrets(values, lookup))
        findings.extend(
            lookup.finding(problem.path, problem.message, problem.fix, problem.about)
            for problem in problems
            if not any(problem.path[: len(key)] == key for key in bad)
        )
    if findings:
        raise ConfigErrors(findings)
    if model is not None:
        values = model.model_dump(mode="json")
    return ComposedConfig(
        path=path,
        values=values,
        origins=dict(_origins(values, lookup, schema)),
        chain=tuple(file.path for file in files),
        raw=raw,
        model=model,
        remarks=tuple(_remarks(model, lookup)),
    )


class _Lookup:
    """Where the value of a key came from."""

    def __init__(self, tree: Tree, files: tuple[YamlFile, ...], overrides: list[Override]) -> None:
        self.tree = tree
        self._files = files
        self._overrides = overrides

    def leaf(self, path: KeyPath) -> Sourced | None:
        """The leaf at a path or around it."""
        found = leaf_at(self.tree, path)
        return found[0] if found else None

    def origin(self, path: KeyPath, about: str = "value") -> Origin:
        """The origin of a key, of the table it is in, or of the config, whichever there is."""
        leaf = self.leaf(path)
        if leaf is not None:
            refined = self._place(leaf.origin.place.file, path, about)
            return Origin(leaf.origin.layer, refined or leaf.origin.place, leaf.origin.text)
        for override in reversed(self._overrides):
            if path and override.path[: len(path)] == path:
                return override.origin
        for file in reversed(self._files):
            if path in file.places:
                return Origin(f"config {file.path.stem}", file.key_place(*path))
        if path:
            return self.origin(path[:-1], "key")
        last = self._files[-1]
        return Origin(f"config {last.path.stem}", Place(str(last.path)))

    def _place(self, name: str | None, path: KeyPath, about: str) -> Place | None:
        for file in self._files:
            if str(file.path) == name and path in file.places:
                key, value = file.places[path]
                return key if about == "key" else value
        return None

    def finding(
        self, path: KeyPath, message: str, fix: Fix | None, about: str = "value"
    ) -> Finding:
        """A finding at the place of a key; for an override, its text is in the message."""
        origin = self.origin(path, about)
        if origin.text is not None:
            message = f"{message.removesuffix('.')} (override {origin.text})."
        return Finding("error", message, origin.place, key=dotted(path) or None, fix=fix)


class _Words:
    """Puts tables in place of the words that stand for them, so that others merge with them."""

    def __init__(self, schema: type[Table] | None) -> None:
        self._words: dict[str, Shorthand] = {}
        if schema is not None:
            from ..schema.base import Shorthand
            from .fields import markers, visible

            self._words = {
                name: shorthand
                for name, info in visible(schema).items()
                for shorthand in markers(info, Shorthand)
            }

    def in_tree(self, tree: Tree) -> Tree:
        expanded = dict(tree)
        for name, shorthand in self._words.items():
            node = expanded.get(name)
            if isinstance(node, Sourced):
                expanded[name] = replace(node, value=shorthand.expand(node.value))
        return expanded

    def in_override(self, override: Override) -> Override:
        shorthand = self._words.get(str(override.path[0])) if len(override.path) == 1 else None
        if shorthand is None:
            return override
        return replace(override, value=shorthand.expand(override.value))


def _secrets(values: Mapping[str, Any], lookup: _Lookup) -> Iterator[Finding]:
    for path, value in leaf_paths({key: inner for key, inner in values.items() if key != "run"}):
        name = secret_reference(value)
        if name is not None:
            yield lookup.finding(
                path,
                f"{dotted(path)} reads the secret {name}, and a config may hold none.",
                Fix(f"Take it out; name {name} in the profile's 'secrets', and the run has it."),
            )


def _origins(
    values: Mapping[str, Any], lookup: _Lookup, schema: type[Table] | None
) -> Iterator[tuple[str, Sourced]]:
    for path, value in leaf_paths(values):
        if not path:
            continue
        spellings = _spelled(schema, path) if schema else ()
        leaf = next(filter(None, map(lookup.leaf, (path, *spellings))), None)
        if leaf is None:
            yield dotted(path), Sourced(value, DEFAULT)
        else:
            yield dotted(path), Sourced(value, leaf.origin, leaf.overrode)


def _spelled(schema: type[Table], path: KeyPath) -> Iterator[KeyPath]:
    """The keys by which AutoModel's configs set a field."""
    from ..schema.base import Spelling
    from .fields import markers, table_at

    table = table_at(schema, path[:-1])
    info = table.model_fields.get(str(path[-1])) if table else None
    for spelling in markers(info, Spelling) if info else ():
        parts = tuple(spelling.key.split("."))
        yield parts if spelling.root else (*path[:-1], *parts)


def _remarks(model: Table | None, lookup: _Lookup) -> Iterator[Finding]:
    for key, words in model.remarks() if model is not None else ():
        origin = lookup.origin(tuple(key.split(".")))
        yield Finding("warning", f"{words}.", origin.place or NOWHERE, key=key)
