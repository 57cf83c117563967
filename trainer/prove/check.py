"""What is claimed, how far it was off, and how far it may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

LOSS, NORM, LOGIT = 1e-5, 1e-3, 1e-4
"""How far losses (in nats), gradient norms (as a share) and logits may be apart in float32."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A difference and the most that it may be."""

    of: str
    value: float
    limit: float

    @property
    def ok(self) -> bool:
        """Whether it is small enough; what is not a number never is."""
        return math.isfinite(self.value) and self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Check:
    """One claim.

    Attributes:
        claim: what should be the same.
        deltas: how far it was off; none where it does not apply or could not be tried.
        skipped: why it does not apply.
        failed: why it could not be tried to the end.
        seconds: how long it took.
    """

    claim: str
    deltas: tuple[Delta, ...] = ()
    skipped: str = ""
    failed: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool | None:
        """Whether it holds; None where it does not apply."""
        if self.skipped:
            return None
        return not self.failed and bool(self.deltas) and all(delta.ok for delta in self.deltas)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "claim": self.claim,
            "ok": self.ok,
            "deltas": [
                {"of": d.of, "value": d.value, "limit": d.limit, "ok": d.ok} for d in self.deltas
            ],
            "skipped": self.skipped,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
        }


def row(check: Check, width: int) -> str:
    """A check as a line of a table whose first column is so wide."""
    word = {True: "ok", False: "FAILED", None: "-"}[check.ok]
    deltas = ", ".join(f"{d.of} {d.value:.1e} (at most {d.limit:.0e})" for d in check.deltas)
    return f"  {check.claim.ljust(width)}  {word:6}  {deltas or check.failed or check.skipped}"
