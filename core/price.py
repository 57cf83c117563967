"""What a run may cost, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .text import counted

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def price_words(price: Mapping[str, Any]) -> str:
    """A backend's price as one line: the ceiling first, then what it is made of.

    Args:
        price: what `Backend.price` gave: `at_most_usd`, `unit_price_usd`, `unit`, `timeout_s`,
            `attempts` and what is rented; whatever of it is there.

    Returns:
        Such as `at most $10.00: a100-large at $0.0417 a minute for 4 hours`.
    """
    rest = dict(price)
    most, unit_price, unit = (rest.pop(k, None) for k in ("at_most_usd", "unit_price_usd", "unit"))
    seconds, attempts = rest.pop("timeout_s", None), rest.pop("attempts", None)
    words = " ".join(str(value) for value in rest.values() if value not in (None, ""))
    if unit_price is not None:
        words += f" at ${unit_price:.4g} a {unit}"
    if seconds is not None:
        words += f" for {_long(int(seconds))}"
    if attempts is not None and attempts > 1:
        words += f", {attempts} times"
    ceiling = "" if most is None else f"at most ${most:.2f}"
    return ": ".join(text for text in (ceiling, words.strip()) if text)


def _long(seconds: int) -> str:
    """A stretch of time in the largest unit that divides it."""
    for size, unit in _UNITS:
        if seconds % size == 0:
            return counted(seconds // size, unit)
    return f"{seconds} seconds"
