from __future__ import annotations

import pytest

from tunedeck.core.findings import Edit

from .conftest import Check
from .samples import DGXCLOUD, HF, LEPTON, LOCAL, SLURM, one


@pytest.fixture(autouse=True)
def cloud_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_SECRET", "there")


@pytest.mark.parametrize("text", [SLURM, LEPTON, DGXCLOUD, HF, LOCAL])
def test_a_complete_profile_has_nothing_to_complain_of(check: Check, text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    ("text", "line", "severity", "key", "says", "edit"),
    [
        # unknown keys
        (SLURM, "exlusive = true", "error", "exlusive", "'exlusive'",
         Edit("rename", "exlusive", "exclusive")),
        (SLURM, "zzzzzz = 1", "error", "zzzzzz", "no key 'zzzzzz'", None),
        (SLURM, 'resource_shape = "x"', "error", "resource_shape", "a key of lepton", None),
        (SLURM, 'Accountt = "x"', "error", "Accountt", "no key", None),  # 'account' is there
        (LEPTON, 'mount = "/x"', "error", "mount", "no key 'mount'", None),
        # wrong types
        (SLURM, 'cpus_per_task = "many"', "error", "cpus_per_task", "whole number", None),
        (SLURM, "cpus_per_task = true", "error", "cpus_per_task", "whole number", None),
        (SLURM, "cpus_per_task = 1.5", "error", "cpus_per_task", "whole number", None),
        (SLURM, "cpus_per_task = 0", "error", "cpus_per_task", "1 or more", None),
        (SLURM, 'exclusive = "perhaps"', "error", "exclusive", "true or false", None),
        (SLURM, "constraint = 3", "error", "constraint", "text in quotes", None),
        (SLURM, "build_time = 04:00:00", "error", "build_time", "text in quotes",
         Edit("set", "build_time", "04:00:00")),
        (SLURM, 'env_vars = "A=1"', "error", "env_vars", "a table", None),
        (SLURM, "env_vars = { A = [1] }", "error", "env_vars.A", "text in quotes", None),
        (SLURM, "secrets = 3", "error", "secrets", "text in quotes", None),
        (SLURM, 'container_runtime = "pixis"', "error", "container_runtime", "pyxis",
         Edit("set", "container_runtime", "pyxis")),
        # placeholders
        (SLURM, 'qos = "<qos>"', "error", "qos", "placeholder", None),
        (SLURM, 'qos = "REPLACE_ME"', "error", "qos", "placeholder", None),
        (SLURM, 'qos = "your-qos"', "error", "qos", "placeholder", None),
        (SLURM, 'qos = "???"', "error", "qos", "placeholder", None),
        (SLURM, 'proxy_jump = "me@jump.example.com"', "error", "proxy_jump", "placeholder", None),
        (SLURM, 'identity = "/path/to/key"', "error", "identity", "placeholder", None),
        (SLURM, 'env_vars = { A = "CHANGEME" }', "error", "env_vars.A", "placeholder", None),
        # environment variables
        (SLURM, 'env_vars = { "A-B" = "1" }', "error", "env_vars.A-B", "name",
         Edit("rename", "env_vars.A-B", "env_vars.A_B")),
        # mounts
        (SLURM, 'lustre_mount = "/other:/lustre"', "error", "lustre_mount", "both mounted", None),
        (SLURM, 'lustre_mount = "/lustre:/lustre"', "warning", "lustre_mount", "twice",
         Edit("remove", "lustre_mount")),
        (SLURM, 'lustre_mount = "/data"', "error", "lustre_mount", "where it is mounted",
         Edit("set", "lustre_mount", "/data:/data")),
        (SLURM, 'env_vars = { OUT_DIR = "/scratch/x" }', "warning", "env_vars.OUT_DIR",
         "no mount covers", None),
        (LEPTON, 'env_vars = { HF_HOME = "/scratch/x" }', "warning", "env_vars.HF_HOME",
         "no mount covers", None),
        # paths
        (SLURM, 'venv = "venvs/a"', "error", "venv", "absolute", None),
        (SLURM, 'build_cache_dir = "~/cache"', "error", "build_cache_dir", "absolute", None),
        (SLURM, 'build_cache_dir = "/lustre/$USER"', "error", "build_cache_dir", "expanded", None),
        # counts
        (SLURM, "nproc_per_node = 16", "error", "nproc_per_node", "share", None),
        (SLURM, "nprocs_per_node = 16", "error", "nprocs_per_node", "share", None),
        (SLURM, "ntasks_per_node = 16", "warning", "ntasks_per_node", "share", None),
        (HF, "gpus_per_node = 2", "error", "gpus_per_node", "has 1", None),
        (HF, 'env_vars = { NPROC_PER_NODE = "8" }', "error", "env_vars.NPROC_PER_NODE",
         "has 1 GPU:", None),
        (LOCAL, "nodes = 2", "error", "nodes", "alone", Edit("set", "nodes", 1)),
        # times
        (SLURM, 'build_time = "2h"', "error", "build_time", "no time limit",
         Edit("set", "build_time", "02:00:00")),
        (SLURM, 'build_time = "04:00"', "warning", "build_time", "minutes:seconds",
         Edit("set", "build_time", "04:00:00")),
        (SLURM, 'build_time = "soon"', "error", "build_time", "no time limit", None),
        (SLURM, 'build_time = "00:00:00"', "error", "build_time", "nothing", None),
        # images
        (SLURM, 'build_image = "ubuntu"', "warning", "build_image", "no tag", None),
        (SLURM, 'build_image = "host:5000/ubuntu"', "warning", "build_image", "no tag", None),
        # what sbatch takes
        (SLURM, 'signal = "USR1 at 120"', "error", "signal", "form", None),
        (SLURM, 'array = "a-b"', "error", "array", "form", None),
        (SLURM, 'mem = "a lot"', "error", "mem", "form", None),
        (SLURM, 'dependency = "1234"', "error", "dependency", "form", None),
    ],
)  # fmt: skip
def test_each_mistake_is_found_at_its_line_with_its_mend(
    check: Check,
    text: str,
    line: str,
    severity: str,
    key: str,
    says: str,
    edit: Edit | None,
) -> None:
    finding = one(check(f"{text}{line}\n"))
    assert (finding.severity, finding.key) == (severity, key)
    assert says in finding.message
    assert finding.place.line == text.count("\n") + 1
    assert finding.place.column
    assert finding.fix is not None
    assert finding.fix.words
    assert finding.fix.edit == edit


@pytest.mark.parametrize(
    "line",
    [
        'gres = "gpu:8"',
        'build_time = "1-00:00:00"',
        'build_time = "90"',
        "build_time = 90",
        'build_time = "UNLIMITED"',
        'build_time = "90:00"',
        'build_image = "host:5000/ubuntu:24.04"',
        'build_image = "ubuntu@sha256:abc"',
        'build_image = "/images/ubuntu.sqsh"',
        'signal = "B:USR1@120"',
        'array = "0-7:2,9%2"',
        'dependency = "singleton"',
        'dependency = "afterok:12:13,afterany:14"',
        "mem = 0",
        'modules = "cuda/12.4"',
        'setup_lines = "ulimit -c 0"',
        'startup_commands = ["sort < in > out", "echo ${USER:-x} | cat <in >out"]',
        'env_vars = { CUDA_HOME = "/usr/local/cuda", OUT_DIR = "/lustre/x", PYTHONPATH = "/z" }',
        'user = "xxl"',
        'qos = "todo"',
    ],
)
def test_what_is_right_is_let_be(check: Check, line: str) -> None:
    found = [f for f in check(f"{SLURM}{line}\n") if "interpolation" not in f.message]
    assert [f.message for f in found if "USER:-x" not in f.message] == []


def test_gres_and_gpus_per_node_must_say_the_same(check: Check) -> None:
    finding = one(check(f'{SLURM}gres = "gpu:h100:4"'))
    assert (finding.key, finding.place.line) == ("gpus_per_node", 13)
    assert "has 4" in finding.message


@pytest.mark.parametrize(
    ("shape", "gpus"),
    [
        ("gpu.8xh100-80gb", 8),
        ("gpu.2xa100-80gb", 2),
        ("gpu.a100-80gb", 1),
        ("gpu.h100.8", 8),
        ("cpu.large", 0),
    ],
)
def test_a_leptons_shape_says_how_many_gpus_there_are(check: Check, shape: str, gpus: int) -> None:
    text = LEPTON.replace("gpu.8xh100-80gb", shape)
    assert check(text.replace("gpus_per_node = 8", f"gpus_per_node = {gpus}")) == []
    wrong = one(check(text.replace("gpus_per_node = 8", f"gpus_per_node = {gpus + 1}")))
    assert f"has {gpus}" in wrong.message


@pytest.mark.parametrize(
    ("flavor", "gpus"),
    [
        ("cpu-basic", 0),
        ("t4-small", 1),
        ("l4x4", 4),
        ("a10g-largex2", 2),
        ("h200", 1),
        ("h200x8", 8),
    ],
)
def test_a_flavor_says_how_many_gpus_there_are(check: Check, flavor: str, gpus: int) -> None:
    text = HF.replace("a10g-large", flavor)
    assert check(f"{text}gpus_per_node = {gpus}") == []
    assert f"has {gpus}" in one(check(f"{text}gpus_per_node = {gpus + 1}")).message


@pytest.mark.parametrize(("timeout", "mended"), [("02:00:00", "2h"), ("1:30:00", "90m")])
def test_a_timeout_of_the_hub_has_its_own_form(check: Check, timeout: str, mended: str) -> None:
    finding = one(check(HF.replace('"2h"', f'"{timeout}"')))
    assert finding.fix is not None
    assert finding.fix.edit == Edit("set", "timeout", mended)
    assert check(HF.replace('timeout = "2h"', 'time = "45m"')) == []


def test_a_reserved_mount_point_and_two_volumes_in_one_place_are_errors(check: Check) -> None:
    at_opt = one([f for f in check(LEPTON.replace('"/mnt/shared", from', '"/opt", from'))
                  if f.severity == "error"])  # fmt: skip
    assert "keeps '/opt' for itself" in at_opt.message
    second = '{ path = "/b", mount_path = "/mnt/shared/", from = "node-nfs:a" }'
    found = check(LEPTON.replace("mounts = [", f"mounts = [{second}, "))
    assert "both mounted" in one(found).message


def test_paths_below_one_that_is_not_mounted_are_not_said_again(check: Check) -> None:
    text = SLURM.replace("/lustre:/lustre", "/data:/data")
    finding = one(check(f'{text}env_vars = {{ OUT_DIR = "/lustre/ada/out" }}'))
    assert finding.key == "workspace"


def test_reserved_tables_are_looked_through_too(check: Check) -> None:
    found = check('[wandb]\nproject = "<project>"\napi_key = "canary"\nentity = "us"\n')
    assert [(f.key, f.severity) for f in found] == [
        ("wandb.project", "error"),
        ("wandb.api_key", "error"),
    ]
    assert "canary" not in str(found)


def test_two_spellings_of_one_key_are_an_error(check: Check) -> None:
    finding = one(check(f"{LEPTON}nproc_per_node = 8\nnprocs_per_node = 8\n"))
    assert "the same key" in finding.message
    assert finding.fix is not None
    assert finding.fix.edit == Edit("remove", "nprocs_per_node")
    both = "[b]\nextends = 'slurm'\nnprocs_per_node = 8\nnproc_per_node = 4\n"
    finding = one(check(f"{SLURM}{both}"))
    assert (finding.profile, finding.key) == ("b", "nprocs_per_node")
    assert finding.fix is not None
    assert finding.fix.edit is None  # which of the two is meant is not beyond doubt


def test_folders_below_a_placeholder_go_with_it(check: Check) -> None:
    text = SLURM.replace("/lustre/ada", "/path/to/shared")
    text = text.replace("/lustre:/lustre", "/path/to/shared:/path/to/shared")
    assert one(check(text)).key == "workspace"
    same = check(f'{SLURM}qos = "REPLACE_ME"\nreservation = "REPLACE_ME"\n')
    assert [finding.key for finding in same] == ["qos", "reservation"]


def test_the_profile_of_this_machine_runs_nowhere_else(check: Check) -> None:
    (found,) = (f for f in check('[local]\nexecutor = "slurm"\n') if f.key == "executor")
    assert (found.severity, found.place.line) == ("error", 2)
    assert "stands for this machine and not for 'slurm'" in found.message
    assert not [f for f in check('[local]\nexecutor = "local"\n') if f.key == "executor"]
