"""`tunedeck chat`: the same prompts for the base and for what a run made of it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core import locations
from tunedeck.core.catalog import requirements
from tunedeck.core.cli.main import run
from tunedeck.core.plan import Plan
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState
from tunedeck.core.text import strip_controls

BASE = locations.assets_dir() / "base"
TUNEDECK = (sys.executable, "-c", "from tunedeck.core.cli.main import main; main()")
# PEFT asks for a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

QUESTION = "What is 27 + 45?"


@pytest.fixture
def add(make_plan: Callable[..., Plan], registry: Registry) -> Callable[..., RunRecord]:
    def add(state: RunState = RunState.SUCCEEDED, **config: Any) -> RunRecord:
        model = {"pretrained_model_name_or_path": str(BASE)}
        plan = make_plan(config={"model": model, **config}, profile_values={})
        plan.run_dir.mkdir(parents=True)
        record = replace(RunRecord.of(plan, forced=False), state=state)
        registry.add(record)
        return record

    return add


def tunedeck(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TUNEDECK, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def publish(folder: Path, link: str, save: Callable[[Path], None]) -> None:
    folder.mkdir(parents=True)
    save(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(BASE / name, folder)
    (folder.parent / link).symlink_to(folder.name)


def random_adapter(folder: Path) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    adapter = peft.get_peft_model(
        model,
        peft.LoraConfig(
            task_type="CAUSAL_LM",
            target_modules="all-linear",
            lora_alpha=200,
            init_lora_weights=False,
        ),
    )
    adapter.save_pretrained(str(folder))


def expected(question: str, adapter: Path | None = None) -> str:
    """What transformers and PEFT say themselves."""
    import peft
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    model: Any = AutoModelForCausalLM.from_pretrained(BASE)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, str(adapter))
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    )
    out = model.generate(**ids, max_new_tokens=24, do_sample=False)
    answer = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(answer).strip()


@pytest.mark.slow
def test_the_base_and_the_best_adapter_answer_as_they_do_elsewhere(
    add: Callable[..., RunRecord],
) -> None:
    record = add()
    checkpoint = record.run_dir / "checkpoints" / "step_000020"
    publish(checkpoint, "best", random_adapter)

    done = tunedeck("chat", record.run_id, "--prompt", QUESTION, "--json", "--max-new-tokens=24")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["run_id"], document["step"]) == (record.run_id, 20)
    assert document["answers"] == [
        {
            "prompt": QUESTION,
            "base": expected(QUESTION),
            "tuned": expected(QUESTION, checkpoint),
        }
    ]
    assert document["answers"][0]["base"] != document["answers"][0]["tuned"]


@pytest.mark.slow
def test_a_fully_tuned_model_is_asked_beside_its_base_line_by_line(
    add: Callable[..., RunRecord],
) -> None:
    record = add()

    def save(folder: Path) -> None:
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(BASE / name, folder)

    publish(record.run_dir / "checkpoints" / "step_000007", "latest", save)

    done = tunedeck("chat", record.name, stdin=f"{QUESTION}\n\n2 + 2\n")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[::2] == ["asked: ", "base: ", "tuned model, step 7: "] * 2
    assert lines[1] == f"  {QUESTION}"
    assert lines[3] == lines[5] != "  "


@pytest.mark.slow
def test_on_a_terminal_one_asks_until_ctrl_d_and_sees_answers_side_by_side(
    add: Callable[..., RunRecord],
) -> None:
    record = add()
    publish(record.run_dir / "checkpoints" / "step_000020", "best", random_adapter)
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    seen = ""
    with subprocess.Popen(
        [*TUNEDECK, "chat", record.run_id, "--max-new-tokens=8"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "NO_COLOR": "1"},
    ) as process:
        os.close(slave)
        os.write(master, f"{QUESTION}\n\x04".encode())
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while part := os.read(master, 4096):
                seen += part.decode()
    os.close(master)

    assert process.returncode == 0, seen
    assert re.search(r"^ *base +adapter, step 20", strip_controls(seen), re.M), seen


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_loaded_is_an_error_in_words(
    add: Callable[..., RunRecord],
) -> None:
    record = add()

    def without_weights(folder: Path) -> None:
        shutil.copy(BASE / "config.json", folder)

    publish(record.run_dir / "checkpoints" / "step_000007", "latest", without_weights)

    done = tunedeck("chat", record.run_id, "--prompt", QUESTION)

    assert done.returncode == 2
    assert "step_000007' cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_is_not_there_is_not_found(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["chat", "nothing"]) == 102
    assert "tunedeck runs list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "message", "remedy"),
    [
        (RunState.RUNNING, "has saved no checkpoint yet", "runs logs -f"),
        (RunState.FAILED, "has left no adapter", "runs show"),
    ],
)
def test_a_run_without_a_checkpoint_says_what_to_do(
    add: Callable[..., RunRecord],
    capsys: pytest.CaptureFixture[str],
    state: RunState,
    message: str,
    remedy: str,
) -> None:
    assert run(["chat", add(state).run_id]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert remedy in said


def test_a_machine_without_torch_says_how_to_get_it(
    add: Callable[..., RunRecord],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = add()
    publish(record.run_dir / "checkpoints" / "step_000001", "best", lambda folder: None)
    monkeypatch.setattr(requirements, "missing_of_extra", lambda extra: ["torch"])

    assert run(["chat", record.run_id, "--prompt", QUESTION]) == 2

    said = capsys.readouterr().err
    assert "torch" in said
    assert "pip install 'tunedeck[train]'" in said
