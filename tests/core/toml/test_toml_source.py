from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.errors import Place, UsageError
from tunedeck.core.toml.source import TomlSource, parse_toml, read_toml

DOCUMENT = textwrap.dedent("""\
    # a comment with [brackets] and key = "value"
    title = "x"  # [not.a.header]
    a.b . c = 1
    "quoted key" = { inner = 1, deep.er = [1, 2] }

    [table]
    text = \"\"\"
    [fake]
    key = 1 \\\"\"\"
    \"\"\"\"\"
    raw = '''
    [also.fake]
    it''s = 2'''
    list = [ # comment ]
      "a,b",
      { path = "p", "mount.path" = 'q#' },
      [1, [2, 3]],
    ]
    when = 1979-05-27 07:32:00

    [[models]]
    name = "first"
    [models.limits]
    gpus = 1
    [[models]]
      name = "second"
    [models.limits]
    gpus = 2

    [ one . "two.three" ]
    "esc\\u0041pe" = true
    empty = []
""")


@pytest.mark.parametrize(
    ("key", "line", "column"),
    [
        (("title",), 2, 1),
        (("a",), 3, 1),
        (("a", "b"), 3, 3),
        (("a", "b", "c"), 3, 7),
        (("quoted key",), 4, 1),
        (("quoted key", "inner"), 4, 18),
        (("quoted key", "deep", "er", 1), 4, 43),
        (("table",), 6, 2),
        (("table", "text"), 7, 1),
        (("table", "raw"), 11, 1),
        (("table", "list"), 14, 1),
        (("table", "list", 0), 15, 3),
        (("table", "list", 1, "mount.path"), 16, 17),
        (("table", "list", 2, 1, 1), 17, 11),
        (("table", "when"), 19, 1),
        (("models",), 21, 3),
        (("models", 0, "limits", "gpus"), 24, 1),
        (("models", 1), 25, 3),
        (("models", 1, "name"), 26, 3),
        (("models", 1, "limits"), 27, 9),
        (("one", "two.three"), 30, 9),
        (("one", "two.three", "escApe"), 31, 1),
        (("one", "two.three", "empty"), 32, 1),
    ],
)
def test_a_key_is_located_where_it_is_written(
    key: tuple[str | int, ...], line: int, column: int
) -> None:
    assert parse_toml(DOCUMENT, "f.toml").locate(key) == Place("f.toml", line, column)


def test_a_missing_key_is_located_at_the_innermost_table_around_it() -> None:
    source = parse_toml(DOCUMENT, "f.toml")
    assert source.locate(("models", 1, "limits", "missing")) == Place("f.toml", 27, 9)
    assert source.locate(("nowhere", "at", "all")) == Place("f.toml")


def test_an_implied_table_is_located_at_its_own_header_once_there_is_one() -> None:
    source = parse_toml("[a.b]\nx = 1\n[a]\ny = 2\n", "f.toml")
    assert source.locate(("a",)) == Place("f.toml", 3, 2)


names = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=6)
leaves = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=12), st.floats(-1, 1))
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=8
)


def paths(value: Any, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*prefix, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*prefix, key))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, values, max_size=4))
def test_every_key_of_any_document_is_found_where_its_name_stands(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    source = parse_toml(text, "f.toml")
    for path in paths(source.data):
        place = source.locate(path)
        assert place.line is not None
        assert place.column is not None
        if isinstance(path[-1], str):
            rest = source.lines[place.line - 1][place.column - 1 :]
            key = tomlkit.dumps({path[-1]: 0}).removesuffix(" = 0\n")
            assert rest.startswith((key, tomlkit.string(path[-1]).as_string()))


FRAGMENTS = [
    *("[", "[[", "]", "]]", "{", "}", "a", "b", ".", "=", ",", "1", '"', '"""', "'", "'''", "#"),
    *("\\", "\\u00", "\n", "\r", "\x00", "é", "[a]\n", "[[a]]\n", "a = 1\n", "'a' = 1\n"),
]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from(FRAGMENTS),
        max_size=25,
    ).map("".join)
    | st.text(max_size=40)
)
def test_any_text_is_parsed_or_refused_with_a_place_and_a_remedy(text: str) -> None:
    try:
        source = parse_toml(text, "f.toml")
    except UsageError as error:
        assert error.place is not None
        assert error.place.line is not None
        assert error.fix
    else:
        for path in paths(source.data):
            assert source.locate(path).line is not None


def refused(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert caught.value.fix
    assert caught.value.place is not None
    assert caught.value.place.file == str(path)
    return caught.value


def test_a_byte_order_mark_and_windows_newlines_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes(b"\xef\xbb\xbf[a]\r\nb = 1\r\n")
    source = read_toml(file)
    assert source.data == {"a": {"b": 1}}
    assert source.locate(("a", "b")) == Place(str(file), 2, 1)
    assert source.lines[1] == "b = 1"


def test_invalid_toml_is_refused_with_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("a = 1\nb = oops\n")
    assert refused(file).place == Place(str(file), 2, 5)


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("a = 1\nb = 2\na = 3\n", "'a'", 3),
        ("[t]\nx = 1\n[u]\n[t]\n", "'t'", 4),
        ("[t]\n[t.u]\n[t.u]\n", "'t.u'", 3),
    ],
)
def test_what_is_defined_twice_is_named_with_both_lines(
    tmp_path: Path, text: str, name: str, line: int
) -> None:
    file = tmp_path / "f.toml"
    file.write_text(text)
    error = refused(file)
    assert name in error.message
    assert "first in line " in error.message
    assert error.place is not None
    assert error.place.line == line


def test_bytes_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes('a = 1\nb = "é'.encode() + b'\xff"\n')
    error = refused(file)
    assert "0xff" in error.message
    assert error.place == Place(str(file), 2, 7)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes(b"#" * 10_000_001)
    assert "10.0 MB" in refused(file).message


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 3000 + "]" * 3000,
        "a = " + "{a=" * 3000 + "1" + "}" * 3000,
        ".".join("a" * 3000) + " = 1",
    ],
)
def test_bottomless_nesting_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "f.toml"
    file.write_text(text)
    assert "levels deep" in refused(file).message


def test_an_integer_of_ten_thousand_digits_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text("a = " + "1" * 10_000)
    refused(file)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path).message
    assert "There is no file" in refused(tmp_path / "none.toml").message
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    assert "symbolic link" in refused(loop).message
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe).message


def test_a_file_without_read_permission_is_refused_by_name(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    file = tmp_path / "secret.toml"
    file.write_text("a = 1")
    file.chmod(0)
    script = textwrap.dedent("""\
        import os, sys
        from pathlib import Path
        from tunedeck.core.errors import UsageError
        from tunedeck.core.toml.source import read_toml
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            read_toml(Path(sys.argv[1]))
        except UsageError as error:
            print(error.message)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert "cannot be read" in done.stdout or "permission denied" in done.stdout


def test_reading_alone_does_not_scan_for_places() -> None:
    source = parse_toml(DOCUMENT, "f.toml")
    assert isinstance(source, TomlSource)
    assert set(vars(source)) == {"file", "text", "data"}
