"""This process among all of the run, and the few words the processes exchange about a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from ...core.schema.mesh import MeshSizes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class DistributedContext:
    """This process among all of the run.

    Attributes:
        rank, world_size: which process of how many this is.
        local_rank: which process of its machine this is.
        sizes: the sizes of the mesh.
        device_mesh: dimensions `dp_replicate`, `shard` (all that weights are sharded over: `cp` and
            `ep` ranks too) and `tp`; None for a single process.
        expert_mesh: the same processes for the weights of experts: `dp_replicate`, `shard`, and
            `ep`, which all are that share the experts of a layer (`tp` ranks too); None without
            expert parallelism.
        context_mesh: `cp`, the ranks that share this one's sequences; None where they are whole.
    """

    rank: int
    world_size: int
    local_rank: int
    sizes: MeshSizes
    device_mesh: DeviceMesh | None = None
    expert_mesh: DeviceMesh | None = None
    context_mesh: DeviceMesh | None = None

    @property
    def dp_size(self) -> int:
        """Data parallel ranks."""
        return self.sizes.dp_replicate * self.sizes.dp_shard

    @property
    def tp_size(self) -> int:
        """Tensor parallel ranks."""
        return self.sizes.tp

    @property
    def cp_size(self) -> int:
        """Context parallel ranks."""
        return self.sizes.cp

    @property
    def ep_size(self) -> int:
        """Expert parallel ranks."""
        return self.sizes.ep

    @property
    def main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which of the `sizes.data_ranks` shares of the rows is this process's."""
        inner = self.sizes.cp * self.sizes.ep * self.sizes.tp
        return self.rank // inner * self.sizes.ep + self.rank // self.sizes.tp % self.sizes.ep

    @property
    def seed_offset(self) -> int:
        """Differs where tokens differ; ranks that compute the same tokens draw the same dropout."""
        return self.rank // self.sizes.tp

    def most(self, value: int) -> int:
        """The greatest value of any rank: all ranks ask together and hear the same."""
        return round(self._reduced([value], dist.ReduceOp.MAX)[0])

    def count(self, values: Sequence[int]) -> list[int]:
        """Sums over the shares of the rows; all ranks ask together."""
        if self.device_mesh is None:
            return list(values)
        copies = self.sizes.tp * self.sizes.cp
        return [round(v / copies) for v in self._reduced(values, dist.ReduceOp.SUM)]

    def _reduced(self, values: Sequence[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        # On the CPU, so that no GPU is waited for.
        numbers = torch.tensor(values, dtype=torch.float64)
        if self.device_mesh is not None:
            dist.all_reduce(numbers, operation)
        found: list[float] = numbers.tolist()
        return found

    def sum_loss(self, loss: Tensor) -> Tensor:
        """The sum over all ranks that hold different tokens."""
        if self.device_mesh is not None:
            dist.all_reduce(loss)
        return loss / self.sizes.tp

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self._reduced([0.0], dist.ReduceOp.SUM)


ALONE = DistributedContext(0, 1, 0, MeshSizes(1, 1, 1, 1, 1))
"""A run of one process."""
