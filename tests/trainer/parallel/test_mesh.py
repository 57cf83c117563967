from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.mesh import MeshSizes
from tunedeck.trainer.parallel.context import ALONE, DistributedContext
from tunedeck.trainer.parallel.mesh import (
    check_mesh,
    first_on_each_machine,
    join,
    launched_rank,
    launched_world,
    leave,
)
from tunedeck.trainer.setup import validate_and_prepare_config

from .workers import Workers

Configure = Callable[..., TrainConfig]
TORCHRUN = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "1",
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def test_a_single_process_needs_no_torchrun() -> None:
    assert (launched_world(), launched_rank()) == (1, 0)


def test_torchrun_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert (launched_world(), launched_rank()) == (4, 1)


@pytest.mark.parametrize("missing", sorted(TORCHRUN.keys() - {"WORLD_SIZE"}))
def test_half_of_torchruns_environment_is_refused(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in TORCHRUN.items():
        if name != missing:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=missing) as caught:
        launched_world()
    assert "torchrun" in caught.value.fix


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        ({"tp_size": 2}, "tp_size"),
        ({"cp_size": 4}, "cp_size"),
        ({"dp_size": 2}, "dp_size"),
        ({"dp_replicate_size": 2}, "dp_replicate_size"),
        ({"cpu_offload": True}, "cpu_offload"),
    ],
)
def test_a_mesh_on_one_process_is_refused_before_anything_is_loaded(
    mesh: dict[str, Any], words: str, configure: Configure
) -> None:
    config = configure(distributed=mesh, model={"pretrained_model_name_or_path": "/nowhere"})
    with pytest.raises(UsageError, match=words) as caught:
        validate_and_prepare_config(config, None, 0)
    assert "torchrun" in caught.value.fix


@pytest.mark.parametrize(
    ("mesh", "model", "words"),
    [
        ({"tp_size": 4}, {}, r"num_key_value_heads = 2"),
        ({"ep_size": 4}, {}, "no experts"),
        ({"tp_size": 2}, {"model_type": "bloom", "n_head": 4, "hidden_size": 32}, "no plan"),
        ({"cp_size": 2}, {"model_type": "bloom", "n_head": 4, "hidden_size": 32}, "cp_size"),
    ],
)
def test_what_a_model_cannot_share_is_refused(
    mesh: dict[str, int],
    model: dict[str, Any],
    words: str,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    table = {"pretrained_model_name_or_path": None, "config": model} if model else {}
    config = configure(
        distributed=mesh,
        model=table,
        tokenizer={"name": "/nowhere"} if model else {},
        step_scheduler={"global_batch_size": 8},
    )
    with pytest.raises(UsageError, match=words):
        validate_and_prepare_config(config, None, 0)


def test_nccl_without_a_gpu_is_refused(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="nccl"):
        join(
            configure(dist_env={"backend": "nccl"}, step_scheduler={"global_batch_size": 8}),
            torch.device("cpu"),
        )


def test_ranks_of_which_some_have_no_gpu_do_not_wait_for_each_other(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from torch import distributed as dist

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)

    def another_has_one(mine: torch.Tensor, _: Any) -> None:
        assert mine.tolist() == [0, 1] and not mine.is_cuda
        mine.copy_(mine.maximum(torch.tensor([1, 0])))

    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "all_reduce", another_has_one)
    with pytest.raises(UsageError, match="computes on the CPU, and others do not"):
        join(configure(step_scheduler={"global_batch_size": 8}), torch.device("cpu"))


def test_ranks_that_hold_the_same_rows_get_the_same_share() -> None:
    sizes = MeshSizes(dp_replicate=2, dp_shard=2, cp=2, ep=3, tp=2)
    world = 2 * 2 * 2 * 3 * 2
    ranks = [DistributedContext(rank, world, rank, sizes) for rank in range(world)]
    shares: dict[int, list[DistributedContext]] = {}
    for context in ranks:
        shares.setdefault(context.data_rank, []).append(context)
    assert sorted(shares) == list(range(sizes.data_ranks))
    for together in shares.values():
        assert len(together) == 4
        # Those of a context parallel group see other tokens, those of a tensor parallel one do not.
        assert len({context.seed_offset for context in together}) == 2


def test_alone_everything_is_agreed_on() -> None:
    assert ALONE.most(7) == 7
    assert ALONE.count([3, 4]) == [3, 4]
    with first_on_each_machine(ALONE, timedelta(minutes=30)):
        ALONE.barrier()


def meet(config: TrainConfig) -> tuple[int, list[int], float]:
    """What ranks hear of each other."""
    import torch
    from torch import distributed as dist
    from torch.distributed.distributed_c10d import _set_pg_timeout

    context = join(config, torch.device("cpu"))
    # What is prepared may take longer than any word between the ranks.
    _set_pg_timeout(timedelta(seconds=1), dist.group.WORLD)
    with first_on_each_machine(context, config.dist_env.timeout):
        if context.rank == 0:
            time.sleep(2)
    most = context.most(context.rank)
    counts = context.count([context.data_rank, 1])
    loss = context.sum_loss(torch.tensor(float(context.rank)))
    leave()
    return most, counts, float(loss)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ranks_count_what_each_share_has_once(workers: Workers, configure: Configure) -> None:
    config = configure(distributed={"tp_size": 2})
    assert check_mesh(configure()) == MeshSizes(1, 1, 1, 1, 1)
    for most, counts, loss in workers.run(4, meet, config):
        assert most == 3
        # Two shares, 0 and 1, each on two ranks.
        assert counts == [1, 2]
        assert loss == (0 + 1 + 2 + 3) / 2
