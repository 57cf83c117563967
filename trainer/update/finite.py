"""No update is made from a loss or gradient norm that is not finite, and no GPU is waited for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class UpdateGuard:
    """Lets updates through until a step's loss or norm is not finite, and none from then on.

    The decision stays on the device: torch's fused optimizers take a flag `found_inf` under which
    they change nothing, as `torch.amp.GradScaler` uses it. The host may read the numbers of several
    steps at once and later, and finds parameters and optimizer as they were before the first step
    that is not finite. Loss and norm are the same on all ranks, and so is the decision.

    Args:
        optimizer: what is guarded. One that does not know the flag is asked for on the host.
        device: where losses and norms are.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self._optimizer: Any = optimizer
        self._shut = torch.zeros((), device=device)
        self._knows_flag = getattr(optimizer, "_step_supports_amp_scaling", False)

    @torch.no_grad()
    def step(self, loss: Tensor, norm: Tensor) -> None:
        """Update the parameters, unless this step or one before it is not finite.

        Args:
            loss: the step's loss, a scalar on the device.
            norm: its gradients' norm, before clipping.
        """
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self._shut = torch.maximum(self._shut, bad.to(self._shut.dtype))
        if self._knows_flag:
            # Weights may lie in main memory: torch would fetch the flag there without waiting for
            # it to arrive, and update by what was in that place before.
            where = self._optimizer.param_groups[0]["params"][0].device
            self._optimizer.grad_scale, self._optimizer.found_inf = None, self._shut.to(where)
            self._optimizer.step()
        elif not self._shut.item():
            self._optimizer.step()
