"""Weights that lie in main memory while the ranks compute on GPUs, which `cpu_offload` asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from tunedeck.trainer.parallel.tensors import laid_out
from tunedeck.trainer.update.finite import UpdateGuard

META = torch.device("meta")


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of this process alone."""
    store = dist.HashStore()  # type: ignore[attr-defined]  # not in torch's stubs
    dist.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_a_piece_lies_where_it_is_asked_for_and_not_where_its_mesh_computes(
    mesh: DeviceMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = DTensor.from_local

    def from_local(piece: Tensor, mesh: DeviceMesh, *args: Any, **options: Any) -> DTensor:
        # As torch does with all devices but this one, which is main memory here.
        if piece.device.type != mesh.device_type:
            piece = torch.empty_like(piece, device=mesh.device_type)
        made: DTensor = original(piece, mesh, *args, **options)
        return made

    monkeypatch.setattr(DTensor, "from_local", from_local)
    laid = laid_out(torch.arange(6.0).view(3, 2), mesh, [Shard(0)], META)
    assert laid.device == laid.to_local().device == META
    assert laid.shape == (3, 2) and laid.placements == (Shard(0),)
    here = laid_out(torch.arange(6.0).view(3, 2), mesh, [Shard(0)])
    assert here.to_local().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_the_flag_that_stops_updates_is_brought_to_where_the_weights_lie() -> None:
    class Optimizer:
        """Knows the flag, as torch's fused optimizers do."""

        _step_supports_amp_scaling = True
        param_groups = ({"params": [nn.Parameter(torch.ones(3, device=META))]},)
        found_inf: Tensor | None = None

        def step(self) -> None:
            assert self.found_inf is not None
            assert self.found_inf.device == META

    optimizer: Any = Optimizer()
    guard = UpdateGuard(optimizer, torch.device("cpu"))
    guard.step(torch.tensor(1.0), torch.tensor(1.0))
    assert optimizer.found_inf is not None
