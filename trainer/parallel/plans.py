"""What transformers' plans say of the parts of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping


def styles_of(plan: Mapping[str, str] | None) -> Callable[[str], str | None]:
    """What a plan says of a module or weight, by its full name; adapters' parts of it play no role.

    Args:
        plan: names with `*` for the numbers of layers, and how each part is split; None is empty.
    """
    patterns = [
        (re.compile(re.escape(name).replace(r"\*", r"\d+")), style)
        for name, style in (plan or {}).items()
    ]

    def style_of(name: str) -> str | None:
        name = name.replace(".base_layer", "")
        return next((style for pattern, style in patterns if pattern.fullmatch(name)), None)

    return style_of
