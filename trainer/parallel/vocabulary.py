"""Embeddings and output head, split by the vocabulary: each rank has some of its rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from .collectives import Group, add_up, hand_out, join
from .local import compute_locally, lay


def split_vocabulary(
    model: PreTrainedModel, mesh: DeviceMesh, made: dict[int, DTensor]
) -> tuple[nn.Module, ...]:
    """Split embeddings and output head in place, where the vocabulary divides by the ranks.

    Args:
        model: the model, with its adapters.
        mesh: the `tp` ranks.
        made: weights that were laid out before, as `lay` has them.

    Returns:
        The modules that were split; none where the ends are of another kind or do not divide.
    """
    embed: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    plain = isinstance(embed, nn.Embedding) and isinstance(head, nn.Linear)
    if not plain or any(end.weight.shape[0] % mesh.size() for end in (embed, head)):
        return ()
    group: Group = mesh.get_group()
    for end in (embed, head):
        for name, weight in list(end._parameters.items()):
            if weight is not None:
                lay(end, name, mesh, Shard(0), made)
    compute_locally(embed)
    compute_locally(head)
    rows = embed.weight.shape[0] // mesh.size()
    first = rows * group.rank()
    if embed.padding_idx is not None:
        here = embed.padding_idx - first
        embed.padding_idx = here if 0 <= here < rows else None
    lookup = embed.forward

    def look_up(ids: Tensor) -> Tensor:
        elsewhere = (ids < first) | (ids >= first + rows)
        found = lookup((ids - first).masked_fill(elsewhere, 0))
        return add_up(found.masked_fill(elsewhere.unsqueeze(-1), 0), group)

    project = head.forward

    def project_all(hidden: Tensor) -> Tensor:
        return join(project(hand_out(hidden, group)), -1, group, summed=False)

    embed.forward, head.forward = look_up, project_all
    return embed, head
