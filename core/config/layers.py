"""Laying configs over one another: maps merge deep, all else is replaced, origins are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from ..keys import KeyPath
from ..origins import Origin, Sourced
from .yaml_file import YamlFile

Tree: TypeAlias = "dict[str, Tree | Sourced]"
"""Nested tables whose leaves are sourced values. A list is one leaf, and so is an empty table."""


def tree_of(file: YamlFile, layer: str) -> Tree:
    """A file's values, each with the place it stands at."""

    def grow(table: Mapping[str, Any], path: KeyPath) -> Tree:
        tree: Tree = {}
        for key, value in table.items():
            here = (*path, key)
            if isinstance(value, Mapping) and value:
                tree[key] = grow(value, here)
            else:
                tree[key] = Sourced(value, Origin(layer, file.places[here][1]))
        return tree

    return grow({key: value for key, value in file.data.items() if key != "defaults"}, ())


def from_value(path: tuple[str, ...], value: Any, origin: Origin) -> Tree:
    """A tree that holds one value, all of it from one origin."""

    def grow(value: Any) -> Tree | Sourced:
        if isinstance(value, Mapping) and value:
            return {key: grow(inner) for key, inner in value.items()}
        return Sourced(value, origin)

    node = grow(value)
    for key in reversed(path[1:]):
        node = {key: node}
    return {path[0]: node}


def overlay(base: Tree, layer: Tree) -> Tree:
    """A new tree: `layer` over `base`. What is replaced is remembered in the leaves."""
    merged = dict(base)
    for key, new in layer.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            merged[key] = overlay(old, new)
        elif isinstance(old, dict) and isinstance(new, Sourced) and new.value == {}:
            continue
        elif old is not None and not (isinstance(new, dict) and _is_empty(old)):
            merged[key] = _after(new, tuple(sourced for _, sourced in leaves(old)))
        else:
            merged[key] = new
    return merged


def _is_empty(node: Tree | Sourced) -> bool:
    return isinstance(node, Sourced) and node.value == {}


def _after(new: Tree | Sourced, covered: tuple[Sourced, ...]) -> Tree | Sourced:
    if isinstance(new, dict):
        return {key: _after(inner, covered) for key, inner in new.items()}
    past = tuple(entry for old in covered for entry in ((old.value, old.origin), *old.overrode))
    return Sourced(new.value, new.origin, (*new.overrode, *past))


def leaves(
    node: Tree | Sourced, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Sourced]]:
    """The leaves of a tree with their paths, in order."""
    if isinstance(node, Sourced):
        yield path, node
        return
    for key, inner in node.items():
        yield from leaves(inner, (*path, key))


def plain(tree: Tree) -> dict[str, Any]:
    """The values alone."""
    return {
        key: node.value if isinstance(node, Sourced) else plain(node) for key, node in tree.items()
    }


def leaf_at(tree: Tree, path: KeyPath) -> tuple[Sourced, KeyPath] | None:
    """The leaf at a path or around it, and its own path; None if a table or nothing is there."""
    node: Tree | Sourced = tree
    for depth, key in enumerate(path):
        if isinstance(node, Sourced):
            return node, path[:depth]
        inner = node.get(key) if isinstance(key, str) else None
        if inner is None:
            return None
        node = inner
    return (node, path) if isinstance(node, Sourced) else None
