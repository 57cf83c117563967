from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.backends.slurm.backend import SlurmBackend
from tunedeck.core.errors import UsageError
from tunedeck.core.inputs import content_digest
from tunedeck.core.plan import Launch, LocalInput, Plan, SecretRef
from tunedeck.core.submission import Submission

MakePlan = Callable[..., Plan]
BASE = {
    "executor": "slurm",
    "host": "login",
    "remote_job_dir": "/shared/my jobs",
    "container_runtime": "none",
    "run_command": "",
    "time": "01:00:00",
}


def plan_of(make_plan: MakePlan, launch: Launch | None = None, **values: Any) -> Plan:
    return make_plan(
        executor="slurm",
        launch=launch or Launch("torchrun", "tunedeck.trainer", ("sft",)),
        profile_values={**BASE, **values},
        config={"dataset": {"path_or_dataset_id": "x"}, "checkpoint": {"checkpoint_dir": None}},
    )


def rendered(make_plan: MakePlan, launch: Launch | None = None, **values: Any) -> Submission:
    plan = plan_of(make_plan, launch, **values)
    return SlurmBackend(dict(plan.profile_values)).render(plan)


def script(make_plan: MakePlan, launch: Launch | None = None, **values: Any) -> str:
    text = rendered(make_plan, launch, **values).script
    assert text is not None
    return text


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line[:8] == "#SBATCH "]


HOSTILE = 'a b\'; touch /tmp/pwned; echo "$(id)" `id` #'
PROFILES: dict[str, dict[str, Any]] = {
    "plain": {},
    "venv": {"venv": "/home/ada/my venv", "modules": ["cuda/12.8", "gcc"], "setup_lines": "ulimit"},
    "pyxis": {"container_runtime": "pyxis", "container_image": "r/i:1", "mounts": ["/d:/d:ro"]},
    "apptainer": {"container_runtime": "apptainer", "container_image": "r/i:1", "mounts": "/d:/d"},
    "command": {"run_command": "python train.py --config {config}; echo 'done'"},
    "hostile": {"account": HOSTILE, "env_vars": {"A": HOSTILE}, "mem": HOSTILE, "venv": HOSTILE},
}
SHAPES = {
    "one process": Launch("torchrun", "tunedeck.trainer", ("sft",)),
    "two nodes": Launch("torchrun", "tunedeck.trainer", ("sft",), 2, 8, 8),
    "a user's command": Launch("command", "tunedeck.trainer", ("sft",), 2, 1, 0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("profile", PROFILES)
def test_bash_parses_every_script(
    make_plan: MakePlan, tmp_path: Path, profile: str, shape: str
) -> None:
    path = tmp_path / "job.sh"
    path.write_text(script(make_plan, SHAPES[shape], **PROFILES[profile]))
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(make_plan: MakePlan, tmp_path: Path) -> None:
    paths = []
    clean = {name: values for name, values in PROFILES.items() if name != "hostile"}
    for profile, values in clean.items():
        for shape, launch in SHAPES.items():
            path = tmp_path / f"{profile}-{shape}.sh"
            path.write_text(script(make_plan, launch, **values))
            paths.append(path)
    done = subprocess.run(["shellcheck", *paths], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_nodes_meet_where_nothing_else_listens(tmp_path: Path) -> None:
    ss = tmp_path / "ss"
    ss.write_text("""#!/bin/bash\ncase "$*" in *":20007"* | *":20008"*) echo LISTEN ;; esac\n""")
    ss.chmod(0o755)
    job = Path(inspect.getfile(SlurmBackend)).with_name("job.sh")
    done = subprocess.run(
        ["bash", "-c", f'. <(sed -n "/^find_each_other/,/^}}/p" {job}); find_each_other; '
         'echo "$MASTER_PORT $PET_MASTER_PORT ${PET_RDZV_ENDPOINT##*:}"'],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "40007"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["20009"] * 3


def test_a_limit_that_is_changed_while_a_job_runs_is_noticed(tmp_path: Path) -> None:
    """Asked at a tenth of what is left, and of what makes no sense nothing is kept."""
    now = int(time.time())
    (tmp_path / "says").write_text(f"{now + 5000}\n\nN/A\n{now + 90000}\nend\n")
    for name, lines in {
        "sleep": 'echo "$1" >> slept; [ ! -e end ] || exec /bin/sleep 100',
        "squeue": "head -n 1 says; sed -i 1d says; [ -s says ] || touch end",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}\n")
        (tmp_path / name).chmod(0o755)
    job = Path(inspect.getfile(SlurmBackend)).with_name("job.sh")
    subprocess.run(
        ["bash", "-c", f'. <(sed -n "/^notice_another_end/,/^}}/p" {job}); '
         f"notice_another_end {now + 5000} & until [ -e end ]; do /bin/sleep 0.02; done; "
         "kill $!; wait"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
        cwd=tmp_path, check=True, timeout=60,
    )  # fmt: skip
    assert (tmp_path / "deadline").read_text() == f"{now + 90000 - 10}\n"
    first, *_, after = [int(line) for line in (tmp_path / "slept").read_text().split()][:5]
    assert first == pytest.approx(500, abs=60)
    assert after == pytest.approx(9000, abs=60)


def test_every_profile_key_becomes_its_option(make_plan: MakePlan) -> None:
    found = directives(
        script(
            make_plan,
            Launch("torchrun", "tunedeck.trainer", ("sft",), 2, 8, 8),
            account="nlp",
            partition="gpu",
            qos="high",
            reservation="res",
            constraint="h100",
            nodelist="n[1-2]",
            exclude="n9",
            cpus_per_task=16,
            mem="0",
            exclusive=True,
            array="0-7%2",
            dependency="afterok:1",
            signal="B:USR2@60",
            additional_parameters={"mail_type": "END", "wait-all-nodes": 1, "overcommit": True},
        )
    )
    for option in (
        *("--account=nlp", "--partition=gpu", "--qos=high", "--reservation=res"),
        *("--constraint=h100", "--exclude=n9", "--cpus-per-task=16", "--mem=0", "--exclusive"),
        *("--array=0-7%2", "--dependency=afterok:1", "--signal=B:USR2@60", "--time=01:00:00"),
        *("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=8", "--requeue"),
        *("--mail-type=END", "--wait-all-nodes=1", "--overcommit", "--open-mode=append"),
    ):
        assert option in found
    assert "--nodelist='n[1-2]'" in found


def test_gres_takes_the_place_of_gpus_per_node(make_plan: MakePlan) -> None:
    found = directives(script(make_plan, Launch("python", "m", gpus_per_node=8), gres="gpu:h100:8"))
    assert "--gres=gpu:h100:8" in found
    assert not any("gpus-per-node" in line for line in found)


def test_attached_and_detached_runs_go_to_their_partitions(make_plan: MakePlan) -> None:
    values = {**BASE, "partition": "p", "run_partition": "r", "batch_partition": "b"}
    for detached, name in ((False, "r"), (True, "b")):
        plan = make_plan(
            executor="slurm", profile_values=values, selection={"detached": detached}, config={}
        )
        text = SlurmBackend(values).render(plan).script
        assert text is not None
        assert f"#SBATCH --partition={name}\n" in text


def test_no_requeue_is_said_where_none_is_wanted(make_plan: MakePlan) -> None:
    assert "--no-requeue" in directives(script(make_plan, max_requeues=0))


def test_the_warning_comes_in_good_time_also_for_a_short_job(make_plan: MakePlan) -> None:
    assert "--signal=B:USR1@120" in directives(script(make_plan, time="04:00:00"))
    assert "--signal=B:USR1@12" in directives(script(make_plan, time="00:01:00"))


def test_a_job_is_found_by_a_comment_that_the_user_may_add_to(make_plan: MakePlan) -> None:
    plan = plan_of(make_plan, additional_parameters={"comment": "for the paper"})
    text = SlurmBackend(dict(plan.profile_values)).render(plan).script
    assert text is not None
    assert f"--comment='for the paper tunedeck:{plan.run_id}'" in directives(text)


def test_a_value_of_two_lines_is_refused(make_plan: MakePlan) -> None:
    with pytest.raises(UsageError, match="--account"):
        script(make_plan, account="a\n#SBATCH --uid=0")


def test_a_folder_for_jobs_must_be_absolute(make_plan: MakePlan) -> None:
    with pytest.raises(UsageError, match="not absolute"):
        script(make_plan, remote_job_dir="jobs")
    with pytest.raises(UsageError, match=r"nothing expands '\$'"):
        script(make_plan, remote_job_dir="/lustre/$USER/jobs")
    with pytest.raises(UsageError, match="does not say where"):
        script(make_plan, remote_job_dir="")


def test_the_folder_for_jobs_is_seen_inside_the_container(make_plan: MakePlan) -> None:
    image: dict[str, Any] = {"container_runtime": "pyxis", "container_image": "i:1"}
    assert "/shared/my jobs:/shared/my jobs" in script(make_plan, **image, mounts=["/d:/d"])
    assert "/shared/my jobs:/shared" not in script(make_plan, **image, mounts=["/shared:/shared"])


def test_local_inputs_travel_by_content_and_the_config_names_them_there(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    digest, size = content_digest(data)
    item = LocalInput("dataset.path_or_dataset_id", str(data), digest, size)
    plan = make_plan(
        executor="slurm",
        profile_values=BASE,
        config={"dataset": {"path_or_dataset_id": str(data)}},
        inputs=(item,),
    )
    submission = SlurmBackend(BASE).render(plan)
    target = f"/shared/my jobs/.tunedeck/inputs/{digest[7:23]}/train.jsonl"
    config = next(file for file in submission.files if file.path.endswith("config.yaml"))
    assert target in config.content
    assert str(data) not in config.content
    assert submission.payload is not None
    assert target in [upload["to"] for upload in submission.payload["uploads"]]


def test_no_secret_is_in_a_preview(make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_averysecretvalue0000000000")
    plan = make_plan(
        executor="slurm",
        profile_values=BASE,
        config={},
        secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),),
    )
    shown = json.dumps(SlurmBackend(BASE).render(plan).to_json())
    assert "averysecret" not in shown
    assert "********" in shown


def test_rendering_twice_gives_the_same_bytes(make_plan: MakePlan) -> None:
    plan = plan_of(make_plan)
    backend = SlurmBackend(dict(plan.profile_values))
    assert backend.render(plan).to_json() == backend.render(plan).to_json()


def test_the_tasks_of_an_array_are_counted_as_sbatch_does(make_plan: MakePlan) -> None:
    def tasks(array: str) -> list[int]:
        payload = rendered(make_plan, array=array).payload
        assert payload is not None
        return list(payload["tasks"])

    assert tasks("0-3%2") == [0, 1, 2, 3]
    assert tasks("1,3,8-12:4") == [1, 3, 8, 12]
    assert rendered(make_plan).payload["tasks"] == []  # type: ignore[index]  # it has one
    with pytest.raises(UsageError, match="array is 'a-b'"):
        tasks("a-b")


def test_a_step_that_is_a_script_travels_with_what_lies_beside_it(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    folder = tmp_path / "my step"
    folder.mkdir()
    (folder / "step.py").write_text("import helper\n")
    (folder / "helper.py").write_text("")
    submission = rendered(make_plan, Launch("torchrun", str(folder / "step.py"), (), 2, 8, 8))
    target = f"/shared/my jobs/.tunedeck/steps/{content_digest(folder)[0][7:23]}/my step"
    assert submission.payload is not None
    sent = {upload["from"]: upload["to"] for upload in submission.payload["uploads"]}
    assert sent[str(folder)] == target
    assert submission.script is not None
    assert f"'{target}/step.py'" in submission.script
    assert str(folder) not in submission.script
