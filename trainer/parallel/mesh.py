"""Joining the processes of a run, which torchrun started, into one mesh."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import _set_pg_timeout

from ...core.errors import TunedeckError, UsageError
from ...core.schema import TrainConfig
from ...core.schema.mesh import MeshSizes, mesh_misfits, mesh_sizes
from ..agreement import check_same_config
from .context import ALONE, DistributedContext

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_AS_LONG_AS_IT_TAKES = timedelta(days=365)


def launched_world() -> int:
    """How many processes torchrun started; 1 without it.

    Raises:
        UsageError: its environment is incomplete.
    """
    there = [name for name in _TORCHRUN if os.environ.get(name)]
    if "WORLD_SIZE" not in there or os.environ["WORLD_SIZE"] == "1":
        return 1
    if missing := [name for name in _TORCHRUN if name not in there]:
        raise UsageError(
            f"WORLD_SIZE is set and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} "
            "not.",
            fix="Start several processes with torchrun, which sets all of them.",
        )
    return int(os.environ["WORLD_SIZE"])


def check_mesh(config: TrainConfig) -> MeshSizes:
    """The sizes of the config's mesh over the processes that were started.

    Raises:
        UsageError: they do not fit each other.
    """
    world = launched_world()
    for misfit in mesh_misfits(config.distributed, config.step_scheduler, world):
        alone = "" if world > 1 else " Start several processes with torchrun --nproc-per-node N."
        raise UsageError(f"{misfit.key}: {misfit.message}", fix=f"{misfit.fix}{alone}")
    return mesh_sizes(config.distributed, world)


def join(config: TrainConfig, device: torch.device) -> DistributedContext:
    """Meet the other processes at the rendezvous of the environment and lay out the mesh.

    Raises:
        UsageError: the mesh does not fit the number of processes, or the processes are not alike.
        TunedeckError: the others could not be met in time.
    """
    sizes, world = check_mesh(config), launched_world()
    if world == 1:
        return ALONE
    settings = config.dist_env
    gpu = device.type == "cuda" and settings.backend != "gloo"
    if settings.backend == "nccl" and not gpu:
        raise UsageError(
            "dist_env.backend is nccl, and there is no GPU.", fix="Set dist_env.backend=auto."
        )
    if not dist.is_initialized():
        try:
            dist.init_process_group(
                # Counts and flags go between CPUs, so that no GPU is waited for.
                "cpu:gloo,cuda:nccl" if gpu else "gloo",
                timeout=settings.timeout,
            )
        except (dist.DistError, TimeoutError, RuntimeError) as error:
            raise TunedeckError(
                f"The processes of the run did not find each other: {str(error).splitlines()[0]}",
                fix="Check that all nodes were started and reach MASTER_ADDR and MASTER_PORT.",
            ) from error
    _check_alike(gpu)
    check_same_config(config)
    context = lay_out(sizes, device.type, local_rank=int(os.environ["LOCAL_RANK"]))
    for mesh in (context.device_mesh, context.expert_mesh, context.context_mesh):
        for group in mesh.get_all_groups() if mesh is not None else ():
            # A group of a mesh is made with torch's own, ten minutes for NCCL.
            _set_pg_timeout(settings.timeout, group)
    return context


def _check_alike(gpu: bool) -> None:
    """Find out whether all processes talk the same way; else they would wait for each other.

    Raises:
        UsageError: GPUs are to be seen by some of them only.
    """
    # NCCL cannot be asked: this goes between CPUs.
    most = torch.tensor([gpu, not gpu], dtype=torch.int64)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    if most.all():
        leave(failed=True)
        raise UsageError(
            f"This process computes on {'a GPU' if gpu else 'the CPU'}, and others do not.",
            fix="Look at nvidia-smi on each node, and give all of them GPUs or none "
            "(CUDA_VISIBLE_DEVICES).",
        )


def lay_out(sizes: MeshSizes, device_type: str, *, local_rank: int) -> DistributedContext:
    """The meshes over all processes; ranks that are next to each other are so in `tp`, then `ep`.

    These talk most, and are most likely on one machine.
    """
    replicas, shards, cp, ep, tp = sizes
    dense = init_device_mesh(
        device_type,
        (replicas, shards * cp * ep, tp),
        mesh_dim_names=("dp_replicate", "shard", "tp"),
    )
    experts = sequences = None
    if ep > 1:
        experts = init_device_mesh(
            device_type,
            (replicas, shards * cp, ep * tp),
            mesh_dim_names=("dp_replicate", "shard", "ep"),
        )
    if cp > 1:
        shape, names = (replicas * shards, cp, ep * tp), ("dp", "cp", "rest")
        sequences = init_device_mesh(device_type, shape, mesh_dim_names=names)["cp"]
    return DistributedContext(
        dist.get_rank(), dist.get_world_size(), local_rank, sizes, dense, experts, sequences
    )


def launched_rank() -> int:
    """Which of the processes that torchrun started this is; 0 without it."""
    return int(os.environ["RANK"]) if launched_world() > 1 else 0


@contextmanager
def first_on_each_machine(context: DistributedContext, patience: timedelta) -> Iterator[None]:
    """One process of each machine goes in alone, the others when it is out.

    What it puts into a cache they find there. However long it takes is waited for, unless one of
    the processes ends.

    Args:
        context: the processes of the run.
        patience: how long collectives wait for a rank from then on.
    """
    _wait_at_most(_AS_LONG_AS_IT_TAKES, context)
    if context.local_rank > 0:
        context.barrier()
    yield
    if context.local_rank == 0:
        context.barrier()
    context.barrier()
    _wait_at_most(patience, context)


def _wait_at_most(patience: timedelta, context: DistributedContext) -> None:
    """How long words between all processes may take."""
    if context.world_size > 1:
        _set_pg_timeout(patience, dist.group.WORLD)


def leave(*, failed: bool = False) -> None:
    """End the groups of processes; without any, nothing happens.

    Args:
        failed: whether other ranks may still be in the middle of a collective. NCCL would wait for
            it; the end of the process ends its groups as well.
    """
    if dist.is_initialized() and not (failed and "nccl" in dist.get_backend_config()):
        dist.destroy_process_group()
