"""Env files of the shape that Nemotron's generator writes: its keys and tricks, our own words."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from tunedeck.core.env.resolve import resolve_profile

from .conftest import Check, Load

WORKSPACE = "${oc.env:NEMOTRON_WORKSPACE,/lustre/${oc.env:USER}}"
SLURM = f"""
# Keep secrets out of this file.

[wandb]
project = "${{oc.env:WANDB_PROJECT,ours}}"
entity = "${{oc.env:WANDB_ENTITY,us}}"

[slurm_base]
executor = "slurm"
tunnel = "ssh"
host = "${{oc.env:SLURM_HOST,login.example.com}}"
user = "${{oc.env:USER}}"
account = "${{oc.env:SLURM_ACCOUNT,ours}}"
partition = "${{oc.env:SLURM_PARTITION,batch}}"
container_image = "nvcr.io/nvidia/nemo:25.11"
workspace = "{WORKSPACE}"
remote_job_dir = "${{oc.env:NEMO_RUN_DIR,{WORKSPACE}/nemo-run}}"
mounts = ["/lustre:/lustre"]
lustre_mount = ""
nodes = 1
ntasks_per_node = 8
gpus_per_node = 8
time = "02:00:00"
env_vars = {{ HF_TOKEN = "${{oc.env:HF_TOKEN,''}}", \
HF_HOME = "${{oc.env:HF_HOME,{WORKSPACE}/hf}}", PYTHONPATH = "/nemo_run/code/src", \
RAY_DEDUP_LOGS = "0" }}

[slurm_prep_base]
extends = "slurm_base"
partition = "${{oc.env:SLURM_CPU_PARTITION,cpu}}"
build_partition = "${{oc.env:SLURM_CPU_PARTITION,cpu}}"
build_include_gpus = false
build_gpus_per_node = 0
ntasks_per_node = 1
cpus_per_task = 4
gpus_per_node = 0
startup_commands = ["uv pip install --quiet protobuf"]
env_vars = {{ RAY_MAX_LIMIT_FROM_API_SERVER = "100000" }}

[slurm_prep_sft_packing]
extends = "slurm_prep_base"
env_vars = {{ SFT_OUTPUT_DIR = "{WORKSPACE}/output/sft_packing" }}

[slurm_byob_full]
extends = "slurm_prep_base"
partition = "${{oc.env:SLURM_GPU_PARTITION,${{oc.env:SLURM_PARTITION,batch}}}}"
run_command = "python -m runtime --profile gpu -- python -m step --config {{config}}"
env_vars = {{ NVIDIA_API_KEY = "${{oc.env:NVIDIA_API_KEY,''}}" }}

[slurm_sft_automodel]
extends = "slurm_base"
nodes = 2
env_vars = {{ SFT_PACKED_DIR = "{WORKSPACE}/output/train/*.parquet" }}

[slurm_peft_automodel]
extends = "slurm_sft_automodel"
env_vars = {{ WANDB_INIT_TIMEOUT = "${{oc.env:WANDB_INIT_TIMEOUT,300}}" }}
"""
SHARED = "${oc.env:NEMOTRON_WORKSPACE,/mnt/shared}"
LEPTON = f"""
[lepton_base]
executor = "lepton"
container_image = "nvcr.io/nvidia/nemo:25.11"
node_group = "lepton-node-group"
resource_shape = "${{oc.env:LEPTON_GPU_SHAPE,gpu.8xa100-80gb}}"
workspace = "{SHARED}"
nemo_run_dir = "${{oc.env:NEMO_RUN_DIR,{SHARED}/nemo-run}}"
remote_job_dir = "{SHARED}/output"
code_src_dir = "{SHARED}/src"
ray_version = "2.48.0"
nodes = 1
gpus_per_node = 8
nprocs_per_node = 8
shared_memory_size = 65536
pip_extras = ["typer", "rich"]
mounts = [
    {{ path = "${{oc.env:HOST_MOUNT,/path/to/shared/workspace}}", mount_path = "{SHARED}", \
from = "${{oc.env:MOUNT_FROM,node-nfs:fs}}" }},
]
env_vars = {{ HF_TOKEN = "${{oc.env:HF_TOKEN,''}}", RAY_GRAFANA_IFRAME_HOST = "" }}

[lepton_curate]
extends = "lepton_base"
resource_shape = "${{oc.env:LEPTON_CPU_SHAPE,cpu.large}}"
gpus_per_node = 0
nprocs_per_node = 1
pip_extras = []

[lepton_optimize_modelopt_prune]
extends = "lepton_base"
resource_shape = "gpu.2xa100-80gb"
gpus_per_node = 2
nprocs_per_node = 2
"""
PVC = "${oc.env:NEMOTRON_WORKSPACE,/workspace}"
DGXCLOUD = f"""
[dgxcloud_base]
executor = "dgxcloud"
base_url = "${{oc.env:DGXCLOUD_BASE_URL,https://masked-host/api/v1}}"
kube_apiserver_url = "${{oc.env:DGXCLOUD_KUBE_APISERVER_URL,https://masked-host/k8s}}"
client_id = "${{oc.env:DGXCLOUD_CLIENT_ID,masked-client-id}}"
client_secret = "${{oc.env:DGXCLOUD_CLIENT_SECRET,''}}"
project_name = "${{oc.env:DGXCLOUD_PROJECT_NAME,masked-project-name}}"
container_image = "nvcr.io/nvidia/nemo:25.11"
workspace = "{PVC}"
pvc_nemo_run_dir = "{PVC}/nemo_run"
nodes = 1
gpus_per_node = 0
nprocs_per_node = 1
distributed_framework = "PyTorch"
pvcs = [
    {{ name = "storage", path = "{PVC}", existingPvc = true, \
claimName = "${{oc.env:DGXCLOUD_PVC_CLAIM,masked-claim}}" }},
]
env_vars = {{ WANDB_API_KEY = "${{oc.env:WANDB_API_KEY,''}}" }}

[dgxcloud_sft_automodel]
extends = "dgxcloud_base"
nodes = 2
gpus_per_node = 8
nprocs_per_node = 8
"""
FILES = {"slurm": SLURM, "lepton": LEPTON, "dgxcloud": DGXCLOUD}
SITE = {
    "SLURM_HOST": "login.site.edu",
    "SLURM_CPU_PARTITION": "small",
    "HOST_MOUNT": "/exports/a",
    "DGXCLOUD_BASE_URL": "https://runai.site.edu/api/v1",
    "DGXCLOUD_KUBE_APISERVER_URL": "https://runai.site.edu/k8s",
    "DGXCLOUD_CLIENT_ID": "us",
    "DGXCLOUD_PROJECT_NAME": "nlp",
    "DGXCLOUD_PVC_CLAIM": "claim",
    **dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "NVIDIA_API_KEY"), "there"),
    "DGXCLOUD_CLIENT_SECRET": "there",
}


def as_omegaconf_has_it(tables: dict[str, Any], name: str) -> DictConfig:
    """What merging along `extends` with OmegaConf gives, unresolved: Nemotron's way."""
    table = dict(tables[name])
    parent = table.pop("extends", None)
    own = OmegaConf.create(table)
    if parent is None:
        return own
    merged = OmegaConf.merge(as_omegaconf_has_it(tables, parent), own)
    assert isinstance(merged, DictConfig)
    return merged


@pytest.mark.parametrize("site", [{}, SITE], ids=["bare", "site"])
@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_every_profile_resolves_to_what_nemotrons_own_loader_gives(
    load: Load, monkeypatch: pytest.MonkeyPatch, text: str, site: dict[str, str]
) -> None:
    for name, value in site.items():
        monkeypatch.setenv(name, value)
    files = load(text)
    tables = tomllib.loads(text)
    for name in files.profiles.keys() - {"local"}:
        profile = resolve_profile(files, name)
        expected = OmegaConf.to_container(as_omegaconf_has_it(tables, name), resolve=True)
        assert isinstance(expected, dict)
        for secret in profile.secrets:
            del expected["env_vars"][secret.name]
        values = {**profile.values, "env_vars": profile.values.get("env_vars", {})}
        if "client_secret" in values:
            expected["client_secret"] = values["client_secret"]
        assert values == expected
        assert list(values) == list(expected)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (SLURM, ["host"]),
        (LEPTON, ["node_group", "mounts.0.path"]),
        (
            DGXCLOUD,
            ["base_url", "kube_apiserver_url", "client_id", "project_name", "pvcs.0.claimName"],
        ),
    ],
    ids=FILES,
)
def test_only_the_placeholders_that_are_left_in_are_errors(
    check: Check, text: str, left: list[str]
) -> None:
    findings = check(text)
    errors = [finding for finding in findings if finding.severity == "error"]
    assert [finding.key for finding in errors] == left
    assert all("placeholder" in finding.message for finding in errors)
    assert all("is empty" in f.message for f in findings if f.severity == "warning")


@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_with_the_sites_values_in_the_environment_there_is_nothing_to_complain_of(
    check: Check, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name, value in SITE.items():
        monkeypatch.setenv(name, value)
    assert check(text.replace("lepton-node-group", "h100-pool")) == []
