from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tunedeck.core.env.check import check_files
from tunedeck.core.env.find import find_env_files
from tunedeck.core.env.generate import generate, write, wrong_answer
from tunedeck.core.env.generate_config import config_names, load_generator
from tunedeck.core.env.load import load_env_files
from tunedeck.core.env.models import describe
from tunedeck.core.env.resolve import ResolvedProfile, resolve_profile
from tunedeck.core.errors import UsageError

BACKENDS = {
    "local": "local",
    "slurm": "slurm",
    "lepton": "lepton",
    "dgxcloud": "dgxcloud",
    "hf_jobs": "hf",
}
_KINDS = """
base prep_base prep_sft_packing prep_pretrain_prep prep_rl_prep curator_base curate translate
byob_cpu byob_full sdg_data_designer sdg_data_designer_tiny sdg_data_designer_default
sdg_data_designer_customer_support_tools sdg_data_designer_rl_pref pretrain_megatron_bridge
pretrain_automodel sft_megatron_bridge sft_automodel peft_megatron_bridge peft_automodel
rl_nemo_rl_dpo rl_nemo_rl_rlvr rl_nemo_rl_rlhf convert_model optimize_modelopt_quantize
optimize_modelopt_distill optimize_modelopt_prune eval_model_eval
"""
KINDS = _KINDS.split()
SITE = {
    "SLURM_HOST": "login1",
    "SLURM_ACCOUNT": "nlp",
    "SLURM_PARTITION": "gpu",
    "NEMOTRON_WORKSPACE": "/lustre/ada",
    "LEPTON_NODE_GROUP": "h100-pool",
    "NEMOTRON_HOST_MOUNT": "/users/ada",
    "NEMOTRON_MOUNT_FROM": "node-nfs:lustre",
    "DGXCLOUD_BASE_URL": "https://runai.cluster.edu/api/v1",
    "DGXCLOUD_CLIENT_ID": "ada",
    "DGXCLOUD_CLIENT_SECRET": "s3cr3t-of-the-test",
    "DGXCLOUD_PROJECT_NAME": "nlp",
    "DGXCLOUD_PVC_CLAIM": "nlp-workspace",
    "HF_NAMESPACE": "ada",
}

pytestmark = pytest.mark.usefixtures("bare_environment")


def resolved(folder: Path, profile: str) -> ResolvedProfile:
    return resolve_profile(load_env_files(find_env_files(folder)), profile)


def test_the_shipped_configs_are_the_five_backends() -> None:
    assert config_names() == sorted(BACKENDS)


@pytest.mark.parametrize(("config", "prefix"), BACKENDS.items())
def test_a_backend_gets_every_kind_of_profile_under_its_prefix(
    config: str, prefix: str, tmp_path: Path
) -> None:
    generated = generate(config, cwd=tmp_path)
    assert generated.path == tmp_path / f"env.{config}.toml"
    assert sorted(generated.profiles) == sorted(f"{prefix}_{kind}" for kind in KINDS)
    document = tomllib.loads(generated.text)
    assert set(document) == {"wandb", *generated.profiles}
    assert "project" in document["wandb"]


@pytest.mark.parametrize(("config", "prefix"), BACKENDS.items())
def test_what_is_written_is_found_and_checks_clean_once_the_site_is_known(
    config: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(generate(config, cwd=tmp_path))
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    found = find_env_files(below)
    assert found.files == (tmp_path / f"env.{config}.toml",)

    for name, value in SITE.items():
        monkeypatch.setenv(name, value)
    assert check_files(found) == []
    files = load_env_files(found)
    for kind in KINDS:
        assert resolve_profile(files, f"{prefix}_{kind}").executor == config


@pytest.mark.parametrize("config", [name for name in BACKENDS if name != "local"])
def test_without_the_site_every_value_asked_for_is_called_a_placeholder(
    config: str, tmp_path: Path
) -> None:
    generated = generate(config, cwd=tmp_path)
    asked = load_generator(config, cwd=tmp_path).site
    needed = [value for value in asked if value.env != "LEPTON_GPU_SHAPE"]
    assert list(generated.open_values) == needed
    messages = [f.message for f in generated.findings if f.severity == "error"]
    assert len(messages) == len(needed)
    assert all("placeholder" in message for message in messages)


@pytest.mark.parametrize("given_by", ["an override", "the environment"])
def test_a_value_that_is_given_and_wrong_is_a_finding_and_not_an_open_value(
    given_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given_by == "the environment":
        monkeypatch.setenv("SLURM_HOST", "my host")
        generated = generate("slurm", cwd=tmp_path)
    else:
        generated = generate("slurm", ["sections.slurm_base.host=my host"], cwd=tmp_path)
    assert "slurm_base.host" not in [value.key for value in generated.open_values]
    assert "'my host' is no host: a host has no spaces and no slashes." in [
        f.message for f in generated.findings
    ]


@pytest.mark.parametrize("config", BACKENDS)
def test_answers_close_every_open_value_and_are_taken_as_text(config: str, tmp_path: Path) -> None:
    asked = load_generator(config, cwd=tmp_path).site
    answers = {value.key: SITE.get(value.env, "gpu.8xh100-80gb") for value in asked}
    assert generate(config, cwd=tmp_path, answers=answers).open_values == ()

    if config == "slurm":
        odd = {**answers, "slurm_base.account": "0123", "slurm_base.partition": "yes"}
        base = tomllib.loads(generate(config, cwd=tmp_path, answers=odd).text)["slurm_base"]
        assert (base["account"], base["partition"]) == ("0123", "yes")


def test_generation_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from tunedeck.core.env.generate import generate;"
        "print(generate('slurm', ['sections.slurm_base.env_vars={B: 1, A: 2}'],"
        f" Path({str(tmp_path)!r})).text)"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_no_secret_of_the_environment_gets_into_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "WANDB_API_KEY", "DGXCLOUD_CLIENT_SECRET", "NVIDIA_API_KEY"):
        monkeypatch.setenv(name, "canary-4711")
    for config in BACKENDS:
        generated = generate(config, cwd=tmp_path)
        assert "canary-4711" not in generated.text + repr(generated)


@pytest.mark.parametrize("config", BACKENDS)
def test_each_key_is_explained_where_it_first_stands(config: str, tmp_path: Path) -> None:
    lines = generate(config, cwd=tmp_path).text.splitlines()
    for key in ("executor", "workspace", "env_vars"):
        first = next(n for n, line in enumerate(lines) if re.match(rf"(\[\w+\.)?{key}\b", line))
        above: list[str] = []
        while lines[first - 1 - len(above)].startswith("# "):
            above.insert(0, lines[first - 1 - len(above)].removeprefix("# "))
        assert " ".join(above) == describe(config, key)


def test_options_are_written_as_comments_that_work_once_uncommented(tmp_path: Path) -> None:
    generated = generate("slurm", cwd=tmp_path)
    assert '#container_runtime = "none"' in generated.text
    options = load_generator("slurm", cwd=tmp_path).sections["slurm_base"]["options"]
    text = generated.text
    for key in options:
        text = text.replace(f"\n#{key} =", f"\n{key} =", 1)
    base = tomllib.loads(text)["slurm_base"]
    assert {key: base[key] for key in options} == options


def test_slurm_without_containers_is_one_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SITE.items():
        monkeypatch.setenv(name, value)
    overrides = ["sections.slurm_base.container_runtime=none", "sections.slurm_base.venv=/opt/venv"]
    generated = generate("slurm", overrides, tmp_path)
    assert generated.findings == ()
    assert '\n#container_runtime = "none"' not in generated.text
    assert tomllib.loads(generated.text)["slurm_base"]["venv"] == "/opt/venv"


def test_overrides_are_typed_reach_children_and_remove_with_null(tmp_path: Path) -> None:
    overrides = [
        "output_path=sub/env.toml",
        "sections.lepton_base.node_group=h100",
        "sections.lepton_base.env_vars.WANDB_ENTITY=my-team",
        "sections.lepton_base.nodes=3",
        "sections.lepton_base.time=12:00:00",
        "sections.lepton_base.pip_extras=[einops, rich]",
        "sections.lepton_base.mounts[0].path=/data",
        "sections.lepton_base.shared_memory_size=null",
        "sections.lepton_base.can_be_preempted=true",
    ]
    generated = generate("lepton", overrides, tmp_path)
    assert generated.path == tmp_path / "sub" / "env.toml"
    write(generated)
    base = tomllib.loads(generated.text)["lepton_base"]
    assert base["nodes"] == 3
    assert base["time"] == "12:00:00"
    assert base["pip_extras"] == ["einops", "rich"]
    assert base["mounts"][0]["path"] == "/data"
    assert base["can_be_preempted"] is True
    assert "shared_memory_size" not in base
    child = resolved(tmp_path / "sub", "lepton_sft_automodel")
    assert child.values["node_group"] == "h100"
    assert child.env_vars["WANDB_ENTITY"] == "my-team"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sections.slurm_bas.account=x", "slurm_base"),
        ("sections.slurm_base.acount=x", "account"),
        ("sections.slurm_base=x", "names no key"),
        ("section.slurm_base.account=x", "sections"),
        ("sections.slurm_base.mounts[7]=x", "item 7"),
        ("force=perhaps", "force=perhaps"),
        ("checks.required_profiles=[slurm_bas]", "slurm_base"),
        ("nonsense", "nonsense"),
        ("sections.slurm_base.account=[", "account"),
        ("sections.slurm_base.secrets=-", "holds a null"),
    ],
)
def test_a_wrong_override_is_refused_with_what_was_meant(
    override: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        generate("slurm", [override], tmp_path)
    assert says in caught.value.message
    assert caught.value.fix


def test_a_secret_that_is_given_is_refused_and_a_reference_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file may hold"):
        generate("slurm", ["sections.slurm_base.env_vars.HF_TOKEN=hush-hush"], tmp_path)
    named = generate("slurm", ["sections.slurm_base.env_vars.HF_TOKEN=${oc.env:MINE}"], tmp_path)
    assert 'HF_TOKEN = "${oc.env:MINE}"' in named.text


def test_checks_warn_of_fewer_nodes_than_recommended(tmp_path: Path) -> None:
    generated = generate("slurm", ["sections.slurm_rl_nemo_rl_rlhf.nodes=2"], tmp_path)
    warnings = [f for f in generated.findings if f.severity == "warning"]
    assert [(f.profile, f.key) for f in warnings] == [("slurm_rl_nemo_rl_rlhf", "nodes")]


def test_an_unknown_config_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'slurm'"):
        generate("slrum", cwd=tmp_path)


def test_a_config_of_ones_own_needs_nothing_but_a_path_and_sections(tmp_path: Path) -> None:
    config = {
        "output_path": "env.toml",
        "preamble": "# Ours.\n#\n#   indented\n",
        "sections": {"mine": {"executor": "local", "env_vars": {"A": "1", "B": "2"}}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    generated = generate("./mine.yaml", cwd=tmp_path)
    assert generated.text.startswith("# Ours.\n#\n#   indented\n\n[mine]\n")
    assert tomllib.loads(generated.text) == config["sections"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"output_path: a\nsections: [1]\n", "sections"),
        (b"sections: {a: {}}\n", "output_path"),
        (b"output_path: a\nsections: {a: {}}\nforec: true\n", "forec"),
        (b"output_path: [\n", "YAML"),
        (b"\xff\xfe", "UTF-8"),
        (b"- a\n", "list"),
        (b"output_path: a\nsections: {a: {about: [1]}}\n", "about"),
    ],
)
def test_a_broken_config_is_refused_with_its_place(
    content: bytes, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        generate(str(file), cwd=tmp_path)
    assert says in caught.value.message
    assert caught.value.place is not None
    assert caught.value.place.file == str(file)


def test_shipped_configs_name_site_values_that_exist(tmp_path: Path) -> None:
    for config in BACKENDS:
        loaded = load_generator(config, cwd=tmp_path)
        for value in loaded.site:
            assert f"${{oc.env:{value.env}," in str(loaded.sections)


@pytest.mark.parametrize(
    ("config", "key", "right", "wrong", "words"),
    [
        ("slurm", "slurm_base.host", "login.test", "my host", "has no spaces"),
        ("slurm", "slurm_base.host", "ada@login.test:2222", "ssh://login", "no slashes"),
        ("slurm", "slurm_base.partition", "gpu,long", "gpu nodes", "no spaces"),
        ("lepton", "lepton_base.resource_shape", "gpu.1xa10", "8 gpus", "a shape has no spaces"),
        ("dgxcloud", "dgxcloud_base.base_url", "https://h/api/v1", "h.test", "begins with https"),
        ("hf_jobs", "hf_base.namespace", "ada", "https://huggingface.co/ada", "no slashes"),
        ("slurm", "slurm_base.workspace", "/shared", "shared", "absolute path"),
        ("slurm", "slurm_base.account", "nlp", "<account>", "placeholder"),
        ("lepton", "lepton_base.mounts[0].path", "/users/ada", "users", "absolute path"),
    ],
)
def test_an_answer_is_told_what_is_wrong_with_it_alone(
    config: str, key: str, right: str, wrong: str, words: str
) -> None:
    assert words in wrong_answer(config, key, wrong)
    assert wrong_answer(config, key, right) == ""
    assert wrong_answer(config, key, "") == ""
