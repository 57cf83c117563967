"""Faults on several ranks: all of them end, and what is needed to understand or go on is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tunedeck.core.errors import TunedeckError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.reporting.diff import compare
from tunedeck.trainer.reporting.digests import weights_digest
from tunedeck.trainer.reporting.ledger import read_ledger

from ..helpers import losses
from ..test_nonfinite import bad_rows, poisoned
from .runs import Run, train_here
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
__all__ = ["bad_rows", "poisoned"]

STEPS = {"global_batch_size": 4, "local_batch_size": 2}


def fail_here(config: TrainConfig, folder: Path) -> str:
    """Train, and return the words that it ends with."""
    try:
        train_here(config, folder)
    except TunedeckError as error:
        return error.message
    return ""


@pytest.mark.parametrize("peft", [{"dim": 4, "dropout": 0.1}, None], ids=["lora", "full"])
@pytest.mark.parametrize(
    "mesh",
    [
        {},
        {"cp_size": 2},
        {"tp_size": 2},
        {"tp_size": 2, "sequence_parallel": True},
        {"strategy": "ddp"},
    ],
    ids=str,
)
def test_a_step_that_is_not_finite_ends_all_ranks_and_is_repeated_on_one(
    mesh: dict[str, Any],
    peft: dict[str, Any] | None,
    workers: Workers,
    configure: Callable[..., TrainConfig],
    poisoned: Path,
    bad_rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(
        model={"pretrained_model_name_or_path": str(poisoned)},
        dataset={"path_or_dataset_id": str(bad_rows)},
        dataloader={"shuffle": False},
        peft=peft,
        step_scheduler=STEPS,
        distributed=mesh,
    )
    said = workers.run(2, fail_here, config, tmp_path)
    assert all("Step 3 is not finite: loss nan" in message for message in said)
    assert f"{bad_rows.name}:11" in said[0]
    folder = tmp_path / "nonfinite_step_000003"
    assert main(["replay-step", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    # Ranks that share a sequence or a matrix have the same rows, which are kept once.
    shared = "tp_size" in mesh or "cp_size" in mesh
    assert sorted({part["rank"] for part in found["parts"]}) == ([0] if shared else [0, 1])
    (bad,) = [part for part in found["parts"] if part["loss"] is None]
    assert 10 in bad["rows"]
    assert len(found["places"]) == 4


def fail_apart(config: TrainConfig, folder: Path, there: dict[str, Any]) -> str:
    """Train, with another config on the second rank, and return the words that it ends with."""
    if os.environ["RANK"] == "1":
        values = config.model_dump(mode="json")
        for table, changed in there.items():
            values[table] |= changed
        config = TrainConfig.model_validate(values)
    return fail_here(config, folder)


def test_ranks_that_were_not_started_alike_all_say_so(
    workers: Workers, configure: Callable[..., TrainConfig], chat_file: Path, tmp_path: Path
) -> None:
    config = configure(step_scheduler={**STEPS, "max_steps": 2})
    stale, moved = tmp_path / "stale.jsonl", tmp_path / "moved.jsonl"
    lines = chat_file.read_text().splitlines(keepends=True)
    stale.write_text("".join(lines[:-1]))
    moved.write_text("".join(lines))
    apart: list[tuple[dict[str, Any], str]] = [
        ({"optimizer": {"lr": 0.5}}, "optimizer.lr is 0.5 there"),
        ({"step_scheduler": {"global_batch_size": 8}}, "global_batch_size is 8 there and 4 on"),
        ({"step_scheduler": {"max_steps": 9}}, "step_scheduler.max_steps is 9 there and 2 on"),
        ({"distributed": {"tp_size": 2}}, "distributed.tp_size is 2 there and 1 on"),
        ({"dataset": {"path_or_dataset_id": str(stale)}}, "something else under dataset.path"),
        ({"dataset": {"path_or_dataset_id": str(moved)}}, ""),
    ]
    for there, words in apart:
        said = workers.run(2, fail_apart, config, tmp_path / "run", there)
        assert said[0] == said[1]
        assert words in said[0] and bool(words) == bool(said[0]), said


def digest_of_pieces(seed: int) -> tuple[str, bool]:
    """The digest of tensors that lie in pieces on two ranks, and whether a copy has its piece."""
    from torch import distributed as dist
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    from tunedeck.trainer.setup import setup_reference_model_state

    dist.init_process_group("gloo")
    try:
        mesh = init_device_mesh("cpu", (2,))
        a, b, c = _tensors(seed)
        pieces = [
            ("a", distribute_tensor(a, mesh, [Shard(0)])),
            ("b", distribute_tensor(b, mesh, [Replicate()])),
            ("c", c),
        ]
        holder = nn.Module()
        holder.a = nn.Parameter(pieces[0][1])
        copy = setup_reference_model_state(holder)["a"]
        mine = a.chunk(2)[dist.get_rank()]
        return weights_digest(pieces), torch.equal(copy, mine)
    finally:
        dist.destroy_process_group()


def _tensors(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(5, 3), torch.randn(4).to(torch.bfloat16), torch.randn(2, 2)]


def test_weights_in_pieces_have_the_digest_of_the_whole(workers: Workers) -> None:
    found = workers.run(2, digest_of_pieces, 1)
    whole = weights_digest(zip("abc", _tensors(1), strict=True))
    assert found == [(whole, True)] * 2
    assert workers.run(2, digest_of_pieces, 2)[0][0] != whole


def test_ranks_keep_the_ledger_of_one_process(trained: Callable[..., Run]) -> None:
    tables: dict[str, Any] = {"peft": {"dim": 4}, "step_scheduler": STEPS}
    alone, two = trained(1, **tables), trained(2, **tables)
    found = compare(read_ledger(alone.folder), read_ledger(two.folder), tolerance=1e-3)
    assert found.parting is None
    assert found.compared == 4


RUNS_OUT = """
import os, sys
import torch
from tunedeck.trainer import sft
from tunedeck.trainer.__main__ import main

original = sft.setup_model_and_optimizer

def hook(module, inputs):
    if os.environ["RANK"] == "1" and inputs[0].numel() // inputs[0].shape[-1] > 75:
        raise torch.OutOfMemoryError("CUDA out of memory.")

def setup(*args, **options):
    state = original(*args, **options)
    state.model.model.layers[1].register_forward_pre_hook(hook)
    return state

sft.setup_model_and_optimizer = setup
sys.exit(main(["sft", "--config", sys.argv[1]]))
"""


def test_a_rank_without_memory_has_the_run_started_again_with_smaller_micro_batches(
    configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    script, file, exit_file = (tmp_path / name for name in ("run.py", "config.yaml", "exit"))
    script.write_text(RUNS_OUT)
    tables: dict[str, Any] = {"peft": {"dim": 4}, "step_scheduler": {**STEPS, "max_steps": 2}}
    file.write_text(yaml.safe_dump(json.loads(configure(**tables).model_dump_json())))
    codes, printed = [], ""
    for _ in range(3):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", "2", str(script), str(file)),
            ],
            env={
                **os.environ,
                **{"TUNEDECK_RUN_DIR": str(tmp_path), "TUNEDECK_EXIT_FILE": str(exit_file)},
                **{"TUNEDECK_RUN_ID": "r1", "OMP_NUM_THREADS": "1"},
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        codes.append(int(exit_file.read_text()))
        printed = done.stdout
        if codes[-1] == 0:
            break
        assert "memory ran out in step" in done.stderr
    assert codes == [75, 0]
    assert "micro-batches of 1 row, as memory ran out before" in printed
    assert len(losses(printed)) == 2
