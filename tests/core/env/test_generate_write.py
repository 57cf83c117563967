"""A generated file over one that is there: what a person wrote into it stays."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.env.generate import generate, write
from tunedeck.core.env.generate_config import load_generator
from tunedeck.core.env.generate_render import data_of, merge
from tunedeck.core.errors import UsageError
from tunedeck.core.toml.source import parse_toml

pytestmark = pytest.mark.usefixtures("bare_environment")


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "env.slurm.toml"
    file.write_text("[mine]\nexecutor = 'local'\n")
    with pytest.raises(UsageError) as caught:
        generate("slurm", cwd=tmp_path)
    assert "force=true" in caught.value.fix
    assert file.read_text() == "[mine]\nexecutor = 'local'\n"


HAND_MADE = """\
# Our cluster. Ask Ada before you change the account.
[slurm_base]
executor = "slurm"
account = "old"   # charged to the chair
qos = "high"      # ours alone
mounts = [
    "/lustre:/lustre",  # everything
]
env_vars = { OURS = "1" }

[ours]  # a profile of our own
extends = "slurm_base"
nodes = 7
"""


def test_force_keeps_comments_profiles_and_keys_and_leaves_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "env.slurm.toml"
    file.write_text(HAND_MADE)
    file.chmod(0o600)
    generated = generate("slurm", ["force=true", "sections.slurm_base.account=new"], tmp_path)
    backup = write(generated)

    assert backup is not None
    assert backup.read_text() == HAND_MADE
    text = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    for comment in (
        "# Our cluster. Ask Ada before you change the account.",
        "# charged to the chair",
        "# ours alone",
        "# a profile of our own",
    ):
        assert text.count(comment) == 1
    document = tomllib.loads(text)
    assert document["ours"] == {"extends": "slurm_base", "nodes": 7}
    assert document["slurm_base"]["account"] == "new"
    assert document["slurm_base"]["qos"] == "high"
    assert document["slurm_base"]["env_vars"]["OURS"] == "1"
    fresh = tomllib.loads(
        generate(
            "slurm", ["sections.slurm_base.account=new", "output_path=other.toml"], tmp_path
        ).text
    )
    for name, table in fresh.items():
        assert {key: document[name][key] for key in table if key != "env_vars"} == {
            key: value for key, value in table.items() if key != "env_vars"
        }
    kept = next(f.message for f in generated.findings if f.severity == "info")
    assert "ours" in kept
    assert "slurm_base.qos" in kept
    assert "slurm_base.env_vars.OURS" in kept


def test_forcing_twice_changes_nothing_and_earlier_backups_stay(tmp_path: Path) -> None:
    file = tmp_path / "env.slurm.toml"
    file.write_text(HAND_MADE)
    first = write(generate("slurm", ["force=true"], tmp_path))
    text = file.read_text()
    again = generate("slurm", ["force=true"], tmp_path)
    assert again.diff == ""
    assert write(again) is None
    assert file.read_text() == text

    second = write(generate("slurm", ["force=true", "sections.slurm_base.nodes=2"], tmp_path))
    assert (first, second) == (
        tmp_path / "env.slurm.toml.bak",
        tmp_path / "env.slurm.toml.bak.1",
    )
    assert first is not None
    assert second is not None
    assert (first.read_text(), second.read_text()) == (HAND_MADE, text)


SLURM = load_generator("slurm")
_NAMES = st.sampled_from(["slurm_base", "slurm_sft_automodel", "ours", '"a b"'])
_TABLES = st.dictionaries(
    st.sampled_from(["account", "nodes", "env_vars.A", "env_vars.HF_HOME", "mounts", "qos", "x-y"]),
    st.sampled_from(["1", '"text"', '["/a:/b"]', "{ B = 2 }", "2020-01-01", "'''\nlong\n'''"]),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_NAMES, _TABLES, max_size=4), st.booleans())
def test_force_says_what_the_generator_says_whatever_was_there(
    tables: dict[str, dict[str, str]], comments: bool
) -> None:
    mark = "  # by hand" if comments else ""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]{mark}")
        lines += [f"{key} = {value}" for key, value in table.items()]
    try:
        existing = parse_toml("\n".join(lines), "env.slurm.toml")
    except UsageError:
        return
    text = merge(SLURM, existing)
    before, after, fresh = existing.data, tomllib.loads(text), data_of(SLURM)
    assert text.count("# by hand") == (len(tables) if comments else 0)

    def holds(wanted: object, found: object) -> bool:
        if isinstance(wanted, dict) and isinstance(found, dict):
            return all(key in found and holds(value, found[key]) for key, value in wanted.items())
        return wanted == found

    assert holds(fresh, after)
    for name in before.keys() - fresh.keys():
        assert after[name] == before[name]


@pytest.mark.parametrize("content", [b"[slurm_base\n", b"\xff", b"a = 1\na = 2\n"])
def test_a_file_that_cannot_be_read_is_never_overwritten(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "env.slurm.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        generate("slurm", ["force=true"], tmp_path)
    assert caught.value.place is not None
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_directories_links_and_loops_in_the_way_are_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("folder", "loop"):
        with pytest.raises(UsageError):
            generate("local", ["force=true", f"output_path={name}"], tmp_path)
    target = tmp_path / "real.toml"
    target.write_text("")
    link = tmp_path / "env.toml"
    link.symlink_to(target)
    write(generate("local", ["force=true", "output_path=env.toml"], tmp_path))
    assert link.is_symlink()
    assert "local_base" in tomllib.loads(target.read_text())


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    generated = generate("local", cwd=tmp_path)
    (tmp_path / "env.local.toml").write_text("[someone_elses]\n")
    with pytest.raises(UsageError, match="changed"):
        write(generated)
    assert (tmp_path / "env.local.toml").read_text() == "[someone_elses]\n"


def test_a_profile_that_another_file_has_too_is_pointed_out(tmp_path: Path) -> None:
    write(generate("lepton", cwd=tmp_path))
    generated = generate("lepton", ["output_path=env.toml"], tmp_path)
    warning = next(f for f in generated.findings if f.severity == "warning")
    assert "env.lepton.toml" in warning.message
    assert warning.place.file == str(tmp_path / "env.lepton.toml")
    named_alone = generate("lepton", ["output_path=mine.toml"], tmp_path)
    assert not [finding for finding in named_alone.findings if finding.severity == "warning"]
