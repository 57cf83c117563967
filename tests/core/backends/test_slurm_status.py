from __future__ import annotations

import json
from typing import Any

import pytest

from tunedeck.core.backends.slurm.question import Seen, answers, question
from tunedeck.core.backends.slurm.status import judge
from tunedeck.core.errors import ReachError
from tunedeck.core.states import RunState


def word(code: int, *, terminated: int = 0, lost: str = "") -> str:
    last: dict[str, Any] = {
        "exit_code": code,
        "started_at": 1,
        "ended_at": 2,
        "terminated": terminated,
    }
    last |= {"lost": lost} if lost else {}
    return "X|7|" + json.dumps(last)


def told(*lines: str) -> Any:
    return judge(answers("\n".join(lines), ["7"])["7"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING", RunState.QUEUED),
        ("REQUEUED", RunState.QUEUED),
        ("SPECIAL_EXIT", RunState.QUEUED),
        ("CONFIGURING", RunState.STARTING),
        ("RUNNING", RunState.RUNNING),
        ("SUSPENDED", RunState.RUNNING),
        ("COMPLETING", RunState.STOPPING),
        ("COMPLETED", RunState.SUCCEEDED),
        ("FAILED", RunState.FAILED),
        ("TIMEOUT", RunState.FAILED),
        ("OUT_OF_MEMORY", RunState.FAILED),
        ("NODE_FAIL", RunState.FAILED),
        ("BOOT_FAIL", RunState.FAILED),
        ("CANCELLED", RunState.CANCELLED),
        ("PREEMPTED", RunState.PREEMPTED),
    ],
)
def test_every_word_of_slurm_has_its_state(state: str, expected: RunState) -> None:
    assert told(f"Q|7|{state}|None|100|200").state is expected


def test_failures_are_told_apart_by_their_reason() -> None:
    reasons = {
        told(f"Q|7|{state}|None|100|200").reason
        for state in ("TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE")
    }
    assert len(reasons) == 5
    assert all(reasons)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "next to get nodes once some are free (Resources)"),
        ("JobHeldUser", "scontrol release JOB lets it go (JobHeldUser)"),
        ("DependencyNeverSatisfied", "it will never start (DependencyNeverSatisfied)"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "(ReqNodeNotAvail, UnavailableNodes:n1)"),
        ("QOSMaxJobsPerUserLimit", "its QOS keeps it back (QOSMaxJobsPerUserLimit)"),
        ("AssocGrpGRES", "its account keeps it back (AssocGrpGRES)"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_why_a_job_waits_is_told_in_words(reason: str, words: str) -> None:
    status = told(f"Q|7|PENDING|{reason}|N/A|N/A")
    assert status.reason.endswith(words)
    assert status.started_at is None


def test_a_job_that_stands_still_says_so() -> None:
    assert "suspended" in told("Q|7|SUSPENDED|None|100|200").reason


def test_what_a_cancelled_job_was_waiting_for_does_not_count_as_why_it_was() -> None:
    assert told("Q|7|CANCELLED|JobHeldUser|N/A|200").reason == ""
    assert "never start" in told("Q|7|CANCELLED|DependencyNeverSatisfied|N/A|200").reason


def test_scontrol_answers_where_squeue_does_not() -> None:
    line = "C|JobId=7 JobState=FAILED Reason=NonZeroExitCode ExitCode=9:0 StartTime=5 EndTime=8"
    status = told(line)
    assert (status.state, status.exit_code, status.ended_at) == (RunState.FAILED, 9, 8.0)


def test_sacct_answers_where_the_controller_has_forgotten() -> None:
    assert told("A|7|COMPLETED|0:0|5|8").state is RunState.SUCCEEDED
    cancelled = told("A|7|CANCELLED by 1000|0:15|5|8")
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, "cancelled by 1000")
    assert told("A|7|FAILED|0:9|5|8").exit_code == 137


def test_the_runs_own_last_word_answers_where_nobody_else_does() -> None:
    assert told(word(0)).state is RunState.SUCCEEDED
    assert (told(word(3)).state, told(word(3)).exit_code) == (RunState.FAILED, 3)
    assert told(word(75)).state is RunState.PREEMPTED
    assert "ended by Slurm" in told(word(1, terminated=1)).reason


def test_a_run_that_nobody_knows_is_lost_and_not_running_for_ever() -> None:
    assert told().state is RunState.LOST


def test_the_last_word_counts_while_slurm_still_cleans_up() -> None:
    assert told("Q|7|COMPLETING|None|100|200", word(0)).state is RunState.SUCCEEDED
    cut = told("Q|7|COMPLETING|None|100|200", word(1, terminated=1))
    assert cut.state is RunState.STOPPING


def test_a_bad_end_is_told_when_slurm_has_said_why_or_has_taken_too_long() -> None:
    cleaning_up = "Q|7|COMPLETING|None|100|200"
    assert told("T|5", cleaning_up, word(1)).state is RunState.STOPPING
    assert told("T|5", "Q|7|PENDING|BeginTime|N/A|N/A", word(1)).state is RunState.QUEUED
    stuck = told("T|1000", cleaning_up, word(3))
    assert (stuck.state, stuck.exit_code) == (RunState.FAILED, 3)


@pytest.mark.parametrize(
    "lines",
    [
        ["Q|7|NODE_FAIL|None|1|2", word(143, terminated=1, lost="n2")],
        ["Q|7|FAILED|None|1|2", word(233, lost="n2")],
        ["T|1000", "Q|7|COMPLETING|None|1|2", word(233, lost="n2")],
        [word(1, lost="n2")],
    ],
)
def test_a_lost_node_is_named_whatever_came_first(lines: list[str]) -> None:
    status = told(*lines)
    assert status.state is RunState.FAILED
    assert "node" in status.reason
    assert "n2" in status.reason


def test_only_what_can_be_a_signal_is_called_one() -> None:
    assert told(word(137)).reason == "killed by signal 9"
    assert told(word(233)).reason == "exit code 233"


def test_out_of_time_with_a_checkpoint_is_preempted() -> None:
    status = told("Q|7|TIMEOUT|TimeLimit|100|200", word(75, terminated=1))
    assert status.state is RunState.PREEMPTED
    assert "time limit" in status.reason


def test_an_array_goes_on_as_long_as_one_of_its_tasks_does() -> None:
    rows = ["Q|7|COMPLETED|None|1|2", "Q|7|RUNNING|None|1|2", "Q|7|PENDING|None|1|2"]
    assert told(*rows).state is RunState.RUNNING
    assert told(rows[0], "Q|7|FAILED|None|1|2").state is RunState.FAILED


def test_a_damaged_last_word_is_no_word() -> None:
    assert told("Q|7|COMPLETED|None|1|2", 'X|7|{"exit_c').state is RunState.SUCCEEDED


def test_all_jobs_of_a_host_are_one_question() -> None:
    script = question({"1": "/a b/r1", "2": "/a b/r2"})
    assert script.count("squeue ") == 1
    assert "'/a b/r1'" in script
    assert judge(Seen("RUNNING")).state is RunState.RUNNING


@pytest.mark.parametrize("line", ["Q|7|RUN", "A|7|COMPLETED", "Q|"])
def test_a_line_of_another_form_says_neither_that_a_job_goes_on_nor_that_it_is_lost(
    line: str,
) -> None:
    with pytest.raises(ReachError, match="makes no sense"):
        told(line)
    assert told(line, word(0)).state is RunState.SUCCEEDED
