from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tunedeck.core.cli.excerpt import excerpt
from tunedeck.core.cli.main import run
from tunedeck.core.cli.output import (
    print_error,
    print_json,
    print_json_line,
    print_table,
)
from tunedeck.core.errors import Place, UsageError

TABLE = """
from tunedeck.core.cli.output import print_table
print_table(("ID", "NAME"), [("a/b", "[bold]x[/bold] \\x1b[2J"), (["c", "d"], None)])
"""


def test_an_error_says_what_where_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "f.toml"
    file.write_text("a = 1\nnodse = 2\n")
    print_error(UsageError("No key 'nodse'.", place=Place(str(file), 2, 1), fix="One.\nTwo."))
    output = capsys.readouterr()
    assert output.out == ""
    assert [text.rstrip() for text in output.err.splitlines()] == [
        "✗ error: No key 'nodse'.",
        f"  at {file}:2:1",
        "    nodse = 2",
        "    ^",
        "  fix: One.",
        "       Two.",
    ]


@pytest.mark.parametrize(
    ("arguments", "said", "command"),
    [
        (["stes"], "There is no command 'stes'. Did you mean 'steps'?", "tunedeck"),
        (["steps", "run"], "Missing argument 'STEP'.", "tunedeck steps run"),
        (["runs", "wait", "x", "--timeout", "soon"], "'soon' is not a", "tunedeck runs wait"),
    ],
)
def test_a_mistake_in_the_command_is_said_as_every_other(
    arguments: list[str], said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    output = capsys.readouterr()
    first, fix = output.err.splitlines()
    assert output.out == ""
    assert first.startswith("✗ error: ")
    assert said in first
    assert fix == f"  fix: See what it takes: {command} --help"


def test_control_sequences_of_a_message_reach_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_error(UsageError("bad \x1b]0;title\x07value", fix="do \x1b[2Jthis"))
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line", "column", "shown"),
    [
        ("a = 1\n", 1, 5, ["a = 1", "    ^"]),
        ("a = 1\n", 1, None, ["a = 1"]),
        ("\ta = 1\n", 1, 2, [" a = 1", " ^"]),
        ("a = 1", 2, 1, []),
        ("", 1, 1, []),
        ("\n", 1, 1, []),
        ("x" * 300 + "!", 1, 301, ["x" * 49 + "!", " " * 49 + "^"]),
        ("a = '\x1b[31m'\n", 1, 5, ["a = ''"]),
        ("a = 'é'\n", 1, 6, ["a = 'é'", "     ^"]),
    ],
)
def test_an_excerpt_shows_the_line_and_points_at_the_column(
    tmp_path: Path, text: str, line: int, column: int | None, shown: list[str]
) -> None:
    file = tmp_path / "f"
    file.write_text(text)
    found = excerpt(Place(str(file), line, column))
    if len(text) > 100:
        assert found[0].endswith("!")
        assert len(found[0]) <= 100
        assert len(found[1]) == len(found[0])
    else:
        assert found == shown


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("env.toml", 'HF_TOKEN = "canary-4711"\n', 1),
        ("env.toml", 'SSH_KEY = """\ncanary-4711\\q\n"""\n', 2),
        ("env.toml", 'SSH_KEY = """\nfirst\ncanary-4711', 3),
        ("env.toml", "url = 'https://me:canary-4711@host/x'\n", 1),
        ("env.toml", "env = { HF_TOKEN = 'canary-4711', A = 1 }\n", 1),
        ("c.yaml", "run:\n  env:\n    env_vars:\n      WANDB_API_KEY: canary-4711\n", 4),
        ("c.yaml", "env_vars: {A: 1, HF_TOKEN: canary-4711, B: 2}\n", 1),
        ("c.yaml", "- 'HF_TOKEN': 'canary-4711'\n", 1),
        ("c.yaml", "SSH_KEY: |\n  first\n\n  canary-4711\n", 4),
        ("c.yaml", "startup_commands:\n  - export HF_TOKEN=canary-4711\n", 2),
    ],
)
def test_an_excerpt_shows_no_secret(tmp_path: Path, name: str, text: str, line: int) -> None:
    file = tmp_path / name
    file.write_text(text)
    assert "canary" not in "".join(excerpt(Place(str(file), line, 1)))


def test_a_reference_to_a_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("HF_TOKEN: ${oc.env:HF_TOKEN}\n")
    assert excerpt(Place(str(file), 1, 1)) == ["HF_TOKEN: ${oc.env:HF_TOKEN}", "^"]


def test_what_cannot_be_read_has_no_excerpt(tmp_path: Path) -> None:
    assert excerpt(Place(str(tmp_path / "none"), 1, 1)) == []
    assert excerpt(Place(str(tmp_path), 1, 1)) == []
    assert excerpt(Place()) == []


def test_json_is_one_document_or_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": Path("a"), "text": "\x1b[2J é"})
    document = capsys.readouterr().out
    assert json.loads(document) == {"path": "a", "text": "\x1b[2J é"}
    assert "\x1b" not in document
    print_json_line({"a": [1, 2]})
    assert capsys.readouterr().out == '{"a":[1,2]}\n'


def test_a_table_is_plain_and_aligned_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(("ID", "NAME"), [("long/id", "x\ny"), (["c", "d"], None)])
    assert capsys.readouterr().out == "ID       NAME\nlong/id  x y\nc, d\n"
    print_table(("ID", "NAME"), [])
    assert capsys.readouterr().out == "ID  NAME\n"


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_table_is_drawn_on_a_terminal_and_markup_in_it_stays_text(no_color: str) -> None:
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color, "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", TABLE], stdout=side, env=environment, check=True)
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(main)
    assert done.returncode == 0
    text = shown.decode()
    assert "[bold]x[/bold]" in text
    assert "─" in text
    assert "\x1b[2J" not in text


@pytest.mark.parametrize("arguments", [["steps", "list", "--json"], ["--help"]])
def test_a_reader_that_has_gone_is_no_failure_and_leaves_no_words(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "tunedeck", *arguments]
    done = subprocess.run(command, check=False, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_closed_stdout_takes_nothing_from_a_command() -> None:
    command = 'exec "$0" -m tunedeck steps list >&-'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable], check=False, stderr=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
