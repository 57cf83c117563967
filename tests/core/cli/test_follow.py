from __future__ import annotations

import asyncio
import json
import os
import pickle
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.cli import follow
from tunedeck.core.errors import AuthenticationError
from tunedeck.core.launch import cancel, launch
from tunedeck.core.plan import Plan
from tunedeck.core.process import processes_of
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import look
from tunedeck.core.states import RunState, Status

MakePlan = Callable[..., Plan]
LIMIT_S = 60.0

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
TRAINS = """
    import json, os, time
    print("tunedeck: total_steps=5 world_size=1", flush=True)
    print('sample step=0 prompt="2 + 2?" answer="fish"', flush=True)
    for step in range(1, 6):
        print(f"step={step} loss={6 - step} tokens_per_s=1000", flush=True)
        time.sleep(0.15)
    print("\\x1b]0;evil\\x07a log line")
    print('sample step=5 prompt="2 + 2?" answer="4"')
    result = {"kind": "adapter", "checkpoint": "/c/step_5", "base": "/b",
              "first_val_loss": 2.0, "val_loss": 0.5}
    json.dump(result, open(os.environ["TUNEDECK_RUN_DIR"] + "/result.json", "w"))
"""
DRIVER = """
import asyncio, pickle, sys
from tunedeck.core.backends.base import load_backend
from tunedeck.core.cli import follow
from tunedeck.core.cli.follow import follow_run
from tunedeck.core.launch import launch
from tunedeck.core.runs.registry import Registry
if "--patient" in sys.argv:
    follow._SECOND_THOUGHT_S = 60.0
plan = pickle.load(open(sys.argv[1], "rb"))
backend = load_backend("local", dict(plan.profile_values))
record = asyncio.run(launch(plan, backend.render(plan), backend, Registry()))
sys.exit(follow_run(record, Registry(), as_json="--json" in sys.argv))
"""

Attach = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Launch a plan attached, in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def attach(plan: Plan, *args: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
        pickled = tmp_path / plan.run_id
        pickled.write_bytes(pickle.dumps(plan))
        output = subprocess.PIPE if terminal is None else terminal
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(pickled), *args],
            stdin=terminal,
            stdout=output,
            stderr=output,
        )
        started.append(process)
        return process

    yield attach
    for process in started:
        process.kill()
        process.communicate()


def read_until(stream: IO[bytes] | None, word: bytes) -> bytes:
    assert stream is not None
    seen = b""
    deadline = time.monotonic() + LIMIT_S
    while word not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([stream], [], [], 0.1)[0]:
            piece = os.read(stream.fileno(), 65536)
            assert piece, seen
            seen += piece
    return seen


def state_of(plan: Plan) -> RunState:
    return Registry().get(plan.run_id).state


class TestPlain:
    def test_a_run_that_goes_well(self, make_plan: MakePlan, attach: Attach) -> None:
        plan = make_plan(TRAINS)
        out, err = attach(plan).communicate(timeout=LIMIT_S)
        lines = out.decode().splitlines()
        assert "step=3 loss=3 tokens_per_s=1000" in lines
        assert "a log line" in lines
        assert b"\x1b" not in out + err
        text = out.decode()
        assert f"✓ {plan.run_id} (test) succeeded" in text
        assert "validation loss 2 → 0.5 (-75%)" in text
        assert "before  fish" in text
        assert "after   4" in text
        assert "adapter /c/step_5" in text
        assert f"tunedeck chat {plan.run_id}" in text
        assert f"tunedeck steps run convert/merge_lora --from {plan.run_id}" in text

    def test_a_run_that_fails(self, make_plan: MakePlan, attach: Attach) -> None:
        plan = make_plan("raise OSError(28, 'No space left on device')")
        process = attach(plan)
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 100
        assert b"Traceback" in out  # the trainer's own log, as it is
        assert b"disk full" in err
        assert b"No space left on device" in err
        assert f"tunedeck runs logs {plan.run_id}".encode() in err

    def test_json_is_one_document_at_the_end(self, make_plan: MakePlan, attach: Attach) -> None:
        plan = make_plan("print('hello'); raise SystemExit(7)")
        process = attach(plan, "--json")
        out, err = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 100
        document = json.loads(out)
        assert document["run_id"] == plan.run_id
        assert (document["state"], document["exit_code"]) == ("failed", 7)
        assert document["backend"] == "local"
        assert document["job_id"]
        assert b"hello" in err


class TestSignals:
    def test_ctrl_c_says_what_goes_on_and_leaves_it(
        self, make_plan: MakePlan, attach: Attach
    ) -> None:
        plan = make_plan(SLEEPER)
        process = attach(plan)
        read_until(process.stdout, b"up")
        process.send_signal(signal.SIGINT)
        said = read_until(process.stderr, b"Ctrl-C again")
        assert f"tunedeck runs logs -f {plan.run_id}".encode() in said
        assert f"tunedeck runs cancel {plan.run_id}".encode() in said
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130
        assert state_of(plan) is RunState.RUNNING
        assert processes_of(plan.run_id, None)

    def test_a_second_ctrl_c_cancels(self, make_plan: MakePlan, attach: Attach) -> None:
        plan = make_plan(SLEEPER)
        process = attach(plan, "--patient")
        read_until(process.stdout, b"up")
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 103
        assert state_of(plan) is RunState.CANCELLED
        assert processes_of(plan.run_id, None) == []

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_other_signals_leave_the_run_alone(
        self, number: signal.Signals, make_plan: MakePlan, attach: Attach
    ) -> None:
        plan = make_plan(SLEEPER)
        process = attach(plan)
        read_until(process.stdout, b"up")
        process.send_signal(number)
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 128 + number
        assert state_of(plan) is RunState.RUNNING

    def test_killed_it_leaves_the_run_alone(self, make_plan: MakePlan, attach: Attach) -> None:
        plan = make_plan(SLEEPER)
        process = attach(plan)
        read_until(process.stdout, b"up")
        process.kill()
        process.wait(LIMIT_S)
        assert processes_of(plan.run_id, None)


class TestTerminal:
    @pytest.fixture(autouse=True)
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")

    def shown(self, plan: Plan, attach: Attach) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = attach(plan, terminal=theirs)
        os.close(theirs)
        seen = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not piece:
                break
            seen += piece
        os.close(ours)
        return process.wait(LIMIT_S), seen.decode()

    def test_a_bar_a_curve_and_log_lines_above(self, make_plan: MakePlan, attach: Attach) -> None:
        code, seen = self.shown(make_plan(TRAINS), attach)
        assert code == 0
        assert "━" in seen
        assert "/5" in seen
        assert "loss █" in seen
        assert "a log line" in seen
        assert "evil" not in seen
        assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor is there again

    def test_no_color_takes_the_color_and_nothing_else(
        self, make_plan: MakePlan, attach: Attach, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        _, seen = self.shown(make_plan(TRAINS), attach)
        assert "✓" in seen
        assert "\x1b[32m" not in seen
        assert "\x1b[38;" not in seen

    def test_a_dumb_terminal_gets_plain_lines(
        self, make_plan: MakePlan, attach: Attach, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TERM", "dumb")
        _, seen = self.shown(make_plan(TRAINS), attach)
        assert "\x1b" not in seen


def test_a_place_that_refuses_to_tell_leaves_the_run_alone_and_says_how_to_come_back(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Forgetful(LocalBackend):
        async def status(self, handle: Handle) -> Status:
            raise AuthenticationError("The token has run out.")

    plan = make_plan(SLEEPER)
    backend, registry = LocalBackend(dict(plan.profile_values)), Registry()
    record = asyncio.run(launch(plan, backend.render(plan), backend, registry))
    monkeypatch.setattr(follow, "backend_of", lambda _: Forgetful(dict(plan.profile_values)))
    with pytest.raises(AuthenticationError):
        follow.follow_run(record, registry)
    assert f"tunedeck runs logs -f {plan.run_id}" in capsys.readouterr().err
    assert not asyncio.run(look(record, backend, registry)).state.terminal
    assert asyncio.run(cancel(record, backend, registry)).state is RunState.CANCELLED


def test_a_run_that_waits_says_why_also_where_nothing_changes(
    make_plan: MakePlan, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on = tmp_path / "go_on"
    plan = make_plan(f"""
        import pathlib, time
        while not pathlib.Path({str(go_on)!r}).exists():
            time.sleep(0.02)
    """)
    backend = LocalBackend(dict(plan.profile_values))
    asyncio.run(launch(plan, backend.render(plan), backend, registry))
    record = registry.update(plan.run_id, Status(RunState.QUEUED, "PENDING", "it is held"))
    go_on.touch()
    follow.follow_run(record, registry)
    assert f"{plan.run_id} (test): queued, it is held" in capsys.readouterr().err
