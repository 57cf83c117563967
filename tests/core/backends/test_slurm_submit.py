"""Submission and status against commands that stand in for a Slurm that has its troubles."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.slurm import submit as sending
from tunedeck.core.backends.slurm.backend import SlurmBackend
from tunedeck.core.chat import find_sources
from tunedeck.core.errors import NotFoundError, ReachError, TunedeckError, UsageError
from tunedeck.core.plan import Plan
from tunedeck.core.states import RunState, Status
from tunedeck.core.submission import Submission

from .cloud_runs import local_input

Say = Callable[..., None]

SQUEUE = 'case "$*" in *"%F|%k"*) cat "$BED/jobs" 2> /dev/null || true ;; *) {jobs} ;; esac'
ACCEPT = 'grep "^#SBATCH --comment" job.sh | sed "s/.*=/4711|/" >> "$BED/jobs"; echo 4711'


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Puts commands on the PATH by what they do."""
    bed = tmp_path / "bed"
    bed.mkdir()
    monkeypatch.setenv("BED", str(bed))
    monkeypatch.setenv("PATH", f"{bed}:{os.environ['PATH']}")
    monkeypatch.setattr(sending, "_PAUSES_S", (0.0, 0.0))

    def say(**commands: str) -> None:
        for name, text in commands.items():
            (bed / name).write_text(f"#!/bin/bash\n{text}\n")
            (bed / name).chmod(0o755)

    say(
        sbatch=ACCEPT,
        squeue=SQUEUE.format(jobs=":"),
        scontrol="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
        sacct="echo 'Slurm accounting storage is disabled' >&2; exit 1",
        sleep=":",
    )
    return say


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "with a space" / "größe"


@pytest.fixture
def backend(root: Path) -> SlurmBackend:
    return SlurmBackend({"executor": "slurm", "tunnel": "local", "remote_job_dir": str(root)})


@pytest.fixture
def submission(make_plan: PlanMaker, root: Path, backend: SlurmBackend) -> Submission:
    plan: Plan = make_plan(
        "print('hello')", executor="slurm", profile_values={**backend._values, "time": "00:10:00"}
    )
    return backend.render(plan)


async def test_a_job_that_was_taken_though_sbatch_was_not_answered_is_found(
    slurm: Say, backend: SlurmBackend, submission: Submission
) -> None:
    late = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv' >&2"
    slurm(sbatch=f"{ACCEPT} > /dev/null; {late}; exit 1")
    handle = await backend.submit(submission)
    assert handle.job_id == "4711"
    assert (Path(handle.data["run_dir"]) / "job.sh").is_file()
    assert Path(os.environ["BED"], "jobs").read_text().count("4711") == 1


async def test_a_job_that_was_refused_leaves_nothing_behind(
    slurm: Say, backend: SlurmBackend, submission: Submission, root: Path
) -> None:
    slurm(sbatch="echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(TunedeckError, match="account"):
        await backend.submit(submission)
    assert [path.name for path in root.iterdir()] == [".tunedeck"]
    assert list((root / ".tunedeck" / "incoming").iterdir()) == []


async def test_what_has_gone_of_an_upload_is_told(
    slurm: Say, backend: SlurmBackend, make_plan: PlanMaker, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_bytes(bytes(1000))
    values = {**backend._values, "time": "00:10:00"}
    plan = make_plan(
        executor="slurm",
        profile_values=values,
        config={"dataset": {"path_or_dataset_id": str(data)}},
        inputs=(local_input(data),),
    )
    told: list[tuple[str, int, int]] = []
    backend.tell_uploads(lambda *seen: told.append(seen))
    await backend.submit(backend.render(plan))
    code = told[0][2] - 1000
    assert told[0] == ("Tunedeck's code", 0, code + 1000)
    assert told[-2:] == [("train.jsonl", code, code + 1000), ("train.jsonl", *[code + 1000] * 2)]
    told.clear()
    await backend.submit(backend.render(replace(plan, run_id=f"{plan.run_id}x")))
    assert not told


async def test_what_a_glob_matches_travels_and_the_same_glob_finds_it_there(
    slurm: Say, backend: SlurmBackend, make_plan: PlanMaker, tmp_path: Path
) -> None:
    folder = tmp_path / "my [data]"
    for name in ("a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "a/notes.txt", "1.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    pattern = Path(glob.escape(str(folder)), "?", "*.jsonl")
    plan = make_plan(
        executor="slurm",
        profile_values={**backend._values, "time": "00:10:00"},
        config={"dataset": {"path_or_dataset_id": str(pattern)}},
        inputs=(local_input(pattern),),
    )
    submission = backend.render(plan)
    handle = await backend.submit(submission)
    config = yaml.safe_load(Path(handle.data["run_dir"], "config.yaml").read_text())
    (source,) = find_sources(config["dataset"]["path_or_dataset_id"])
    assert [file.read_text() for file in source.files] == [
        "a/1.jsonl\n",
        "a/2.jsonl\n",
        "b/1.jsonl\n",
    ]
    assert not str(source.files[0].resolve()).startswith(str(folder))


async def test_several_reasons_of_a_refusal_are_one_sentence(
    slurm: Say, backend: SlurmBackend, submission: Submission
) -> None:
    said = "sbatch: error: No partition specified.\nsbatch: error: Batch job submission failed"
    slurm(sbatch=f"echo '{said}' >&2; exit 1")
    with pytest.raises(TunedeckError) as refused:
        await backend.submit(submission)
    words = "No partition specified; Batch job submission failed"
    assert refused.value.message.endswith(words)


@pytest.mark.parametrize(
    "says",
    [
        "echo '4711;tiger'",
        "echo 'Hello, 80 left'; echo 4711; echo bye",
        "echo 'Done: 4711!'",
    ],
    ids=["with its cluster", "among other words", "in its own words"],
)
async def test_a_job_is_known_by_its_number_however_sbatch_says_it(
    slurm: Say, backend: SlurmBackend, submission: Submission, root: Path, says: str
) -> None:
    slurm(sbatch=f"{ACCEPT} > /dev/null; {says}")
    assert (await backend.submit(submission)).job_id == "4711"
    found, _ = await backend.adopt("4711")
    assert found.run_id == submission.run_id


async def test_an_sbatch_that_names_no_job_is_quoted(
    slurm: Say, backend: SlurmBackend, submission: Submission
) -> None:
    slurm(sbatch="echo 'Sent to the portal.'")
    with pytest.raises(TunedeckError, match=r"'Sent to the portal\.', which is no job id"):
        await backend.submit(submission)


async def test_the_profile_counts_and_not_what_the_login_shell_has_set(
    slurm: Say, backend: SlurmBackend, make_plan: PlanMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_ACCOUNT", "another")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "1")
    monkeypatch.setenv("SBATCH_NO_REQUEUE", "1")
    monkeypatch.setenv("SBATCH_QOS", "of-mine")  # the profile says nothing of it
    slurm(sbatch=f'env > "$BED/env"; {ACCEPT}')
    values = {**backend._values, "time": "00:10:00", "account": "nlp"}
    await backend.submit(backend.render(make_plan(executor="slurm", profile_values=values)))
    had = Path(os.environ["BED"], "env").read_text().splitlines()
    assert [line for line in had if line.startswith("SBATCH_")] == ["SBATCH_QOS=of-mine"]


async def test_nothing_of_the_job_that_one_launches_from_reaches_the_new_one(
    slurm: Say, backend: SlurmBackend, submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "9")
    monkeypatch.setenv("SLURM_CONF", "/c")
    slurm(sbatch=f'env > "$BED/env"; {ACCEPT}')
    await backend.submit(submission)
    had = Path(os.environ["BED"], "env").read_text().splitlines()
    assert [line for line in had if line.startswith("SLURM_")] == ["SLURM_CONF=/c"]


async def test_an_input_that_has_changed_since_the_preview_is_not_sent(
    slurm: Say, backend: SlurmBackend, make_plan: PlanMaker, root: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    plan = make_plan(
        executor="slurm",
        profile_values={**backend._values, "time": "00:10:00"},
        config={"dataset": {"path_or_dataset_id": str(rows)}},
        inputs=(local_input(rows),),
    )
    submission = backend.render(plan)
    rows.write_text("{}\n{}\n")
    with pytest.raises(UsageError, match="has changed since"):
        await backend.submit(submission)
    assert not Path(os.environ["BED"], "jobs").exists()
    assert list((root / ".tunedeck" / "incoming").iterdir()) == []


async def test_what_was_cut_off_hours_ago_is_removed_and_what_another_sends_now_is_not(
    slurm: Say, backend: SlurmBackend, submission: Submission, root: Path
) -> None:
    drafts = root / ".tunedeck" / "incoming"
    for name in ("left", "young"):
        draft = drafts / f"{submission.run_id}-{name}"
        (draft / "run").mkdir(parents=True)
        (draft / "run" / "secrets.sh").write_text("export HF_TOKEN=secret\n")
    hours_ago = time.time() - 3 * 3600
    os.utime(drafts / f"{submission.run_id}-left", (hours_ago, hours_ago))
    await backend.submit(submission)
    assert [draft.name for draft in drafts.iterdir()] == [f"{submission.run_id}-young"]


async def test_where_the_queue_cannot_be_asked_no_run_is_said_to_have_no_job(
    slurm: Say, backend: SlurmBackend, submission: Submission, root: Path
) -> None:
    (root / submission.run_id).mkdir(parents=True)
    slurm(squeue="echo 'squeue: fatal: no memory' >&2; exit 1")
    with pytest.raises(TunedeckError, match="no memory"):
        await backend.find(submission.run_id, Path("/none"))


async def asked(backend: SlurmBackend, root: Path, job: str = "7") -> Status:
    return await backend.status(Handle("run", job, {"run_dir": str(root / "run")}))


async def test_a_job_that_nobody_knows_any_more_is_lost(
    slurm: Say, backend: SlurmBackend, root: Path
) -> None:
    assert (await asked(backend, root)).state is RunState.LOST
    slurm(sacct="exit 127", scontrol="echo 'bash: scontrol: command not found' >&2; exit 127")
    assert (await asked(backend, root)).state is RunState.LOST


@pytest.mark.parametrize(
    "commands",
    [
        {"sacct": "echo 'sacct: error: Problem talking to the database: refused'; exit 1"},
        {"sacct": "exit 124"},
        {"scontrol": "echo 'scontrol: error: something new'; exit 1"},
        {"scontrol": "kill -9 0"},
    ],
    ids=["accounting is down", "accounting is slow", "an unknown refusal", "the shell was killed"],
)
async def test_a_job_is_not_lost_because_someone_could_not_be_asked(
    slurm: Say, backend: SlurmBackend, root: Path, commands: dict[str, str]
) -> None:
    slurm(**commands)
    with pytest.raises(ReachError):
        await asked(backend, root)
    (root / "run").mkdir(parents=True)
    word = '{"exit_code": 0, "started_at": 1, "ended_at": 2, "terminated": 0, "lost": ""}'
    (root / "run" / "exit.json").write_text(word)
    if "kill" not in str(commands):
        assert (await asked(backend, root)).state is RunState.SUCCEEDED


async def test_a_run_whose_folder_was_removed_over_there_says_so(
    slurm: Say, backend: SlurmBackend, root: Path
) -> None:
    with pytest.raises(NotFoundError, match="is not on this machine any more"):
        await backend.files(Handle("run", "7", {"run_dir": str(root / "run")}))


async def test_a_queue_is_shown_whatever_people_call_their_jobs(
    slurm: Say, backend: SlurmBackend
) -> None:
    slurm(
        sinfo=r"""case "$*" in
          *Gres*) printf 'gpu*|n1|idle|gpu:a100:4(S:0-1)|gpu:a100:1(IDX:0)|\n' ;;
          *) printf 'P|gpu|up|1-00:00:00|2|1/1/0/2|gpu:a100:4|64+|515000+\nP|odd\n' ;;
        esac""",
        squeue=r"""case "$*" in
          *J*) printf 'J|7|gpu|RUNNING|None|5|1:00|2:00|1|a|b größe\n' ;;
          *) printf 'W|gpu|PENDING\n' ;;
        esac""",
    )
    found = await backend.inventory({})
    assert [(job["name"], job["nodes"]) for job in found["jobs"]] == [("a|b größe", 1)]
    (partition,) = found["partitions"]
    known = ("gpus", "gpus_free", "idle_nodes", "cpus_per_node", "pending")
    assert [partition[key] for key in known] == [4, 3, 1, 64, 1]
