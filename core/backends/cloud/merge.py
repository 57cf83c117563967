"""Laying a profile's `custom_spec` over the body that a plan makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(body: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The body with a person's own fields over it: tables merge deep, lists are joined."""
    result = dict(body)
    for key, value in own.items():
        there = result.get(key)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            result[key] = merged(there, value)
        elif isinstance(there, list) and isinstance(value, list):
            result[key] = [*there, *value]
        else:
            result[key] = value
    return result
