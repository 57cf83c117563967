"""The device mesh of a config on a given number of processes: arithmetic alone, without torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .optimization import OptimizerConfig, StepSchedulerConfig
from .parallel import DistributedConfig

_ROUND = ("tp_size", "cp_size", "ep_size")


class MeshSizes(NamedTuple):
    """The sizes of the mesh, outermost first; their product is the world size.

    Attributes:
        dp_replicate: copies of the sharded model.
        dp_shard: ranks that each copy's weights are sharded over, `cp` and `ep` left out.
        cp: ranks that each sequence is split over.
        ep: ranks that the experts of a layer are split over; each has rows of its own.
        tp: ranks that each matrix is split over.
    """

    dp_replicate: int
    dp_shard: int
    cp: int
    ep: int
    tp: int

    @property
    def data_ranks(self) -> int:
        """How many shares the rows of a step are dealt out in."""
        return self.dp_replicate * self.dp_shard * self.ep


class Misfit(NamedTuple):
    """Something about a mesh that cannot be.

    Attributes:
        key: the dotted key to change.
        message: what is wrong, with the numbers.
        fix: numbers that would work.
        value: what `key` may be set to, where that mends it.
    """

    key: str
    message: str
    fix: str
    value: int | None = None


def mesh_sizes(config: DistributedConfig, world: int) -> MeshSizes:
    """The mesh over `world` processes; meaningful where `mesh_misfits` finds nothing."""
    data = world // (config.tp_size * config.cp_size * config.ep_size)
    replicas = data if config.strategy == "ddp" else config.dp_replicate_size
    return MeshSizes(replicas, data // replicas, config.cp_size, config.ep_size, config.tp_size)


def mesh_misfits(
    config: DistributedConfig, schedule: StepSchedulerConfig, world: int
) -> Iterator[Misfit]:
    """What keeps a config from running on `world` processes."""
    processes = f"{world} process{'es' if world > 1 else ''}"
    inner = config.tp_size * config.cp_size * config.ep_size
    if world % inner:
        named = [key for key in _ROUND if getattr(config, key) > 1]
        yield Misfit(
            f"distributed.{named[0]}",
            f"{processes} cannot be split into groups of {' x '.join(named)} = {inner}.",
            f"Use {_multiples(inner, world)} processes, or sizes whose product is one of "
            f"{', '.join(map(str, _divisors(world)))}.",
        )
        return
    data = world // inner
    if config.dp_size is not None and config.dp_size != data:
        rest = " x ".join(["dp_size", *(key for key in _ROUND if getattr(config, key) > 1)])
        yield Misfit(
            "distributed.dp_size",
            f"{rest} is {config.dp_size * inner}, and there are {processes}.",
            f"Set distributed.dp_size={data} or leave it out, or use {config.dp_size * inner} "
            "processes.",
            data,
        )
        return
    if data % config.dp_replicate_size:
        yield Misfit(
            "distributed.dp_replicate_size",
            f"{data} data parallel ranks are no multiple of dp_replicate_size "
            f"{config.dp_replicate_size}.",
            f"Set distributed.dp_replicate_size to one of {', '.join(map(str, _divisors(data)))}.",
        )
    if config.cpu_offload and world == 1:
        yield Misfit(
            "distributed.cpu_offload",
            "cpu_offload moves shards of the weights, and one process has the whole.",
            "Set distributed.cpu_offload=false, or use 2 or more processes.",
        )
    ranks, micro = data * config.ep_size, schedule.local_batch_size
    batch, unit = schedule.global_batch_size, micro * ranks
    if batch % unit:
        near = max(round(batch / unit), 1) * unit
        # The same steps in smaller pieces, where the ranks can share them evenly.
        fits = [size for size in _divisors(batch // ranks) if size < micro]
        smaller = (
            f", or step_scheduler.local_batch_size={fits[-1]}" if fits and not batch % ranks else ""
        )
        yield Misfit(
            "step_scheduler.global_batch_size",
            f"global_batch_size {batch} is no multiple of local_batch_size {micro} x {ranks} "
            f"data parallel ranks = {unit}.",
            f"Set step_scheduler.global_batch_size={near}{smaller}.",
            near,
        )


def optimizer_misfits(optimizer: OptimizerConfig, world: int) -> Iterator[Misfit]:
    """What keeps an optimizer from running on `world` processes."""
    if optimizer.name == "adamw8bit" and world > 1:
        yield Misfit(
            "optimizer.name",
            "adamw8bit keeps its state in blocks that cannot be split over processes.",
            "Set optimizer.name=adamw, whose state is split over them, or use 1 process.",
        )


_SHARED = {
    "tp_size": ("num_attention_heads", "num_key_value_heads", "intermediate_size"),
    "ep_size": ("num_experts", "num_local_experts", "n_routed_experts"),
}
"""What the ranks of a dimension share evenly, by its name in a model's `config.json`."""


def architecture_misfits(config: DistributedConfig, model: Mapping[str, Any]) -> Iterator[Misfit]:
    """What keeps a model's layers from being split over the mesh.

    Args:
        config: the sizes of the mesh.
        model: the model's `config.json`; what it does not say is not judged.
    """
    text = model.get("text_config") or model
    for key, names in _SHARED.items():
        size = getattr(config, key)
        # Tensor parallel ranks share the experts with the expert parallel ones.
        others = config.tp_size if key == "ep_size" and size > 1 else 1
        ranks = size * others
        sizes = {name: text[name] for name in names if isinstance(text.get(name), int)}
        uneven = [f"{name} = {size}" for name, size in sizes.items() if size % ranks]
        if uneven:
            both = " (ep_size x tp_size)" if others > 1 else ""
            fitting = [
                n
                for n in _divisors(math.gcd(*sizes.values()))
                if n <= 2 * size and (n == 1 or not math.gcd(*sizes.values()) % (n * others))
            ]
            yield Misfit(
                f"distributed.{key}",
                f"{ranks} ranks{both} cannot share {', '.join(uneven)} of the model evenly.",
                f"Set distributed.{key} to one of {', '.join(map(str, fitting))}.",
            )


def _multiples(unit: int, near: int) -> str:
    below = unit * (near // unit)
    return f"{below} or {below + unit}" if below else str(unit)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
