from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Command
from tunedeck.core.env.edit import Edited, edit_profile, override_of, profile_form
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.load import load_env_files
from tunedeck.core.errors import UsageError

Write = Callable[..., Path]

TEXT = """\
# Our cluster.
[base]
executor = "slurm"  # the only one
account = "nlp"
time = "01:00:00"

# A comment that belongs to the kid.
[kid]
extends = "base"
env_vars = { A = "1" }

# The last word.
[other]
extends = "base"
"""


def edited(path: Path, profile: str, *overrides: str) -> Edited:
    return edit_profile(load_env_files(FoundFiles((path,), "")), profile, overrides)


def test_a_new_key_stands_in_its_table_and_comments_stay_where_they_are(write: Write) -> None:
    one = edited(write(TEXT), "kid", "nodes=2", "env_vars.B=x")
    assert one.mended.after == TEXT.replace(
        'env_vars = { A = "1" }\n', 'env_vars = { A = "1", B = "x"}\nnodes = 2\n'
    )


def test_a_key_is_changed_in_its_line_and_null_takes_it_out(write: Write) -> None:
    assert edited(write(TEXT), "base", "account=vision").mended.after == TEXT.replace(
        '"nlp"', '"vision"'
    )
    assert edited(write(TEXT), "base", "account=null").mended.after == TEXT.replace(
        'account = "nlp"\n', ""
    )


@pytest.mark.parametrize(
    "override",
    ["env_vars.HF_TOKEN=hush-hush", "env_vars={MY_KEY: hush-hush}", "account=hf_" + "a" * 30],
)
def test_a_secret_is_written_into_no_file(write: Write, override: str) -> None:
    with pytest.raises(UsageError, match="no file may hold") as caught:
        edited(write(TEXT), "base", override)
    assert "hush" not in f"{caught.value.message} {caught.value.fix}"
    by_name = ("secrets={MY_TOKEN: name/key}", "env_vars.A_TOKEN=${oc.env:A_TOKEN}")
    for harmless in (*by_name, "env_vars.A_TOKEN=null"):
        edited(write(TEXT), "base", harmless)


def test_a_wrong_value_is_said_with_exit_code_2_and_not_written(
    write: Write, tunedeck: Command
) -> None:
    path = write(TEXT)
    for override in ("nodes=two", "extends=kid", "mounts=[x]", "env_vars.A_TOKEN=hush-hush"):
        done = tunedeck("env", "set", "kid", override, "--env-file", path)
        assert done.returncode == 2, override
        assert path.read_text() == TEXT
        assert "Nothing was written." in done.stderr or "✗" in done.stderr
    assert tunedeck("env", "set", "kid", "executor=lepton", "--env-file", path).returncode == 0


def test_a_refusal_names_its_own_cause_and_other_faults_of_the_file_are_in_nobody_s_way(
    write: Write, tunedeck: Command
) -> None:
    path = write(TEXT.replace('"nlp"', '"<account>"'))
    refused = tunedeck("env", "set", "base", "time=3h", "--env-file", path)
    assert refused.returncode == 2
    assert "no time limit" in refused.stdout and "placeholder" not in refused.stdout
    written = tunedeck("env", "set", "base", "time=03:00:00", "--env-file", path)
    assert written.returncode == 0
    assert "'account' is still a placeholder" in written.stdout


def test_what_would_be_wrong_with_it_is_said_before_it_is_written(write: Write) -> None:
    path = write(TEXT)
    one = edited(path, "kid", "time=2h")
    assert any(finding.key == "time" for finding in one.findings)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("profile", "override", "said"),
    [
        ("kid", "nods=2", "Did you mean 'nodes'"),
        ("kidd", "nodes=2", "Did you mean 'kid'"),
        ("local", "nodes=2", "built in"),
        ("base", "account.name=x", "no table"),
        ("kid", "nodes=-", "holds a null"),
        ("kid", "env_vars={A: {B: null}}", "holds a null"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_nearest_that_can(
    write: Write, profile: str, override: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        edited(write(TEXT), profile, override)


def test_a_file_that_someone_else_changed_meanwhile_is_left(write: Write) -> None:
    path = write(TEXT)
    one = edited(path, "kid", "nodes=2")
    path.write_text(TEXT + "# mine\n")
    with pytest.raises(UsageError, match="changed by someone else"):
        one.mended.write()
    assert path.read_text() == TEXT + "# mine\n"


def test_the_form_tells_value_origin_and_what_stands_in_the_table_itself(write: Write) -> None:
    files = load_env_files(FoundFiles((write(TEXT),), ""))
    rows = {row.key: row for row in profile_form(files, "kid")}
    assert rows["account"].value == "nlp"
    assert rows["account"].own is None
    assert rows["account"].sourced is not None
    assert rows["account"].sourced.origin.place.line == 4
    assert rows["env_vars.A"].own == "1"
    assert rows["nodes"].type == "whole number ≥ 1"
    assert rows["nodes"].value is None
    assert rows["partition"].description


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_what_is_typed_for_a_text_is_that_text(write: Write, text: str) -> None:
    path = write(TEXT)
    files = load_env_files(FoundFiles((path,), ""))
    row = next(row for row in profile_form(files, "kid") if row.key == "account")
    after = edit_profile(files, "kid", [override_of(row, text)]).mended.after
    got = tomllib.loads(after)["kid"].get("account")
    assert got == (None if not text.strip() or text == "null" else text)


def test_the_command_shows_the_diff_and_writes_unless_it_is_a_dry_run(
    tunedeck: Command, write: Write
) -> None:
    path = write(TEXT)
    dry = tunedeck("env", "set", "kid", "nodes=2", "-d", "--env-file", path)
    assert "+nodes = 2" in dry.stdout
    assert path.read_text() == TEXT
    done = tunedeck("env", "set", "kid", "nodes=2", "--env-file", path)
    assert done.returncode == 0
    assert tomllib.loads(path.read_text())["kid"]["nodes"] == 2
