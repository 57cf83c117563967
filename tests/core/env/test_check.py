from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.env.check import check_files, check_profile, check_text
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.resolve import resolve_profile
from tunedeck.core.findings import Edit, Finding
from tunedeck.core.origins import Origin, Sourced

from .conftest import Check, Load
from .samples import DGXCLOUD, HF, LEPTON, LOCAL, SLURM, one


@pytest.fixture(autouse=True)
def cloud_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "there")


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        (SLURM, "host"),
        (SLURM, "remote_job_dir"),
        (LEPTON, "container_image"),
        (LEPTON, "resource_shape"),
        (LEPTON, "node_group"),
        (DGXCLOUD, "base_url"),
        (DGXCLOUD, "client_id"),
        (DGXCLOUD, "client_secret"),
        (DGXCLOUD, "project_name"),
        (DGXCLOUD, "pvc_nemo_run_dir"),
        (HF, "flavor"),
        (HF, "container_image"),
        (LOCAL, "executor"),
    ],
)
def test_what_is_missing_after_inheritance_is_an_error_of_the_profile(
    check: Check, text: str, gone: str
) -> None:
    kept = [line for line in text.splitlines() if not line.startswith(f"{gone} =")]
    finding = one(check("\n".join(kept)))
    assert (finding.severity, finding.key, finding.place.line) == ("error", gone, 2)


def test_a_parent_may_be_incomplete_and_what_it_has_is_enough_for_its_children(
    check: Check,
) -> None:
    text = LEPTON.replace("[lepton]", '[kid]\nextends = "base"').replace(
        'node_group = "h100-pool"\n', ""
    )
    assert check(f'[base]\nnode_group = "h100-pool"\n{text}') == []
    incomplete = check(f'[base]\nexecutor = "lepton"\n{text}')
    assert {(f.severity, f.profile) for f in incomplete if f.key == "node_group"} == {
        ("info", "base"),
        ("error", "kid"),
    }


def test_what_is_inherited_is_said_once_where_it_is_written(check: Check) -> None:
    kids = "".join(f'[kid{n}]\nextends = "slurm"\nnodes = {n + 1}\n' for n in range(5))
    finding = one(check(f'{SLURM}qos = "<qos>"\n{kids}'))
    assert (finding.profile, finding.place.line) == ("slurm", 15)


def test_a_placeholder_that_the_environment_replaces_is_none(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SLURM.replace('"login.site.edu"', '"${oc.env:LOGIN,login.example.com}"')
    assert "placeholder" in one(check(text)).message
    monkeypatch.setenv("LOGIN", "login.site.edu")
    assert check(text) == []


def test_an_empty_credential_is_a_warning_once(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "env_vars = { HF_TOKEN = \"${oc.env:HF_TOKEN,''}\" }\n"
    text = f'{SLURM}{token}[kid]\nextends = "slurm"\n{token}'
    finding = one(check(text))
    assert (finding.severity, finding.key) == ("warning", "env_vars.HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "x")
    assert check(text) == []


def test_items_of_lists_are_pointed_at(check: Check) -> None:
    text = LEPTON.replace(
        'mounts = [{ path = "/exports/a", mount_path = "/mnt/shared", from = "node-nfs:a" }]',
        'mounts = [\n  { path = "/exports/a", mount_path = "/mnt/shared" },\n'
        '  { path = "<path>", mountpath = "/b" },\n]',
    )
    found = {finding.key: finding for finding in check(text)}
    assert set(found) >= {"mounts.1.path", "mounts.1.mountpath", "mounts.1.mount_path"}
    assert found["mounts.1.path"].place.line == 12
    edit = found["mounts.1.mountpath"].fix
    assert edit is not None
    assert edit.edit == Edit("rename", "mounts.1.mountpath", "mounts.1.mount_path")


def test_an_executor_that_there_is_not_is_found_with_the_nearest(check: Check) -> None:
    finding = one(check(SLURM.replace('executor = "slurm"', 'executor = "slrum"')))
    assert finding.fix is not None
    assert finding.fix.edit == Edit("set", "executor", "slurm")


def test_a_misspelled_parent_can_be_mended_and_a_circle_is_said_once(check: Check) -> None:
    finding = one(check(f'{SLURM}[a]\nextends = "slrum"\n[b]\nextends = "a"'))
    assert finding.fix is not None
    assert finding.fix.edit == Edit("set", "extends", "slurm")
    circle = '[a]\nextends = "b"\n[b]\nextends = "c"\n[c]\nextends = "a"\n[d]\nextends = "b"'
    assert "circle" in one(check(circle)).message


def test_a_wrong_parent_does_not_hide_the_other_profiles(check: Check) -> None:
    found = check(f'[a]\nextends = "gone"\n[b]\nextends = "a"\n{SLURM}qos = "<qos>"')
    assert [(f.key, f.place.line) for f in found] == [("extends", 2), ("qos", 19)]


@pytest.mark.parametrize("text", ["[a", "nodes = 2", "[a]\nx = 1\n[a]\nx = 1\n", "a = 1\n", "\x00"])
def test_what_cannot_be_read_at_all_is_a_finding(check: Check, text: str) -> None:
    finding = one(check(text))
    assert finding.severity == "error"
    assert finding.place.line
    assert finding.fix


def test_a_profile_that_two_files_define_is_a_finding_at_the_second(
    write: Callable[..., Path],
) -> None:
    files = (write(LOCAL, "env.a.toml"), write(LOCAL, "env.b.toml"))
    finding = one(check_files(FoundFiles(files, "")))
    assert "env.a.toml:2" in finding.message
    assert finding.place.file == str(files[1])


def test_findings_have_the_shape_of_the_contract(check: Check) -> None:
    (document,) = [finding.to_json() for finding in check(f"{SLURM}exlusive = true\n")]
    assert set(document) == {
        "severity",
        "file",
        "line",
        "column",
        "profile",
        "key",
        "message",
        "fix",
    }
    assert document["fix"]["edit"] == {"op": "rename", "key": "exlusive", "value": "exclusive"}
    json.dumps(document)


def test_text_that_is_not_written_yet_is_checked_as_well() -> None:
    finding = one(check_text(f"{SLURM}exlusive = true\n", Path("env.slurm.toml")))
    assert finding.place.file == "env.slurm.toml"


def test_a_resolved_profile_is_checked_with_its_other_layers(load: Load) -> None:
    typed = {"nodes": Sourced("many", Origin("command line", text="run.env.nodes=many"))}
    profile = resolve_profile(load(SLURM), "slurm", command_line=typed)
    finding = one(check_profile(profile.name, profile.executor, profile.values, profile.origins))
    assert finding.key == "nodes"
    assert "'many'" in finding.message


def test_a_config_may_speak_to_other_executors_and_a_command_line_may_not(load: Load) -> None:
    def findings(layer: str) -> Finding:
        run_env = {"partition": Sourced("gpu", Origin(layer))}
        profile = resolve_profile(load(""), "local", run_env=run_env)
        return one(check_profile(profile.name, profile.executor, profile.values, profile.origins))

    assert findings("config tiny").severity == "warning"
    assert findings("command line").severity == "error"


def test_an_edit_would_never_undo_an_interpolation(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIMIT", "2h")
    finding = one(check(SLURM.replace('"04:00:00"', '"${oc.env:LIMIT}"')))
    assert finding.fix is not None
    assert finding.fix.edit is None


def test_a_value_that_cannot_be_resolved_is_said_once(check: Check) -> None:
    finding = one(check(SLURM.replace("nodes = 2", 'nodes = "${oc.env:NO_SUCH_COUNT}"')))
    assert "NO_SUCH_COUNT" in finding.message
