from __future__ import annotations

import os
import warnings

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunedeck.core.env.interpolate import Interpolator, env_names
from tunedeck.core.env.interpolation_problem import InterpolationProblem

Leaves = dict[tuple[str, ...], object]


@pytest.fixture(autouse=True)
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "here")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "${oc.env:SET}",
        "${oc.env:EMPTY,x}",
        "${oc.env:UNSET,default}",
        "${oc.env:UNSET,''}",
        "${oc.env:UNSET,}",
        "${oc.env:UNSET,null}",
        "${oc.env:UNSET,8}",
        "${oc.env:UNSET,true}",
        "${oc.env:UNSET,'a, b'}",
        '${oc.env:UNSET,"a } b"}',
        "${oc.env:UNSET,${oc.env:SET}}",
        "${oc.env:UNSET,/lustre/${oc.env:UNSET,${oc.env:SET}}/x}/y",
        "a ${oc.env:SET} b ${oc.env:UNSET,c} d",
        "x ${oc.env:UNSET,null} y",
        "${ oc.env : SET }",
        "${oc.decode:${oc.env:UNSET,8}}",
        "\\${HOME} ${oc.env:SET}",
        "\\${HOME}",
        "{config} $SET {a}",
        "${oc.env:SET",
    ],
)
def test_texts_mean_what_omegaconf_says_they_mean(text: str) -> None:
    path = ("value",)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = OmegaConf.to_container(OmegaConf.create({"value": text}), resolve=True)
    except OmegaConfBaseException:
        with pytest.raises(InterpolationProblem):
            Interpolator().resolve(text, path, {path: text})
    else:
        assert {"value": Interpolator().resolve(text, path, {path: text})} == expected


def test_keys_refer_to_each_other_at_any_depth() -> None:
    leaves: Leaves = {
        ("workspace",): "/lustre/${user}",
        ("user",): "${oc.env:SET}",
        ("env_vars", "OUT"): "${workspace}/out",
        ("env_vars", "LOG"): "${.OUT}/log",
        ("mounts",): ["${workspace}:/w", "/x:/x"],
        ("copy",): "${env_vars}",
    }
    resolver = Interpolator()
    resolved = {path: resolver.resolve(value, path, leaves) for path, value in leaves.items()}
    assert resolved["env_vars", "LOG"] == "/lustre/here/out/log"
    assert resolved["mounts",] == ["/lustre/here:/w", "/x:/x"]
    assert resolved["copy",] == {"OUT": "/lustre/here/out", "LOG": "/lustre/here/out/log"}


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("${oc.env:UNSET}", "UNSET is not set", "export UNSET="),
        ("/a/${oc.env:UNSET,${oc.env:GONE}}", "GONE is not set", "export GONE="),
        ("${HOME}/x", "'HOME', which this profile does not have", "${oc.env:HOME}"),
        ("${oc.evn:SET}", "oc.evn", "Did you mean 'oc.env'"),
        ("${auto_mount:git+x}", "auto_mount", "oc.env"),
        ("${oc.env:SET", "not a well-formed", "quotes"),
        ("${oc.env:${name}}", "not written out", "${oc.env:NAME}"),
        ("${a}", "circle: a → b → a", "value of its own"),
        ("${oc.env:UNSET," * 400 + "}" * 400, "", "less nesting"),
    ],
)
def test_what_cannot_be_resolved_is_told_with_a_remedy(text: str, message: str, fix: str) -> None:
    leaves: Leaves = {("a",): "${b}", ("b",): "${a}", ("k",): text}
    path = ("a",) if text == "${a}" else ("k",)
    with pytest.raises(InterpolationProblem) as caught:
        env_names(text)
        Interpolator().resolve(leaves[path], path, leaves)
    assert message in caught.value.message
    assert fix in caught.value.fix
    assert len(caught.value.message) < 400


def test_equal_texts_are_read_from_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Interpolator()
    text, path = "${oc.env:SET}/x", ("k",)
    assert resolver.resolve(text, path, {}) == "here/x"
    monkeypatch.setitem(os.environ, "SET", "there")
    assert resolver.resolve(text, path, {}) == "here/x"
