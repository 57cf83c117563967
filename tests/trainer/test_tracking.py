from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck import __version__
from tunedeck.core.code_digest import code_digest
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.reporting.tracking import recorded_config

Configure = Callable[..., TrainConfig]


def test_a_recorded_config_shows_no_secret_wherever_it_stands(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "s3cr3t-value")
    config = configure(
        tokenizer={"chat_template_kwargs": {"api_key": "hidden", "mode": "s3cr3t-value/x"}},
        wandb={"tags": ["s3cr3t-value", "plain"]},
        run={"env": {"env_vars": {"MY_TOKEN": "hush-hush"}}},
    )
    recorded = recorded_config(config)
    text = json.dumps(recorded)
    assert not any(secret in text for secret in ("s3cr3t-value", "hidden", "hush-hush"))
    assert recorded["wandb"]["tags"][1] == "plain"
    assert recorded["optimizer"]["lr"] == 1e-2
    assert recorded["model"]["pretrained_model_name_or_path"].endswith("llama0")


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of a file of W&B's: LevelDB's log format, after a header of seven bytes."""
    block, at, record = 32768, 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<4xHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last piece
            yield record
            record = b""


@pytest.mark.slow
def test_a_run_is_recorded_with_its_name_its_code_and_its_metrics(
    configure: Configure, tmp_path: Path
) -> None:
    from wandb.proto import wandb_internal_pb2

    config = configure(wandb={"mode": "offline", "project": "p", "tags": ["one"]})
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    told = {"TUNEDECK_RUN_NAME": "first-try", "TUNEDECK_RUN_ID": "r123", "WANDB_API_KEY": "k" * 40}
    subprocess.run(
        [sys.executable, "-m", "tunedeck.trainer", "sft", "--config", str(file)],
        env={**os.environ, "HOME": str(tmp_path), "TUNEDECK_RUN_DIR": str(tmp_path), **told},
        capture_output=True,
        timeout=200,
        check=True,
    )
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    messages: Any = wandb_internal_pb2
    records = [messages.Record.FromString(data) for data in records_of(path.read_bytes())]
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (run.display_name, run.project, list(run.tags)) == ("first-try", "p", ["one"])
    values = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert values["tunedeck"] == {
        "version": __version__,
        "code": code_digest(),
        "run_id": "r123",
        "run_name": "first-try",
    }
    assert values["optimizer"]["lr"] == 1e-2
    lines = [
        {item.key or item.nested_key[0]: item.value_json for item in r.history.item}
        for r in records
        if r.WhichOneof("record_type") == "history"
    ]
    logged = [line for line in lines if "loss" in line]
    assert len(logged) == 4
    assert {"grad_norm", "lr", "tokens_per_s", "supervised_tokens_per_s", "padding"} <= set(
        logged[0]
    )
    assert b"k" * 40 not in path.read_bytes()
