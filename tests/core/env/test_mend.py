from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunedeck.core.env.check import check_files
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.mend import Mended, mend
from tunedeck.core.errors import UsageError

Write = Callable[..., Path]


def mended(path: Path) -> Mended:
    (one,) = mend(check_files(FoundFiles((path,), "")))
    return one


def errors(path: Path) -> list[str]:
    found = check_files(FoundFiles((path,), ""))
    return [finding.message for finding in found if finding.severity == "error"]


TEXT = """\
# Our cluster. Ask Ada before you change it.

[base]              # everything else extends this
executor = "slrum"  # not a typo?
accountt = "nlp"    # who pays
"exlusive" = true
time = "2h"         # be fair
build_time = 03:00:00
mounts = [
    "/a:/a",  # data
    "/b:/b",
    "/a:/a",
]
nproc_per_node = 4
nprocs_per_node = 4

[kid]
extends = "bsae"
env_vars = { "A-B" = "1", C = "2" }
nodes = 2
"""


def test_all_that_is_mechanical_is_mended_and_comments_and_order_stay(write: Write) -> None:
    path = write(TEXT)
    one = mended(path)
    one.write()
    text = path.read_text()
    changes = {"slrum": "slurm", "bsae": "base", "nprocs_per_node = 4\n": "", '"2h"': '"02:00:00"'}
    expected = TEXT
    for old, new in changes.items():
        expected = expected.replace(old, new)
    assert text == expected
    assert one.before == TEXT


def test_one_round_of_mends_leads_to_the_next_until_nothing_is_left(write: Write) -> None:
    path = write(TEXT)
    for _ in range(3):
        for one in mend(check_files(FoundFiles((path,), ""))):
            one.write()
    text = path.read_text()
    data = tomllib.loads(text)
    assert data["base"] == {
        "executor": "slurm",
        "account": "nlp",
        "exclusive": True,
        "time": "02:00:00",
        "build_time": "03:00:00",
        "mounts": ["/a:/a", "/b:/b"],
        "nproc_per_node": 4,
    }
    assert data["kid"]["env_vars"] == {"A_B": "1", "C": "2"}
    for comment in ("Ask Ada", "everything else", "who pays", "be fair", "# data"):
        assert comment in text
    assert mend(check_files(FoundFiles((path,), ""))) == []


def test_the_diff_shows_the_change_and_no_secret(write: Write) -> None:
    path = write(
        '[a]\nexecutor = "local"\nsecrets = ["PLAIN"]\nndoes = 1\n'
        'env_vars = { API_KEY = "canary-1", PLAIN = "canary-2" }\n'
    )
    diff = mended(path).diff
    assert "-ndoes = 1" in diff
    assert "+nodes = 1" in diff
    assert "canary" not in diff


def test_the_file_keeps_its_permissions_and_a_link_stays_a_link(
    write: Write, tmp_path: Path
) -> None:
    real = write('[a]\nexecutor = "local"\nndoes = 1\n', "real.toml")
    real.chmod(0o640)
    link = tmp_path / "env.toml"
    link.symlink_to(real)
    mended(link).write()
    assert link.is_symlink()
    assert "nodes = 1" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in tmp_path.iterdir()} == {"env.toml", "real.toml"}


def test_line_endings_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    path = tmp_path / "env.toml"
    path.write_bytes(b'\xef\xbb\xbf[a]\r\nexecutor = "local"\r\nndoes = 1\r\ntime = "2h"\r\n')
    mended(path).write()
    assert path.read_bytes() == (
        b'\xef\xbb\xbf[a]\r\nexecutor = "local"\r\nnodes = 1\r\ntime = "02:00:00"\r\n'
    )


def test_a_file_that_changed_meanwhile_is_left_as_it_is(write: Write) -> None:
    path = write('[a]\nexecutor = "local"\nndoes = 1\n')
    one = mended(path)
    path.write_text("[b]\n")
    with pytest.raises(UsageError, match="changed"):
        one.write()
    assert path.read_text() == "[b]\n"


def test_a_mend_that_would_touch_more_is_refused_and_nothing_is_written(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomlkit

    path = write('[a]\nexecutor = "local"\ntime = "2h"\n')
    monkeypatch.setattr(tomlkit, "dumps", lambda document: "[a]\n")
    with pytest.raises(UsageError, match="cannot be mended"):
        mended(path)
    assert "2h" in path.read_text()


_layout = st.tuples(
    st.sampled_from(["[p]\n{}", "p.{}", '["p"]\n{}', "[p]\n# c\n\n{}"]),
    st.sampled_from(
        [
            'executor="local"\n{p}ndoes=1\n{p}time="2h" # c',
            '"executor" = "local"\n{p}env_vars = {{ "A-B" = "1" }}\n{p}nodes = 2',
            "executor = 'local'\n{p}env_vars.\"A-B\" = '1'\n{p}ndoes=1",
            'executor = "locla"\n{p}time = 01:00:00',
        ]
    ),
)


@given(_layout)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_way_it_is_written_what_was_mended_is_no_error_any_more(
    tmp_path: Path, layout: tuple[str, str]
) -> None:
    table, keys = layout
    path = tmp_path / "env.toml"
    dotted = "p." if table.startswith("p.") else ""
    path.write_text(table.format(keys.format(p=dotted)))
    one = mended(path)
    one.write()
    assert one.findings
    assert not {finding.message for finding in one.findings} & set(errors(path))
