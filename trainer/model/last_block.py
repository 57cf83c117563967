"""The last block of a model computes for the supervised positions alone what others do not see.

What comes out of it at other positions is read by nothing. Of these only keys and values are seen:
queries, what they attend to, and the feed-forward layer are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .attention import DOCUMENTS
from .cpu_attention import documents_on_cpu
from .rotary import rotate


class Selection:
    """The positions that are supervised in the forward pass under way.

    Attributes:
        positions: [supervised] int64 in the flattened rows; None outside of a loss.
        done: whether a block has left the others out.
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None
        self.done = False

    def begin(self, positions: Tensor | None) -> None:
        """A forward pass begins, or is over (None)."""
        self.positions, self.done = positions, False

    def take(self, hidden: Tensor) -> Tensor:
        """Hidden states [rows, length, width] to those of supervised positions, [1, n, width]."""
        assert self.positions is not None
        chosen: Tensor = _choose(hidden.flatten(0, 1), self.positions)
        self.done = True
        return chosen.unsqueeze(0)


class _Choose(torch.autograd.Function):
    """Rows by number, each at most once: their gradients are put back, not added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.shape = rows.shape
        return rows.index_select(0, numbers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, numbers, gradient), None


_choose: Any = _Choose.apply


def selecting(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward pass of a Llama block that takes a selection into account, if it is given one.

    Args:
        own: the block's own.
    """

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        selection: Selection | None = getattr(self, "selection", None)
        if selection is None or args or not _applies(self, selection, hidden_states):
            return own(self, hidden_states, *args, **kwargs)
        normed = self.input_layernorm(hidden_states)
        if _asks_for_some(self.self_attn, normed, kwargs):
            residual = selection.take(hidden_states)
            residual = residual + _ask_for_some(self.self_attn, normed, selection, **kwargs)
        else:
            attended, _ = self.self_attn(hidden_states=normed, **kwargs)
            residual = selection.take(hidden_states + attended)
        fed: Tensor = self.mlp(self.post_attention_layernorm(residual))
        return residual + fed

    return forward


def _applies(block: Any, selection: Selection, hidden: Tensor) -> bool:
    """Blocks that run again in the backward pass, or are compiled, keep to their own code."""
    again = block.gradient_checkpointing and block.training
    plain = not again and not torch.compiler.is_compiling() and not isinstance(hidden, DTensor)
    return plain and selection.positions is not None and selection.positions.numel() > 0


def _asks_for_some(attention: Any, hidden: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether it is Llama's attention over documents in one line, with nothing else to it."""
    hooks = attention._forward_hooks or attention._forward_pre_hooks or attention._backward_hooks
    watched = hooks or _get_current_dispatch_mode() is not None
    return (
        getattr(type(attention), "is_llamas", False)
        and attention.config._attn_implementation == DOCUMENTS
        and kwargs.get("cu_seq_lens_q") is not None
        and kwargs.get("past_key_values") is None
        and not (attention.training and attention.attention_dropout)
        and not watched
        and hidden.is_cpu
        and hidden.dtype == kwargs["position_embeddings"][0].dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _ask_for_some(
    attention: Any,
    hidden: Tensor,
    selection: Selection,
    *,
    position_embeddings: tuple[Tensor, Tensor],
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> Tensor:
    """What the selected positions attend to, [1, n, width]; see `LlamaAttention.forward`."""
    positions = selection.positions
    assert positions is not None
    states = [
        layer(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for layer, x in (
            (attention.q_proj, selection.take(hidden)),
            (attention.k_proj, hidden),
            (attention.v_proj, hidden),
        )
    ]
    cos, sin = (x.unsqueeze(1) for x in position_embeddings)
    query = rotate(states[0], cos[:, :, positions], sin[:, :, positions])
    key = rotate(states[1], cos, sin)
    bounds = cu_seq_lens_q.long()
    parts = positions.tensor_split(torch.searchsorted(positions, bounds[1:-1]))
    places = [part - start for part, start in zip(parts, bounds[:-1], strict=True)]
    lengths = bounds.diff().tolist()
    attended = documents_on_cpu(query, key, states[2], lengths, attention.scaling, places)
    projected: Tensor = attention.o_proj(attended.flatten(2))
    return projected


def give_selection(model: nn.Module, selection: Selection) -> bool:
    """Let the last block of a model know what is selected; whether it has one that looks at it.

    Where weights are split within layers, a rank may hold a part of the positions only: not there.
    Nor where blocks lie in several stacks, which may take turns: the last to be there may not be
    the last to compute.
    """
    found = {n: m for n, m in model.named_modules() if hasattr(type(m), "selection")}
    stacks = {name.rpartition(".")[0] for name in found}
    last = next(reversed(found.values()), None)
    if last is None or len(stacks) > 1 or any(_is_split(p) for p in last.parameters()):
        return False
    last.selection = selection
    return True


def _is_split(parameter: nn.Parameter) -> bool:
    mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
    return mesh is not None and "tp" in (mesh.mesh_dim_names or ())
