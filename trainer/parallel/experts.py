"""Expert parallelism: each rank holds some experts of a layer, and tokens travel to theirs.

Every rank has rows of its own. In each mixture-of-experts layer a token's hidden state is sent to
the ranks of the experts that its router chose, computed with there, and sent back (GShard,
arXiv:2006.16668), but no token is ever dropped. Where the experts of an architecture are, its plan
in transformers says.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Shard
from transformers import PretrainedConfig, PreTrainedModel

from ...core.errors import UsageError
from .collectives import Group, exchange
from .context import DistributedContext
from .local import lay, local_weights

_STYLE = "ep_dispatch_experts"


def check_expert_parallel(config: PretrainedConfig) -> None:
    """Find out from the architecture whether it has experts that can be spread.

    Raises:
        UsageError: it has none.
    """
    text = config.get_text_config()
    plan = getattr(text, "base_model_ep_plan", None) or {}
    if _STYLE not in plan.values():
        raise UsageError(
            f"distributed.ep_size: '{config.model_type}' has no experts that can be spread.",
            fix="Set distributed.ep_size=1; fsdp2 shards any model.",
        )


def spread_experts(model: PreTrainedModel, context: DistributedContext) -> list[nn.Module]:
    """Spread the experts of each layer over the `ep` ranks, in place.

    Returns:
        The modules that hold them, whose weights are sharded over other ranks than the rest.
    """
    assert context.expert_mesh is not None
    mesh, found = context.expert_mesh["ep"], []
    made: dict[int, DTensor] = {}
    patterns = [
        re.compile(re.escape(name).replace(r"\*", r"\d+"))
        for name, style in (model.ep_plan or {}).items()
        if style == _STYLE
    ]
    for name, module in model.named_modules():
        if any(pattern.fullmatch(name) for pattern in patterns):
            for weight in list(module._parameters):
                lay(module, weight, mesh, Shard(0), made)
            _Dispatch(module, mesh.get_group())
            found.append(module)
    return found


class _Dispatch:
    """Replaces the forward pass of a layer's experts by one over the ranks.

    Args:
        experts: computes `(tokens [n, width], experts [n, k], weights [n, k])`; its weights have
            the experts in their first dimension.
        group: the ranks.
    """

    def __init__(self, experts: nn.Module, group: Group) -> None:
        self._module, self._compute, self._group = experts, experts.forward, group
        total: int = experts.num_experts  # type: ignore[assignment]
        self._here = total // group.size()
        experts.num_experts = self._here  # type: ignore[assignment]
        experts.forward = self

    def __call__(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """[n, width] of each token's experts together."""
        ranks, here = self._group.size(), self._here
        by_expert = chosen.flatten().argsort(stable=True)
        owners = by_expert // chosen.shape[1]
        sent = chosen.flatten().bincount(minlength=ranks * here).view(ranks, here)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self._group)
        outwards, inwards = sent.sum(1).tolist(), received.sum(1).tolist()
        rows = exchange(tokens[owners], outwards, inwards, self._group)
        experts = torch.arange(here, device=rows.device).repeat(ranks)
        computed = self._local(rows, experts.repeat_interleave(received.flatten()))
        back = exchange(computed, inwards, outwards, self._group)
        back = back * weights.flatten()[by_expert].unsqueeze(1)
        return torch.zeros_like(tokens).index_add(0, owners, back.to(tokens.dtype))

    def _local(self, rows: Tensor, experts: Tensor) -> Tensor:
        """[n, width] of rows through one of this rank's experts each."""
        nothing = rows.shape[0] == 0
        if nothing:
            # Weights have to have gradients on each rank, if only zeros, to be summed with others.
            rows, experts = rows.new_zeros(1, rows.shape[1]), experts.new_zeros(1)
        once = torch.ones(len(rows), 1, dtype=rows.dtype, device=rows.device)
        with local_weights(self._module, summed=False):
            out: Any = self._compute(rows, experts.unsqueeze(1), once)
        computed: Tensor = out[:0] if nothing else out
        return computed
