from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunedeck.core.schema.mesh import Misfit, architecture_misfits, mesh_misfits, mesh_sizes
from tunedeck.core.schema.optimization import StepSchedulerConfig
from tunedeck.core.schema.parallel import DistributedConfig


def misfits(world: int, *, batch: int = 64, micro: int = 1, **sizes: Any) -> list[Misfit]:
    config = DistributedConfig.model_validate(sizes)
    plan = {"global_batch_size": batch, "local_batch_size": micro}
    return list(mesh_misfits(config, StepSchedulerConfig.model_validate(plan), world))


sizes = st.integers(1, 8)


@given(world=st.integers(1, 64), tp=sizes, cp=sizes, ep=sizes, replicas=sizes)
def test_a_mesh_without_misfits_takes_every_process_once(
    world: int, tp: int, cp: int, ep: int, replicas: int
) -> None:
    keys = {"tp_size": tp, "cp_size": cp, "ep_size": ep, "dp_replicate_size": replicas}
    found = misfits(world, batch=math.lcm(*range(1, 65)), **keys)
    mesh = mesh_sizes(DistributedConfig.model_validate(keys), world) if not found else None
    fits = world % (tp * cp * ep) == 0 and (world // (tp * cp * ep)) % replicas == 0
    assert (mesh is not None) is fits
    if mesh is not None:
        assert math.prod(mesh) == world
        assert mesh.data_ranks == world // (tp * cp)


@given(world=st.integers(1, 64), tp=sizes, cp=sizes)
def test_the_numbers_of_processes_that_are_offered_work(world: int, tp: int, cp: int) -> None:
    found = misfits(world, batch=math.lcm(*range(1, 65)), tp_size=tp, cp_size=cp)
    for misfit in found:
        offered = re.match(r"Use ([\d or]+) processes", misfit.fix)
        assert offered is not None
        for number in map(int, re.findall(r"\d+", offered[1])):
            assert number > 0
            assert not misfits(number, batch=math.lcm(*range(1, 129)), tp_size=tp, cp_size=cp)


def test_replicas_and_batches_that_do_not_divide_come_with_numbers_that_do() -> None:
    [replicas] = misfits(6, batch=6, dp_replicate_size=4)
    assert replicas.key == "distributed.dp_replicate_size"
    assert "1, 2, 3, 6" in replicas.fix
    [batch] = misfits(4, batch=18, micro=2)
    assert batch.key == "step_scheduler.global_batch_size"
    assert batch.value == 16
    assert not misfits(4, batch=16, micro=2)


def test_a_size_that_is_written_down_has_to_be_what_there_is() -> None:
    [data] = misfits(8, dp_size=2, tp_size=2)
    assert (data.key, data.value) == ("distributed.dp_size", 4)
    assert not misfits(8, dp_size=4, tp_size=2)


def test_ranks_that_share_no_sequence_and_no_matrix_have_rows_of_their_own() -> None:
    assert misfits(8, batch=2, tp_size=2)[0].key == "step_scheduler.global_batch_size"
    assert not misfits(8, batch=2, tp_size=2, cp_size=2, ep_size=2)


def test_one_process_has_nothing_to_offload() -> None:
    assert misfits(1, cpu_offload=True)[0].key == "distributed.cpu_offload"
    assert not misfits(2, cpu_offload=True)


def test_copies_without_shards_are_replicas() -> None:
    mesh = mesh_sizes(DistributedConfig(strategy="ddp"), 4)
    assert (mesh.dp_replicate, mesh.dp_shard) == (4, 1)


@pytest.mark.parametrize(
    ("sizes", "model", "key"),
    [
        ({"tp_size": 4}, {"num_attention_heads": 8, "num_key_value_heads": 2}, "tp_size"),
        ({"tp_size": 3}, {"num_attention_heads": 4, "num_key_value_heads": 2}, "tp_size"),
        ({"tp_size": 3}, {"text_config": {"num_attention_heads": 8}}, "tp_size"),
        ({"ep_size": 3}, {"num_local_experts": 8}, "ep_size"),
        ({"ep_size": 4, "tp_size": 4}, {"num_local_experts": 8}, "ep_size"),
        ({"ep_size": 2, "tp_size": 3}, {"num_local_experts": 8}, "ep_size"),
        ({"ep_size": 2, "tp_size": 4}, {"num_local_experts": 8}, None),
        # Experts that these cannot share are left whole.
        ({"tp_size": 3}, {"num_local_experts": 8}, None),
        ({"tp_size": 2}, {"num_attention_heads": 8, "num_key_value_heads": 2}, None),
        ({"tp_size": 2}, {}, None),
        ({}, {"num_attention_heads": 7}, None),
    ],
)
def test_what_ranks_share_evenly_is_known_from_the_model(
    sizes: dict[str, Any], model: dict[str, Any], key: str | None
) -> None:
    found = list(architecture_misfits(DistributedConfig.model_validate(sizes), model))
    assert [misfit.key for misfit in found] == ([f"distributed.{key}"] if key else [])
    for misfit in found:
        offered = misfit.fix.partition("one of ")[2].rstrip(".").split(", ")
        for number in map(int, offered):
            mended = DistributedConfig.model_validate({**sizes, str(key): number})
            assert not list(architecture_misfits(mended, model))
