"""What a pair of low-rank matrices does to a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Update:
    """What a low-rank pair does to one weight: W + scaling·B·A, in DoRA with a magnitude.

    LoRA: arXiv:2106.09685, equation 3. DoRA: arXiv:2402.09353, equation 5.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        scaling: alpha/rank, or alpha/√rank (rsLoRA, arXiv:2312.03732).
        magnitude: [out], the norm that each row of W + scaling·B·A is brought to; None in LoRA.
        transposed: whether the layer keeps its weight as [in, out]: embeddings and GPT-2's Conv1D.
    """

    a: Tensor
    b: Tensor
    scaling: float
    magnitude: Tensor | None
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that it fits."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)

    def apply(self, weight: Tensor) -> Tensor:
        """The merged weight, float32, in the shape of `weight`."""
        base = weight.float().T if self.transposed else weight.float()
        merged = torch.addmm(base, self.b.float(), self.a.float(), alpha=self.scaling)
        if self.magnitude is not None:
            merged *= (self.magnitude.float() / merged.norm(dim=1)).unsqueeze(1)
        return merged.T if self.transposed else merged


@dataclass(frozen=True, slots=True)
class ParameterUpdate:
    """What PEFT adds to a parameter that is no layer's weight, as the experts of a layer in one.

    Attributes:
        a: [experts * rank, in].
        b: [out, rank * experts], the experts of one rank beside each other.
        scaling: as in `Update`.
        experts: matrices that the parameter holds.
        out_first: whether each of them is [out, in].
    """

    a: Tensor
    b: Tensor
    scaling: float
    experts: int
    out_first: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter that it fits."""
        out, into = self.b.shape[0], self.a.shape[1]
        if self.experts == 1:
            return (out, into)
        return (self.experts, out, into) if self.out_first else (self.experts, into, out)

    def change(self) -> Tensor:
        """What is added, float32, in the shape of the parameter."""
        a, b = self.a.float(), self.b.float()
        if self.experts == 1:
            return b @ a * self.scaling
        a = a.reshape(self.experts, -1, a.shape[1])
        b = b.reshape(b.shape[0], -1, self.experts)
        order = "ore,eri->eoi" if self.out_first else "ore,eri->eio"
        return torch.einsum(order, b, a) * self.scaling

    def apply(self, weight: Tensor) -> Tensor:
        """The merged parameter, float32."""
        return weight.float() + self.change()
