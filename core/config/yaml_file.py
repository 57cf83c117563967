"""Reading a config's YAML so that every key has a line and a column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import NOWHERE, Place, UsageError
from ..keys import KeyPath, dotted, is_variable
from ..text_file import read_text
from .yaml_shape import MAX_DEPTH, ShapeError, check_shape, loader

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1_000_000
MAX_VALUES = 4_000  # aliases count each time; OmegaConf reads 10,000 nodes at the most
_MAX_DIGITS = 19  # of an integer of 64 bits

_CORE = "tag:yaml.org,2002:"
_STRING_TAG = f"{_CORE}str"
_MERGE_TAG = f"{_CORE}merge"


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed YAML file.

    Attributes:
        path: as it was given, for messages.
        data: its mapping, typed as OmegaConf types it, interpolations unresolved.
        places: where each key stands, and where its value begins.
    """

    path: Path
    data: dict[str, Any]
    places: Mapping[KeyPath, tuple[Place, Place]]

    def key_place(self, *key: str | int) -> Place:
        """Where a key stands; the file alone for a key that is not in it."""
        return self.places.get(key, (Place(str(self.path)), NOWHERE))[0]


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file that holds one mapping.

    Raises:
        UsageError: if it cannot be read, is no UTF-8 or no YAML, has a key twice or one that is
            not text, or holds anything but a mapping; with the place and what to do.
    """
    import yaml

    text = read_text(path, "YAML", MAX_BYTES)
    file = str(path)
    try:
        check_shape(text)
        root = yaml.compose(text, Loader=loader())
    except yaml.YAMLError as error:
        raise _invalid(error, file) from error
    except ShapeError as error:
        place = Place(file, error.line, error.column)
        raise UsageError(error.message, place=place, fix=error.fix) from None
    if root is None:
        return YamlFile(path, {}, {})
    if not isinstance(root, yaml.MappingNode):
        found = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise UsageError(
            f"The file holds {found}, not keys with values.",
            place=_place(file, root),
            fix="Write it as 'key: value' lines.",
        )
    places: dict[KeyPath, tuple[Place, Place]] = {}
    texts: dict[KeyPath, str] = {}
    for key, at, node in _places(file, root):
        places[key] = at
        # A walltime such as 12:00:00 is for YAML 1.1 a number to the base of 60.
        if isinstance(node, yaml.ScalarNode) and (":" in node.value or is_variable(key)):
            texts[key] = node.value
        if len(places) > MAX_VALUES:
            raise UsageError(
                f"The file holds more than {MAX_VALUES:,} values, counting what aliases repeat.",
                place=at[0],
                fix="Check that this is the file you meant.",
            )
    data = _data(text, file, places)
    for key, written in texts.items():
        holder: Any = data
        for part in key[:-1]:
            holder = holder[part]
        if isinstance(holder[key[-1]], int | float):
            holder[key[-1]] = written
    return YamlFile(path, data, places)


def _place(file: str, node: yaml.Node) -> Place:
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


def _places(
    file: str, root: yaml.MappingNode
) -> Iterator[tuple[KeyPath, tuple[Place, Place], yaml.Node]]:
    """Walk the nodes: key, places of key and value, value. Keys of a `<<` stand where written."""
    import yaml

    waiting: list[tuple[KeyPath, yaml.Node]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if len(path) > MAX_DEPTH:
            raise UsageError(
                "An alias leads back to what holds it.",
                place=_place(file, node),
                fix="Write the values out instead of the alias.",
            )
        if node.tag == f"{_CORE}int" and len(node.value.strip("+-")) > _MAX_DIGITS:
            raise UsageError(
                "The number has more than 64 bits.",
                place=_place(file, node),
                fix="Put it in quotes if it is text.",
            )
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield (*path, index), (_place(file, item), _place(file, item)), item
                waiting.append(((*path, index), item))
        elif isinstance(node, yaml.MappingNode):
            for key, value in _entries(file, node):
                yield (*path, key.value), (_place(file, key), _place(file, value)), value
                waiting.append(((*path, key.value), value))


def _entries(file: str, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """The entries of a mapping, merged ones first so that its own come after them."""
    import yaml

    own: dict[str, tuple[yaml.ScalarNode, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == _MERGE_TAG:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in reversed(sources):
                if isinstance(source, yaml.MappingNode) and source is not node:
                    yield from _entries(file, source)
            continue
        if not isinstance(key, yaml.ScalarNode) or key.tag != _STRING_TAG:
            shown = key.value if isinstance(key, yaml.ScalarNode) else "of several values"
            raise UsageError(
                f"The key {shown} is not text.",
                place=_place(file, key),
                fix=f'Put it in quotes: "{shown}": …'
                if isinstance(key, yaml.ScalarNode)
                else "A key is a single word.",
            )
        if key.value in own:
            first = _place(file, own[key.value][0])
            raise UsageError(
                f"The key '{key.value}' stands here a second time; the first is in line "
                f"{first.line}.",
                place=_place(file, key),
                fix="Keep one of them.",
            )
        own[key.value] = (key, value)
    yield from own.values()


def _data(text: str, file: str, places: Mapping[KeyPath, tuple[Place, Place]]) -> dict[str, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        data = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except yaml.YAMLError as error:
        raise _invalid(error, file) from error
    except ValueError as error:  # `0x_` has the form of a number and is none
        raise UsageError(
            f"A number cannot be read: {error}.",
            place=Place(file),
            fix="Put it in quotes if it is text.",
        ) from error
    except OmegaConfBaseException as error:
        key = str(error.full_key or "")
        place = next(
            (value for path, (_, value) in places.items() if dotted(path) == key), Place(file)
        )
        raise UsageError(
            f"The value of {key} cannot be read: {str(error).splitlines()[0]}.",
            place=place,
            fix="Write interpolations as ${key} or ${oc.env:NAME,default}; put other text in "
            "quotes and write a literal '${' as '\\${'.",
        ) from error
    return cast("dict[str, Any]", data)


def _invalid(error: yaml.YAMLError, file: str) -> UsageError:
    import yaml

    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    problem = (error.problem if isinstance(error, yaml.MarkedYAMLError) else None) or str(error)
    problem = problem.splitlines()[0].rstrip(".")
    return UsageError(
        f"The file is not valid YAML: {problem}.",
        place=Place(file, mark.line + 1, mark.column + 1) if mark else Place(file),
        fix="Indent with spaces, not tabs; text that begins with @ or ` needs quotes."
        if "cannot start any token" in problem
        else "Check the indentation and the quotes there; text with ':' or '#' needs quotes.",
    )
