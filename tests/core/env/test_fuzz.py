from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tunedeck.core.env.check import check_files
from tunedeck.core.env.excerpt import Excerpts
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.load import load_env_files
from tunedeck.core.env.mend import mend
from tunedeck.core.env.models import MODELS, keys_of
from tunedeck.core.env.resolve import resolve_profile
from tunedeck.core.errors import TunedeckError

KEYS = sorted({key for executor in MODELS for key in keys_of(executor)})
PIECES = [
    *("", " ", "/a", "a:b", ":", "~", "8", "true", "null", "<x>", "2h", "02:00:00", "slurm", "p0"),
    *("gpu:8", "gpu.8xh100", "cpu.large", "h200x8", "\x1b[31m", "hf_" + "a" * 30, "x" * 300),
    *("${nodes}", "${.}", "${..a}", "${}", "${", "}", "\\${x}", "${mounts[0]}", "${a.${b}}"),
    *("${oc.env:HOME}", "${oc.env:NOT_SET}", "${oc.env:HF_TOKEN,''}", "${oc.env:'HOME',1}"),
    *("${env_vars}", "${env_vars.A}", "${oc.env:${nodes}}", "${oc.decode:[1}", "\0secret\0"),
    *("${oc.select:a,b}", "${oc.create:{a:1}}", "${oc.env:A,${oc.env:B,${oc.env:C}}}"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)
scalars = (
    texts
    | st.sampled_from([0, 1, 8, -1, 10**30, 2.5, float("inf"), float("nan"), True, False])
    | st.sampled_from([datetime.time(4), datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1)])
)
names = st.sampled_from(
    [*KEYS, "extends", "exlusive", "a.b", "0", "", "x y", "A", "HF_TOKEN", "path", "from"]
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
profiles = st.builds(
    lambda table, **known: {**table, **{key: value for key, value in known.items() if value}},
    st.dictionaries(names, values, max_size=8),
    executor=st.sampled_from([*MODELS, "slrum", ""]),
    extends=st.sampled_from(["", "p0", "p1", "gone", ["p0", "p1"]]),
    mounts=st.lists(values, max_size=2),
)
documents = st.dictionaries(
    st.sampled_from(["p0", "p1", "p2", "local", "wandb", "a.b", '"']), profiles, max_size=4
)
garbage = st.text(max_size=200) | st.text(alphabet="[]{}=\"'#\\.,\n ab01:-${}", max_size=200)


def toml(document: dict[str, Any]) -> str:
    return tomlkit.dumps(document)


def spoilt(text: str, spot: tuple[int, str]) -> str:
    """A document with something else at a place."""
    at, piece = spot
    return text[:at] + piece + text[at + len(piece) :]


spots = st.tuples(
    st.integers(0, 400), st.sampled_from(['"', "]", "[[", "=", "\n", "\x00", "'''", "#"])
)
inputs = documents.map(toml) | st.builds(spoilt, documents.map(toml), spots)


def survives(raw: bytes, path: Path) -> None:
    """Everything that reads an env file either works or says what is wrong."""
    path.write_bytes(raw)
    found = FoundFiles((path,), "")
    findings = check_files(found)
    excerpts = Excerpts()
    for finding in findings:
        assert finding.message
        excerpts.show(finding.place)
        finding.to_json()
    try:
        for mended in mend(findings):
            assert mended.diff
        files = load_env_files(found)
    except TunedeckError:
        return
    for name in files.profiles:
        try:
            resolve_profile(files, name)
        except TunedeckError as error:
            assert error.fix


quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.generate, Phase.shrink],
)
# To make up a document takes longer than to read it: each is read whole and spoilt in three ways.
thorough = settings(quick, max_examples=2_500)


@given(inputs.map(str.encode))
@quick
def test_no_document_makes_a_traceback(tmp_path: Path, raw: bytes) -> None:
    survives(raw, tmp_path / "env.toml")


@given(garbage.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200))
@quick
def test_no_garbage_makes_a_traceback(tmp_path: Path, raw: bytes) -> None:
    survives(raw, tmp_path / "env.toml")


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(documents.map(toml), st.lists(spots, min_size=3, max_size=3))
@thorough
def test_no_document_of_ten_thousand_makes_a_traceback(
    tmp_path: Path, text: str, at: list[tuple[int, str]]
) -> None:
    for document in (text, *(spoilt(text, spot) for spot in at)):
        survives(document.encode(), tmp_path / "env.toml")
