"""Values as JSON has them, which knows no NaN and no infinity."""

from __future__ import annotations

import math
from typing import Any


def plain(value: Any) -> Any:
    """The same with None for each number that is not finite, however deep it lies."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
