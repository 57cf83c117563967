from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunedeck.core.config.compose import compose
from tunedeck.core.errors import ExitCode, UsageError

from .conftest import Write


def refusal(path: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        compose(path)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("a: [1, 2\n", "2:1", "not valid YAML"),
        ("a: 'open\n", "2:1", "not valid YAML"),
        ("a: b: c\n", "1:5", "not valid YAML"),
        ("a:\n\t- b\n", "2:1", "not valid YAML"),
        ("a: @b\n", "1:4", "not valid YAML"),
        ("a: *nowhere\n", "1:4", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "2:1", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "3:1", "second time; the first is in line 1"),
        ("t:\n  x: 1\n  x: 2\n", "3:3", "'x' stands here a second time"),
        ("a: 1\n1: b\n", "2:1", "key 1 is not text"),
        ("on: b\n", "1:1", "key on is not text"),
        ("null: b\n", "1:1", "key null is not text"),
        ("[a, b]: c\n", "1:1", "not text"),
        ("- a\n- b\n", "1:1", "holds a list"),
        ("just words\n", "1:1", "holds a single value"),
        ("42\n", "1:1", "holds a single value"),
        ("a: !!binary aGk=\n", "1:4", "!!binary"),
        ("a: !!set {b}\n", "1:4", "!!set"),
        ("a: !!python/object:os.system ls\n", "1:4", "!!python/object:os.system"),
        ("a: !custom b\n", "1:4", "!custom"),
        ("a: !!int\n", "1:4", "!!int"),
        ("a: !!bool maybe\n", "1:4", "!!bool"),
        ("a: &x [*x]\n", "1:4", "alias"),
        ("a:\n  b: ${\n", "2:6", "a.b cannot be read"),
        ("a: {b: ${c}\n", "1:9", "not valid YAML"),
        ("a: " + "[" * 200 + "]" * 200, "1:43", "nested deeper than 40"),
        ("a: " + "[" * 100_000 + "]" * 100_000, "1:43", "nested deeper than 40"),
        (f"a: {2**70}\n", "1:4", "64 bits"),
        (f"a: [1, 0x{'f' * 6000}]\n", "1:8", "64 bits"),
        ("a: " + "9" * 5000, "1:4", "64 bits"),
    ],
)
def test_what_is_no_config_is_refused_with_its_place(
    write: Write, text: str, at: str, words: str
) -> None:
    path = write("c.yaml", text)
    error = refusal(path)
    assert words in error.message
    assert str(error.place) == f"{path}:{at}"


def test_a_control_character_is_refused(write: Write) -> None:
    assert "not valid YAML" in refusal(write("c.yaml", "a: \x01\n")).message


def test_another_encoding_is_refused_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    error = refusal(path)
    assert "not UTF-8" in error.message
    assert str(error.place) == f"{path}:2:7"


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert compose(path).values == {"a": 1, "b": 2}


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert "There is no file" in refusal(tmp_path / "missing.yaml").message
    assert "There is no file" in refusal(tmp_path / "no" / "folder.yaml").message
    assert "is a directory" in refusal(tmp_path).message
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a regular file" in refusal(tmp_path / "pipe.yaml").message


def test_a_link_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to(tmp_path / "b.yaml")
    (tmp_path / "b.yaml").symlink_to(tmp_path / "a.yaml")
    assert "leads back to itself" in refusal(tmp_path / "a.yaml").message


def test_a_huge_file_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with path.open("wb") as file:
        file.truncate(10_000_000)
    assert "10.0 MB" in refusal(path).message


def test_a_name_with_a_null_byte_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "a\0b.yaml").message


def test_a_file_without_permission_is_refused(write: Write) -> None:
    path = write("c.yaml", "a: 1\n")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert "permission denied" in refusal(path).message
    finally:
        os.seteuid(user)


def test_aliases_that_would_fill_the_memory_are_refused(write: Write) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for number in range(1, 12):
        refs = ", ".join([f"*a{number - 1}"] * 10)
        lines.append(f"a{number}: &a{number} [{refs}]")
    assert "counting what aliases repeat" in refusal(write("c.yaml", "\n".join(lines))).message


def test_a_very_large_config_is_read(write: Write) -> None:
    text = "".join(f"key{number}: value\n" for number in range(3_000))
    assert len(compose(write("c.yaml", text)).values) == 3_000
