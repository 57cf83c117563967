"""Expert parallelism: each rank holds some experts of a layer, and tokens travel to theirs.

In each mixture-of-experts layer a token's hidden state is sent to the ranks of the experts that its
router chose, computed with there, and sent back (GShard, arXiv:2006.16668), but no token is ever
dropped. Tensor parallel ranks hold whole experts too, some of them each, and not a part of each:
the products stay large, and the ranks of both kinds are one row to which tokens are sent. Where the
experts of an architecture are, its plan in transformers says.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from ...core.errors import UsageError
from .collectives import Group, add_up, exchange, hand_out
from .context import DistributedContext
from .local import copies_of, lay, local_weights
from .plans import styles_of

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


def spread_experts(
    model: PreTrainedModel, context: DistributedContext, *, same_tokens: bool
) -> list[nn.Module]:
    """Spread the experts of each layer over the `ep` and `tp` ranks, in place.

    Without expert parallelism, experts that the `tp` ranks cannot share evenly are left whole.

    Args:
        model: its architecture was checked where there are `ep` ranks.
        context: the ranks.
        same_tokens: whether all `tp` ranks come to the experts with the same tokens; with sequence
            parallelism each has its own.

    Returns:
        The modules that hold them, whose weights are sharded over other ranks than the rest.
    """
    assert context.device_mesh is not None
    mesh = context.device_mesh["tp"]
    copies = mesh.get_group() if same_tokens and context.tp_size > 1 else None
    if context.expert_mesh is not None:
        mesh = context.expert_mesh["ep"]
    found: list[nn.Module] = []
    made: dict[int, DTensor] = {}
    style_of = styles_of(model.ep_plan)
    for name, module in list(model.named_modules()):
        if style_of(name) != _STYLE:
            continue
        for experts in copies_of(module):
            total: Any = experts.num_experts
            if total % mesh.size() == 0:
                for weight in list(experts._parameters):
                    lay(experts, weight, mesh, Shard(0), made)
                _Dispatch(experts, mesh.get_group(), copies)
                found.append(experts)
    return found


class _Dispatch:
    """Replaces the forward pass of a layer's experts by one over the ranks.

    Args:
        experts: computes `(tokens [n, width], experts [n, k], weights [n, k])`; its weights have
            the experts in their first dimension.
        group: the ranks.
        copies: those among them that have the same tokens; None if each has its own.
    """

    def __init__(self, experts: nn.Module, group: Group, copies: Group | None) -> None:
        self._module, self._compute, self._group = experts, experts.forward, group
        self._copies = copies
        total: int = experts.num_experts  # type: ignore[assignment]
        self._here = total // group.size()
        experts.num_experts = self._here  # type: ignore[assignment]
        experts.forward = self

    def __call__(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """[n, width] of each token's experts together."""
        if self._copies is None:
            return self._sent(tokens, chosen, weights)
        # Each token is sent by one of the ranks that have it.
        each = -(-len(tokens) // self._copies.size())
        first = min(each * self._copies.rank(), len(tokens))
        mine = slice(first, min(first + each, len(tokens)))
        tokens, weights = hand_out(tokens, self._copies), hand_out(weights, self._copies)
        computed = self._sent(tokens[mine], chosen[mine], weights[mine])
        around = (0, 0, mine.start, len(tokens) - mine.stop)
        return add_up(F.pad(computed, around), self._copies)

    def _sent(self, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        ranks, here = self._group.size(), self._here
        by_expert = chosen.flatten().argsort(stable=True)
        owners = by_expert // chosen.shape[1]
        sent = chosen.flatten().bincount(minlength=ranks * here).view(ranks, here)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self._group)
        # A GPU is waited for here, and once.
        outwards, inwards = torch.stack([sent, received]).sum(2).tolist()
        rows = exchange(tokens[owners], outwards, inwards, self._group)
        experts = torch.arange(here, device=rows.device).repeat(ranks)
        found = experts.repeat_interleave(received.flatten(), output_size=len(rows))
        computed = self._local(rows, found)
        back = exchange(computed, inwards, outwards, self._group)
        back = back * weights.flatten()[by_expert].unsqueeze(1)
        return torch.zeros_like(tokens).index_add(0, owners, back.to(tokens.dtype))

    def _local(self, rows: Tensor, experts: Tensor) -> Tensor:
        """[n, width] of rows through one of this rank's experts each."""
        nothing = rows.shape[0] == 0
        if nothing:
            # Weights have to have gradients on each rank, if only zeros, to be summed with others,
            # and the tokens that were sent from here get theirs through these rows.
            rows, experts = F.pad(rows, (0, 0, 0, 1)), experts.new_zeros(1)
        once = torch.ones(len(rows), 1, dtype=rows.dtype, device=rows.device)
        with local_weights(self._module, summed=False):
            out: Any = self._compute(rows, experts.unsqueeze(1), once)
        computed: Tensor = out[:0] if nothing else out
        return computed
