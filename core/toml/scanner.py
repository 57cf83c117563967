"""Where each key of a TOML document stands: the places that `tomllib` does not keep."""

from __future__ import annotations

import re
import tomllib

from ..keys import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_KEY = re.compile(r'[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|\'[^\'\n]*+\'')
_DOT = re.compile(r"[ \t]*+\.[ \t]*+")
_EQUALS = re.compile(r"[ \t]*+=[ \t]*+")
_SCALAR = re.compile(
    r'"""(?:[^"\\]++|\\[\s\S]|"(?!""))*+"{3,5}'
    r"|'''(?:[^']++|'(?!''))*+'{3,5}"
    r'|"(?:[^"\\\n]++|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|[^\s,\[\]{}\"'#][^,\]}\n#]*+"
)


class TomlScanner:
    """Finds the offset of every key in a document that `tomllib` accepts.

    It trusts the document: on text that is no TOML it stops early and never fails.

    Attributes:
        offsets: where each key, table and array item stands. A table that is only implied by a
            longer name stands where that name first implies it.
        repeated: the first key defined a second time, and the offset of the second definition.
    """

    def __init__(self, text: str) -> None:
        self.offsets: dict[KeyPath, int] = {}
        self.repeated: tuple[KeyPath, int] | None = None
        self._text = text
        self._implied: set[KeyPath] = set()
        self._tables_in: dict[KeyPath, int] = {}
        self._scan()

    def _scan(self) -> None:
        table: KeyPath = ()
        position: int | None = 0
        while position is not None:
            position = self._skip(position)
            if self._text.startswith("[", position):
                many = self._text.startswith("[[", position)
                names, position = self._key(self._skip_blank_in_line(position + 1 + many))
                if not names:
                    return
                table = self._open(names, many)
                position = self._after_header(position)
            else:
                position = self._pair(table, position)

    def _open(self, names: list[tuple[str, int]], many: bool) -> KeyPath:
        """The path that a header leads to; arrays of tables on the way mean their last item."""
        path: KeyPath = ()
        for name, offset in names[:-1]:
            path += (name,)
            self._imply(path, offset)
            if path in self._tables_in:
                path += (self._tables_in[path] - 1,)
        name, offset = names[-1]
        path += (name,)
        if not many:
            self._define(path, offset)
            return path
        self._imply(path, offset)
        index = self._tables_in.get(path, 0)
        self._tables_in[path] = index + 1
        self._define((*path, index), offset)
        return (*path, index)

    def _pair(self, table: KeyPath, position: int) -> int | None:
        """Record `key = value` and all that is inside the value; the offset after it."""
        names, position = self._key(position)
        equals = _EQUALS.match(self._text, position)
        if not names or not equals:
            return None
        path = self._name(table, names)
        return self._value(path, equals.end())

    def _name(self, table: KeyPath, names: list[tuple[str, int]]) -> KeyPath:
        path = table
        for name, offset in names[:-1]:
            path += (name,)
            self._imply(path, offset)
        path += (names[-1][0],)
        self._define(path, names[-1][1])
        return path

    def _value(self, path: KeyPath, position: int) -> int | None:
        """Walk one value, with a stack instead of recursion: nesting may be deep."""
        open_arrays_and_tables: list[tuple[KeyPath, int]] = []  # next index; -1 in a table
        text = self._text
        while True:
            opener = text[position : position + 1]
            if opener in ("[", "{"):
                open_arrays_and_tables.append((path, 0 if opener == "[" else -1))
                position += 1
            else:
                scalar = _SCALAR.match(text, position)
                if scalar is None:
                    return None
                position = scalar.end()
            while open_arrays_and_tables:
                position = self._skip(position)
                if text.startswith(",", position):
                    position = self._skip(position + 1)
                if text[position : position + 1] in ("]", "}"):
                    open_arrays_and_tables.pop()
                    position += 1
                    continue
                outer, index = open_arrays_and_tables[-1]
                if index >= 0:
                    path = (*outer, index)
                    self._define(path, position)
                    open_arrays_and_tables[-1] = (outer, index + 1)
                else:
                    names, position = self._key(position)
                    equals = _EQUALS.match(text, position)
                    if not names or not equals:
                        return None
                    path = self._name(outer, names)
                    position = equals.end()
                break
            else:
                return position

    def _key(self, position: int) -> tuple[list[tuple[str, int]], int]:
        """The parts of a dotted key, each with its offset, and the offset after it."""
        names: list[tuple[str, int]] = []
        while match := _KEY.match(self._text, position):
            names.append((_unquoted(match[0]), position))
            position = match.end()
            dot = _DOT.match(self._text, position)
            if dot is None:
                break
            position = dot.end()
        return names, position

    def _define(self, path: KeyPath, offset: int) -> None:
        if path in self.offsets and path not in self._implied:
            self.repeated = self.repeated or (path, offset)
            return
        self._implied.discard(path)
        self.offsets[path] = offset

    def _imply(self, path: KeyPath, offset: int) -> None:
        if path not in self.offsets:
            self.offsets[path] = offset
            self._implied.add(path)

    def _skip(self, position: int) -> int:
        match = _BLANK.match(self._text, position)
        return match.end() if match else position

    def _skip_blank_in_line(self, position: int) -> int:
        while self._text[position : position + 1] in (" ", "\t"):
            position += 1
        return position

    def _after_header(self, position: int) -> int:
        end = self._text.find("\n", position)
        return len(self._text) if end < 0 else end


def _unquoted(name: str) -> str:
    if name[0] == '"' and "\\" in name:
        try:
            return str(tomllib.loads(f"name = {name}")["name"])
        except ValueError:
            return name
    return name[1:-1] if name[0] in "\"'" else name
