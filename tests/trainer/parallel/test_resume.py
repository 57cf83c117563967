from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.checkpoints.checksums import damage, read_sums

from .runs import LOSS, WEIGHT, Run, pytest_approx, train_here
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Trained = Callable[..., Run]
STEPS = {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 7, "ckpt_every_steps": 4}
FULL: dict[str, Any] = {"step_scheduler": STEPS, "lr_scheduler": {"lr_decay_style": "cosine"}}
LORA: dict[str, Any] = {**FULL, "peft": {"dim": 4, "alpha": 8}}
TENSOR: dict[str, Any] = {"distributed": {"tp_size": 2}}
REPLICAS: dict[str, Any] = {"distributed": {"dp_replicate_size": 2}}


def resumed(
    train: Trained, ranks: int, whole: Run, *, name: str, link: str = "step_000004", **tables: Any
) -> Run:
    """The rest of a run, from its fourth step on, in the middle of an epoch."""
    checkpoint = {"restore_from": str(whole.folder / "checkpoints" / link), "keep_last": None}
    return train(ranks, name=name, **{**tables, "checkpoint": checkpoint})


def assert_same_end(rest: Run, whole: Run) -> None:
    """The same losses from the fourth step on, and the same weights at the end."""
    expected = whole.values("loss")[-3:]
    assert rest.values("loss") == [pytest_approx(value, LOSS) for value in expected]
    assert rest.values("lr") == whole.values("lr")[-3:]
    mine, theirs = rest.weights(), whole.weights()
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, atol=WEIGHT, rtol=0, msg=name)


@pytest.mark.parametrize("tables", [FULL, LORA], ids=["full", "lora"])
def test_a_run_continues_on_another_number_of_ranks_and_another_mesh(
    tables: dict[str, Any], trained: Trained
) -> None:
    keep = {"checkpoint": {"keep_last": None}}
    alone = trained(1, **tables, **keep)
    two = trained(2, **tables, **keep)
    resumptions: list[tuple[Run, int, str, dict[str, Any]]] = [
        (alone, 2, "one_to_two", {}),
        (two, 1, "two_to_one", {}),
        (two, 4, "two_to_four", {}),
        (two, 2, "shards_to_tensor_parallel", TENSOR),
        (two, 4, "shards_to_replicas", REPLICAS),
    ]
    for whole, ranks, name, mesh in resumptions:
        rest = resumed(trained, ranks, whole, name=name, **tables, **mesh)
        assert_same_end(rest, whole)
    tensor = trained(2, name="tensor", **tables, **TENSOR, **keep)
    assert_same_end(resumed(trained, 1, tensor, name="tensor_to_one", **tables), tensor)


MESHES: list[tuple[str, int, dict[str, Any]]] = [
    ("mixtral", 2, {"ep_size": 2}),
    ("mixtral", 2, {"tp_size": 2}),
    ("mixtral", 4, {"ep_size": 2, "tp_size": 2, "sequence_parallel": True}),
    ("llama", 2, {"cp_size": 2}),
    ("llama", 2, {"cpu_offload": True}),
    ("llama", 4, {"tp_size": 2}),
    ("llama", 4, {"cp_size": 2}),
    ("llama", 4, {"dp_replicate_size": 2}),
]
ADAPTER = {"dim": 4, "alpha": 8}
DORA = {**ADAPTER, "use_dora": True}


@pytest.mark.parametrize(
    ("kind", "ranks", "mesh", "peft"),
    [
        *((*mesh, peft) for mesh in MESHES for peft in (None, ADAPTER)),
        # Its magnitudes lie as other weights do, but where layers are split.
        *((*mesh, DORA) for mesh in MESHES if "tp_size" in mesh[2] and mesh[1] == 4),
    ],
    ids=str,
)
def test_every_mesh_is_left_for_one_process_and_taken_up_from_one(
    peft: dict[str, Any] | None,
    kind: str,
    ranks: int,
    mesh: dict[str, Any],
    models_of: Callable[[str], Path],
    trained: Trained,
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    tables = {**FULL, "model": model, "peft": peft}
    keep = {"keep_last": None}
    alone = trained(1, **tables, checkpoint=keep)
    spread = trained(ranks, name="spread", **tables, distributed=mesh, checkpoint=keep)
    assert_same_end(resumed(trained, 1, spread, name="left", **tables), alone)
    taken = resumed(trained, ranks, alone, name="taken", **tables, distributed=mesh)
    assert_same_end(taken, alone)


def test_each_rank_goes_on_drawing_where_it_stood(trained: Trained) -> None:
    tables = {**LORA, "peft": {"dim": 4, "alpha": 8, "dropout": 0.3}}
    whole = trained(2, **tables, checkpoint={"keep_last": None})
    assert_same_end(resumed(trained, 2, whole, name="rest", **tables), whole)


def test_what_is_written_in_the_background_is_of_its_step(trained: Trained) -> None:
    steps = {"step_scheduler": {**STEPS, "ckpt_every_steps": 1}}
    now = trained(2, **FULL | steps, checkpoint={"keep_last": None})
    later = trained(
        2, name="later", **FULL | steps, checkpoint={"keep_last": None, "is_async": True}
    )
    for step in range(1, 8):
        one, other = (run.folder / "checkpoints" / f"step_{step:06d}" for run in (now, later))
        names = {name for name in read_sums(one) if name.endswith(".safetensors")}
        assert {name: read_sums(one)[name] for name in names} == {
            name: read_sums(other)[name] for name in names
        }
        assert damage(other, read_sums(other)) is None
    assert_same_end(resumed(trained, 2, later, name="rest", **FULL), later)


def stop_inside_a_step(config: TrainConfig, folder: Path) -> int:
    """Train, and let the second rank get a signal between two micro-batches of the fifth step."""
    from tunedeck.trainer import loop

    original, calls = loop.SupervisedLoss.__call__, 0

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 4 * 2 + 1 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args, **options)

    loop.SupervisedLoss.__call__ = counted  # type: ignore[method-assign]
    try:
        return train_here(config, folder)
    finally:
        loop.SupervisedLoss.__call__ = original  # type: ignore[method-assign]


def test_a_stop_in_the_middle_of_a_step_takes_that_step_again_as_a_whole(
    trained: Trained, workers: Workers, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    tables = {**LORA, "peft": {"dim": 4, "alpha": 8, "dropout": 0.3}}
    whole = trained(2, **tables, optimizer={})
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    config = configure(**tables, optimizer={"lr": 1e-2, "eps": 1e-3})
    workers.send(2, stop_inside_a_step, config, stopped)
    answers = workers.take(2)
    assert [code for code, _ in answers] == [75, 75]
    assert "stopped by" in answers[0][1]
    result = json.loads((stopped / "result.json").read_text())
    assert result["steps"] == 4
    first = Run(answers[0][1], stopped, [])
    rest = resumed(trained, 2, first, name="rest", link="latest", **tables)
    found = first.values("loss") + rest.values("loss")
    assert found == [pytest_approx(value, LOSS) for value in whole.values("loss")]
    for name, tensor in whole.weights().items():
        torch.testing.assert_close(rest.weights()[name], tensor, atol=WEIGHT, rtol=0)


def test_a_rank_that_is_killed_in_a_save_loses_no_published_checkpoint(
    trained: Trained, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    steps = {"step_scheduler": {**STEPS, "max_steps": 40, "ckpt_every_steps": 1}}
    tables = {**LORA, **steps, "checkpoint": {"async_save": True}}
    folder = tmp_path / "killed"
    folder.mkdir()
    checkpoints = folder / "checkpoints"
    config = configure(**tables, optimizer={"lr": 1e-2, "eps": 1e-3})
    with Workers() as group:
        group.send(2, train_here, config, folder)
        until(lambda: len(list(checkpoints.glob("step_*"))) > 2)
        until(lambda: list(checkpoints.glob("*.in_progress")))
        os.kill(group.pid(1), signal.SIGKILL)
        with pytest.raises(AssertionError, match="rank 1: its process ended with code -9"):
            group.take(2)
    whole = [path for path in checkpoints.glob("step_*") if path.suffix == ""]
    assert (checkpoints / "latest").resolve() in whole
    assert all(damage(path, read_sums(path)) is None for path in whole)
    tables["checkpoint"] = {"restore_from": str(folder)}
    rest = trained(2, name="rest", **tables)
    losses = trained(2, name="whole", **{**tables, "checkpoint": {}}).values("loss")
    assert 0 < len(rest.values("loss")) < 40
    expected = losses[-len(rest.values("loss")) :]
    assert rest.values("loss") == [pytest_approx(value, LOSS) for value in expected]


def second_rank_finds_no_room(config: TrainConfig, folder: Path) -> int:
    """Train, with a disk that is full on the second rank at the first save."""
    from tunedeck.trainer.checkpoints import weights

    original = weights.Weights.write

    def write(self: Any, folder: Path, *args: Any, **options: Any) -> Any:
        if os.environ.get("RANK") == "1" and folder.name.startswith("step_000004"):
            raise OSError(28, "No space left on device")
        return original(self, folder, *args, **options)

    weights.Weights.write = write  # type: ignore[method-assign]
    try:
        return train_here(config, folder)
    finally:
        weights.Weights.write = original  # type: ignore[method-assign]


@pytest.mark.parametrize("background", [False, True])
def test_a_rank_without_room_keeps_all_from_publishing(
    background: bool, workers: Workers, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    settings = {"async_save": background, "keep_last": None}
    workers.send(2, second_rank_finds_no_room, configure(**FULL, checkpoint=settings), tmp_path)
    answers = workers.take(2)
    assert [code for code, _ in answers] == [0, 0]
    said = "step 4 cannot be saved in .*: rank 1: No space left on device"
    assert re.search(said, answers[0][1])
    there = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert there >= {"step_000007", "latest"}
    assert not [name for name in there if name.startswith("step_000004")]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def refused(config: TrainConfig, folder: Path) -> str:
    """What a rank says that cannot go on."""
    try:
        train_here(config, folder)
    except UsageError as error:
        return f"{error.message} {error.fix}"
    return ""


def test_all_ranks_refuse_what_one_of_them_finds_damaged(
    trained: Trained, workers: Workers, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    steps = {"step_scheduler": {**STEPS, "ckpt_every_steps": 2}}
    whole = trained(2, **FULL | steps, checkpoint={"keep_last": None})
    checkpoints = whole.folder / "checkpoints"
    shard = checkpoints / "step_000006" / "state" / "__1_0.distcp"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    table = checkpoints / "step_000004/state/.metadata"
    table.write_bytes(table.read_bytes()[:100])
    for place, said in [
        (
            table.parents[1],
            rf"{table} is damaged.*with checkpoint.restore_from={checkpoints}/step_000002$",
        ),
        (
            shard.parents[1],
            rf"{shard} is damaged.*with checkpoint.restore_from={checkpoints}/step_000002$",
        ),
        (tmp_path / "nowhere", "There is nothing at"),
    ]:
        config = configure(**FULL, checkpoint={"restore_from": str(place)})
        answers = workers.run(2, refused, config, tmp_path)
        assert all(re.search(said, answer) for answer in answers)
