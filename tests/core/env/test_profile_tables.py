from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Command
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.load import EnvFiles, load_env_files
from tunedeck.core.env.profile_tables import delete_profile, rename_profile
from tunedeck.core.errors import UsageError

Write = Callable[..., Path]

TEXT = """\
# Our site.

# The base of all.
[base]
executor = "slurm"  # base is the only one
[base.env_vars]
A = "base"

[kid]
extends = "base"  # not "base" for long

# Cloud things.

[ "both" ]
extends = [
    "kid",  # first
    'base',
]
mounts = [
    ["/a:/b"],
]
"""


def files(*paths: Path) -> EnvFiles:
    return load_env_files(FoundFiles(paths, ""))


def test_a_profile_is_renamed_with_its_tables_and_all_that_extend_it(write: Write) -> None:
    changed = rename_profile(files(write(TEXT)), "base", "site")
    (one,) = changed.files
    expected = TEXT.replace("[base", "[site").replace('extends = "base"', 'extends = "site"')
    assert one.after == expected.replace("    'base',", "    'site',")
    assert changed.followed == ("kid", "both")


def test_who_extends_it_follows_in_other_files_too(write: Write, tmp_path: Path) -> None:
    first, second = write(TEXT), write('[far]\nextends = "kid"\n', "env.more.toml")
    backups = rename_profile(files(first, second), "kid", "child").write()
    assert second.read_text() == '[far]\nextends = "child"\n'
    assert files(first, second).profiles.keys() == {"base", "child", "both", "far", "local"}
    assert {path.name: path.read_text() for path in backups} == {
        "env.toml.bak": TEXT,
        "env.more.toml.bak": '[far]\nextends = "kid"\n',
    }


def test_no_file_is_renamed_in_if_one_cannot_be(write: Write) -> None:
    first, second = write(TEXT), write('[far]\nextends = "kid"\n', "env.more.toml")
    changed = rename_profile(files(first, second), "kid", "child")
    second.write_text("[other]\n")
    with pytest.raises(UsageError, match="changed by someone else"):
        changed.write()
    assert first.read_text() == TEXT


def test_a_profile_goes_with_its_own_comment_and_no_other(write: Write) -> None:
    (one,) = delete_profile(files(write(TEXT)), "both").files
    assert one.after == TEXT[: TEXT.index('\n[ "both" ]')]
    only_kid = TEXT.replace("    'base',\n", "").replace('    "kid",  # first\n', "")
    (one,) = delete_profile(files(write(only_kid)), "kid").files
    assert one.after == only_kid.replace('[kid]\nextends = "base"  # not "base" for long\n\n', "")


def test_a_profile_that_others_extend_stays_and_they_are_named(write: Write) -> None:
    with pytest.raises(UsageError, match=r"kid, both extend it") as caught:
        delete_profile(files(write(TEXT)), "base")
    assert caught.value.place is not None
    assert caught.value.place.line == 10
    assert "env set kid extends=" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("name", "new", "message"),
    [
        ("base", "kid", "'kid' already"),
        ("base", "wandb", "reserved"),
        ("base", "a b", "no name"),
        ("base", "", "no name"),
        ("local", "here", "built in"),
        ("base", "local", "stands for this machine"),
        ("bass", "here", "Did you mean 'base'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, new: str, message: str, write: Write) -> None:
    with pytest.raises(UsageError, match=message):
        rename_profile(files(write(TEXT)), name, new)


@pytest.mark.parametrize(
    "text",
    [
        'base.executor = "local"\n',
        'base = { executor = "local" }\n',
    ],
)
def test_a_form_that_would_be_harmed_is_left_alone(text: str, write: Write) -> None:
    path = write(text)
    with pytest.raises(UsageError, match="touching more"):
        rename_profile(files(path), "base", "site")
    with pytest.raises(UsageError, match="touching more"):
        delete_profile(files(path), "base")
    assert path.read_text() == text


def test_what_only_looks_like_a_header_is_not_renamed(write: Write) -> None:
    path = write('[base]\nexecutor = "local"\nenv_vars.NOTE = """\n[base]\n"""\n')
    with pytest.raises(UsageError, match="touching more"):
        rename_profile(files(path), "base", "site")


def test_a_profile_whose_name_says_where_it_runs_is_asked_to_say_so_first(write: Write) -> None:
    with pytest.raises(UsageError) as caught:
        rename_profile(files(write("[local]\nnproc_per_node = 2\n")), "local", "here")
    assert "env set local executor=local" in (caught.value.fix or "")


def test_a_refused_change_leaves_no_copies_behind(write: Write) -> None:
    path = write(TEXT)
    changed = rename_profile(files(path), "kid", "child")
    path.write_text(TEXT + "# someone else was here\n")
    with pytest.raises(UsageError, match="changed by someone else"):
        changed.write()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_commands_do_it_and_keep_what_was_there(tunedeck: Command, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    path = folder / "env.toml"
    path.write_text(TEXT)
    told = tunedeck("env", "rename", "kid", "child", "--dry-run", cwd=folder)
    assert "+[child]" in told.stdout
    assert path.read_text() == TEXT
    tunedeck("env", "rename", "kid", "child", cwd=folder)
    assert "child" in tomllib.loads(path.read_text())
    assert (folder / "env.toml.bak").read_text() == TEXT
    refused = tunedeck("env", "delete", "both", cwd=folder)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    tunedeck("env", "delete", "both", "--yes", cwd=folder)
    assert tomllib.loads(path.read_text()).keys() == {"base", "child"}
    assert "both" in tomllib.loads((folder / "env.toml.bak.1").read_text())
