from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tunedeck.core.runs.diagnose import diagnose


@dataclass(frozen=True)
class Known:
    name: str
    recovery: str
    pattern: str | None = None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB", "CUDA out of"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory", "machine's"),
        ("OSError: [Errno 28] No space left on device", "disk full"),
        ("tunedeck: error: non-finite loss in batch 17", "not finite"),
        ("step=3 loss=nan grad_norm=1.0", "not finite"),
        ("wandb: ERROR api_key not configured (no-tty). call wandb.login(key=...)", "W&B"),
        ("GatedRepoError: 403 Client Error. Cannot access gated repo for url", "gated"),
        ("requests.HTTPError: 401 Client Error: Unauthorized for url", "token"),
        ("RuntimeError: server socket has failed: EADDRINUSE, Address already in use", "port"),
        ("RuntimeError: No CUDA GPUs are available", "CUDA not available"),
        ("RuntimeError: The NVIDIA driver on your system is too old", "driver"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "import"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'x.jsonl'", "no such file"),
        ("KeyError: 'messages'", "missing key"),
        ("Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)", "NCCL"),
        ("bash: line 1: nosuchprogram: command not found", "command not found"),
    ],
)
def test_each_cause_is_found_with_its_line_and_advice(line: str, words: str) -> None:
    log = f"loading\n{line}\nsome line after it\ntunedeck: exit=1\n"
    found = diagnose(log, exit_code=1, reason="exit code 1")
    assert words in found.cause
    assert found.evidence == line
    assert found.advice


def test_real_failures_of_python_are_told_apart() -> None:
    def fails(code: str) -> str:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return diagnose(done.stderr, exit_code=done.returncode).cause

    assert fails("import no_such_package") == "import error: a Python package is missing or broken"
    assert fails("open('/nonexistent')") == "no such file or directory"
    assert fails(f"raise OSError({errno.ENOSPC}, {os.strerror(errno.ENOSPC)!r})") == "disk full"
    assert fails("x = [0] * (1 << 62)").startswith("out of memory")
    assert fails("1 / 0") == "the program ended with a ZeroDivisionError"


def test_a_cause_comes_before_its_consequences() -> None:
    log = "CUDA out of memory\nNCCL error: remote process exited\nConnection closed by peer\n"
    assert "CUDA out of memory" in diagnose(log).cause


def test_the_trainers_own_word_counts_most() -> None:
    log = (
        "warning: Max retries exceeded, trying the cache\n"
        "tunedeck: error: row 7 of a.jsonl has no assistant turn\n"
        "tunedeck: fix: Remove the row.\n"
    )
    found = diagnose(log, exit_code=2)
    assert found.cause == "row 7 of a.jsonl has no assistant turn"
    assert found.advice == ("Remove the row.",)


def test_the_steps_advice_comes_in_place_of_ours() -> None:
    known = [
        Known("out_of_memory", "Use a smaller batch.", "OutOfMemoryError"),
        Known("disk_full", "Free some room.", "No space left"),
    ]
    found = diagnose("torch.OutOfMemoryError: CUDA out of memory", step_errors=known)
    assert found.advice == ("Use a smaller batch.",)
    assert "CUDA" in found.cause


def test_a_step_error_without_a_pattern_is_matched_by_its_name() -> None:
    known = [Known("CUDA out of memory", "Shrink it."), Known("Tokenizer mismatch", "No.")]
    assert diagnose("CUDA out of memory", step_errors=known).advice == ("Shrink it.",)


def test_a_failure_that_only_the_step_knows_is_called_by_its_name() -> None:
    known = [Known("base_mismatch", "Merge into its own base.", "size mismatch for")]
    found = diagnose("x\nsize mismatch for lm_head\ny", exit_code=1, step_errors=known)
    assert (found.cause, found.evidence) == ("base mismatch", "size mismatch for lm_head")
    assert found.advice == ("Merge into its own base.",)


def test_a_signal_is_told_by_the_backend() -> None:
    found = diagnose("step=1 loss=2\ntunedeck: exit=137\n", exit_code=137, reason="killed by 9")
    assert found.cause == "killed by 9"
    assert found.evidence == "step=1 loss=2"
    assert "memory" in found.advice[0]


ECHOES = """\
step=3 loss=1.5
RuntimeError: [gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:4711
tunedeck: error: another process of the run ended
tunedeck: rank 1 ended first, with signal 9
srun: error: n2: task 1: Exited with exit code 1
tunedeck: exit=1
"""


def test_a_rank_that_was_killed_is_the_cause_and_not_those_that_waited_for_it() -> None:
    found = diagnose(ECHOES, exit_code=1)
    assert found.cause == "rank 1 was ended by signal 9"
    assert "memory" in found.advice[0]
    told = diagnose(
        ECHOES.replace("step=3", "slurmstepd: error: Detected 1 oom_kill event\nstep=3")
    )
    assert told.cause.startswith("out of memory")


def test_an_empty_log_still_has_a_cause() -> None:
    assert diagnose("", exit_code=3).cause == "exit code 3"
    assert diagnose("", reason="NODE_FAIL").cause == "NODE_FAIL"


def test_evidence_is_safe_to_show_and_short() -> None:
    found = diagnose("\x1b]0;title\x07\x1b[31mOSError: No space left on device" + "x" * 5000)
    assert found.evidence.startswith("OSError: No space left")
    assert "\x1b" not in found.evidence
    assert len(found.evidence) <= 300
