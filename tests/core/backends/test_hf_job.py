"""The job that a plan becomes on Hugging Face: everything that needs no service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.cloud.errors import Passing
from tunedeck.core.backends.hf.backend import HFJobsBackend
from tunedeck.core.backends.hf.remarks import check_plan
from tunedeck.core.errors import ExitCode, UsageError
from tunedeck.core.plan import Launch, Plan, SecretRef
from tunedeck.core.resolve import resolve
from tunedeck.core.secrets import MASK
from tunedeck.core.selection import Selection
from tunedeck.core.submission import Submission

VALUES: dict[str, Any] = {
    "executor": "hf_jobs",
    "namespace": "ada",
    "flavor": "a10g-small",
    "timeout": "2h",
    "container_image": "pytorch/pytorch:2.8.0-cuda12.8-cudnn9-devel",
    "run_command": None,
}
TORCHRUN = Launch("torchrun", "tunedeck.trainer", ("sft",), gpus_per_node=1)


@pytest.fixture
def hf_plan(make_plan: PlanMaker) -> PlanMaker:
    def make(*_: Any, profile: dict[str, Any] | None = None, **changes: Any) -> Plan:
        facts = {"config": {"checkpoint": {"restore_from": None}}, "launch": TORCHRUN, **changes}
        return make_plan(executor="hf_jobs", profile_values={**VALUES, **(profile or {})}, **facts)

    return make


def render(plan: Plan) -> Submission:
    return HFJobsBackend(dict(plan.profile_values)).render(plan)


def job_of(plan: Plan) -> dict[str, Any]:
    payload = render(plan).payload
    assert payload is not None
    job: dict[str, Any] = json.loads(json.dumps(payload["job"]))
    return job


def script_of(plan: Plan) -> str:
    script = render(plan).script
    assert script is not None
    return script


def warnings_of(plan: Plan) -> list[str]:
    found = HFJobsBackend(dict(plan.profile_values)).remarks(plan)
    return [finding.message for finding in found if finding.severity != "info"]


def test_the_body_has_the_names_and_types_of_the_service(hf_plan: PlanMaker) -> None:
    plan = hf_plan(
        name="peft/automodel tiny",
        profile={"attempts": 2, "labels": {"team": "nlp"}},
        secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),),
        env={"A": "1"},
        digest="sha256:" + "ab" * 32,
    )
    job = job_of(plan)
    command = job.pop("command")
    assert command[:2] == ["bash", "-c"]
    assert command[2] == script_of(plan)
    assert job == {
        "dockerImage": VALUES["container_image"],
        "arguments": [],
        "environment": {
            "A": "1",
            "TUNEDECK_BUCKET": f"ada/tunedeck:{plan.run_id}:/workspace/{plan.run_id}",
        },
        "flavor": "a10g-small",
        "timeoutSeconds": 7200,
        "labels": {
            "name": "peft-automodel-tiny",
            "team": "nlp",
            "tunedeck-run": plan.run_id,
            "tunedeck-digest": ("ab" * 32)[:63],
        },
        "secrets": {"HF_TOKEN": MASK},
        "attempts": 2,
        "volumes": [
            {
                "type": "bucket",
                "source": "ada/tunedeck",
                "mountPath": "/workspace",
                "readOnly": False,
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timeout": None}, "sets no time limit"),
        ({"timeout": "soon"}, "'soon' is no time limit"),
        ({"timeout": "0"}, "'0' is no time limit"),
        ({"namespace": None}, "whose the job is"),
        ({"flavor": None}, "sets no flavor"),
        ({"container_image": ""}, "sets no container_image"),
    ],
)
def test_what_a_job_must_have_is_asked_for(
    hf_plan: PlanMaker, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        render(hf_plan(profile=changes))
    assert raised.value.fix


def test_the_name_is_one_that_the_service_can_keep_as_a_tag(hf_plan: PlanMaker) -> None:
    """huggingface_hub's own jobs have letters, digits, `-` and `_` in theirs."""
    plan = hf_plan(name="Llama 3.1/sft, ada")
    assert job_of(plan)["labels"]["name"] == "Llama-3-1-sft-ada"


def test_several_machines_are_refused(hf_plan: PlanMaker) -> None:
    with pytest.raises(UsageError, match="one machine"):
        render(hf_plan(launch=Launch("torchrun", "tunedeck.trainer", ("sft",), 2, 8, 8)))


@pytest.mark.parametrize(
    ("text", "seconds", "margin"),
    [("60", 60, 30), ("10m", 600, 60), ("1.5h", 5400, 270), ("1d", 86400, 600)],
)
def test_a_time_limit_is_read_in_every_unit_and_leaves_time_to_save(
    hf_plan: PlanMaker, text: str, seconds: int, margin: int
) -> None:
    plan = hf_plan(profile={"timeout": None, "time": text})
    assert job_of(plan)["timeoutSeconds"] == seconds
    assert f"TUNEDECK_DEADLINE=$((started_at + {seconds - margin}))" in script_of(plan)


def test_the_code_comes_from_the_bucket_and_results_go_there(hf_plan: PlanMaker) -> None:
    volumes = [
        {"type": "model", "source": "Qwen/Qwen3-8B", "mountPath": "/base"},
        {"type": "bucket", "source": "lab/runs", "mount_path": "/mnt/runs"},
    ]
    plan = hf_plan(profile={"volumes": volumes, "remote_job_dir": "/mnt/runs/mine"})
    submission = render(plan)
    assert submission.payload is not None
    (code,) = submission.payload["uploads"]
    assert code["to"].startswith("/mnt/runs/mine/.tunedeck/code/")
    assert f"tar -xzf {code['to']}" in script_of(plan)
    assert f"keep_dir=/mnt/runs/mine/{plan.run_id}" in script_of(plan)
    assert [v["readOnly"] for v in job_of(plan)["volumes"]] == [True, False]
    assert warnings_of(plan) == []


def test_a_repository_is_cloned_instead_and_its_ref_must_be_there(hf_plan: PlanMaker) -> None:
    env = {"REPO_URL": "https://example.org/you/repo.git", "GIT_REF": "v1"}
    plan = hf_plan(env=env)
    submission = render(plan)
    assert submission.payload is not None
    assert submission.payload["uploads"] == []
    assert "volumes" not in job_of(plan)
    assert "git clone --quiet https://example.org/you/repo.git" in script_of(plan)
    assert "GIT_REF v1 is not in the repository" in script_of(plan)
    assert any("lost with the job" in text for text in warnings_of(plan))
    assert warnings_of(hf_plan()) == []


def test_a_ref_that_git_would_take_for_an_option_is_refused(hf_plan: PlanMaker) -> None:
    with pytest.raises(UsageError, match="GIT_REF"):
        render(hf_plan(env={"REPO_URL": "https://example.org/r.git", "GIT_REF": "--upload-pack=x"}))


def test_a_repository_s_address_with_a_credential_in_it_is_refused(hf_plan: PlanMaker) -> None:
    for url in ("https://ada:s3cret@example.org/r.git", "https://ghp_x@example.org/r.git"):
        found = HFJobsBackend({}).remarks(hf_plan(env={"REPO_URL": url}))
        (error,) = [finding for finding in found if finding.severity == "error"]
        assert "holds a credential" in error.message
        assert not any("s3cret" in finding.message for finding in found)
    for url in ("https://example.org/r.git", "ssh://git@example.org/r.git"):
        found = HFJobsBackend({}).remarks(hf_plan(env={"REPO_URL": url}))
        assert not [finding for finding in found if finding.severity == "error"]


def test_a_bucket_of_that_name_that_may_only_be_read_is_not_the_run_s(hf_plan: PlanMaker) -> None:
    own = {"type": "bucket", "source": "ada/tunedeck", "mount_path": "/in", "read_only": True}
    volumes = job_of(hf_plan(profile={"volumes": [own]}))["volumes"]
    assert [(v["mountPath"], v["readOnly"]) for v in volumes] == [
        ("/in", True), ("/workspace", False),
    ]  # fmt: skip


def test_two_volumes_in_one_place_are_told(hf_plan: PlanMaker) -> None:
    model = {"type": "model", "source": "Qwen/Qwen3-8B", "mount_path": "/workspace/"}
    plan = hf_plan(profile={"volumes": [model]})
    assert any("mounted at /workspace" in text for text in warnings_of(plan))
    elsewhere = {**model, "mount_path": "/base"}
    assert warnings_of(hf_plan(profile={"volumes": [elsewhere]})) == []


def test_variables_of_a_stage_are_appended_to_its_command(hf_plan: PlanMaker) -> None:
    env = {"SFT_ARGS": "optimizer.lr=1e-4 'name=two words'", "RL_ARGS": "x=1", "RUN": "mine"}
    plan = hf_plan(env={**env, "TUNEDECK_RUN_NAME": "other"}, step="peft/automodel")
    assert render(plan).argv[-2:] == ("optimizer.lr=1e-4", "name=two words")
    assert "optimizer.lr=1e-4 'name=two words'" in script_of(plan)
    assert job_of(plan)["environment"]["TUNEDECK_RUN_NAME"] == "mine"
    with pytest.raises(UsageError, match="SFT_ARGS"):
        render(hf_plan(env={"SFT_ARGS": "a 'b"}))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("--optimizer.lr=1e-4 'wandb.name=two words'", []),
        ("optimizer.lrr=1", ["SFT_ARGS: There is no key 'optimizer.lrr'."]),
        ("optimizer.lr=fast", ["SFT_ARGS: optimizer.lr = 'fast': expected number > 0."]),
        ("--max_steps 5", ["SFT_ARGS: 'max_steps' has no value", "SFT_ARGS: '5' has no value"]),
        ("peft=[", ["SFT_ARGS: it cannot be read"]),
    ],
)
def test_words_that_the_trainer_would_refuse_are_found_before_the_job(
    hf_plan: PlanMaker, words: str, wrong: list[str]
) -> None:
    config = resolve(Selection("peft/automodel", "tiny")).config
    plan = hf_plan(env={"SFT_ARGS": words}, step="peft/automodel", config=config)
    errors = [one.message for one in check_plan(plan) if one.severity == "error"]
    assert len(errors) == len(wrong)
    assert all(message.startswith(start) for message, start in zip(errors, wrong, strict=True))


def test_settings_without_a_value_mean_nothing(hf_plan: PlanMaker) -> None:
    plan = hf_plan(env={"REPO_URL": "", "GIT_REF": "", "RUN": "", "OTHER": ""})
    assert set(job_of(plan)["environment"]) == {"OTHER", "TUNEDECK_BUCKET"}
    assert "git clone" not in script_of(plan)


def test_several_processes_are_started_by_torchrun(hf_plan: PlanMaker) -> None:
    launch = Launch("torchrun", "tunedeck.trainer", ("sft",), 1, 8, 8)
    command = " ".join(render(hf_plan(launch=launch)).argv)
    assert " --nnodes 1 --standalone --nproc-per-node 8" in command
    assert "--standalone" not in " ".join(render(hf_plan()).argv)


def test_results_go_to_a_repository_if_the_profile_says_so(hf_plan: PlanMaker) -> None:
    profile = {"output_repo": "ada/results"}
    plan = hf_plan(profile=profile, secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),))
    assert 'python3 - "$run_dir" ada/results' in script_of(plan)
    assert warnings_of(plan) == []
    assert any("no token to upload" in text for text in warnings_of(hf_plan(profile=profile)))


def test_a_secret_kept_elsewhere_and_a_lost_checkpoint_folder_are_told(
    hf_plan: PlanMaker,
) -> None:
    plan = hf_plan(
        secrets=(SecretRef("HF_TOKEN", "name/key", remote=True),),
        config={"checkpoint": {"checkpoint_dir": "/elsewhere", "restore_from": None}},
    )
    told = " ".join(warnings_of(plan))
    assert "keeps no secrets of its own" in told
    assert "/elsewhere, which is lost with the job" in told
    assert "secrets" not in job_of(plan)


def test_rendered_twice_it_is_the_same(hf_plan: PlanMaker) -> None:
    plan = hf_plan()
    assert render(plan).to_json() == render(plan).to_json()


async def test_what_an_older_library_lacks_is_left_out_or_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import HfApi

    from tunedeck.core.backends.hf.client import Hub

    def list_jobs(_self: HfApi, *, namespace: str) -> list[str]:
        return [namespace]

    monkeypatch.setattr(HfApi, "list_jobs", list_jobs)
    hub = Hub()
    assert await hub.call("list_jobs", namespace="ada", narrow={"labels": {"a": "b"}}) == ["ada"]
    with pytest.raises(UsageError, match="has no labels in list_jobs") as raised:
        await hub.call("list_jobs", namespace="ada", labels={"a": "b"})
    assert "pip install --upgrade" in raised.value.fix
    with pytest.raises(UsageError, match="knows no bury_job"):
        await hub.call("bury_job")


def test_a_client_that_another_request_has_closed_is_no_fault_of_ours() -> None:
    from huggingface_hub.utils import close_session, get_session

    from tunedeck.core.backends.hf.meaning import meaning

    client = get_session()
    close_session()  # as the library does in a thread that cannot connect
    with pytest.raises(RuntimeError) as raised:
        client.get("http://127.0.0.1:1")
    known = meaning(raised.value)
    assert isinstance(known, Passing)
    assert known.exit_code is ExitCode.CONNECTION
    assert not known.acted
