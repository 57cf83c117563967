"""Resolving `${…}` with OmegaConf: what env files and configs have in common.

The rest differs with what they are. An env file may have a thousand profiles that share their
parents' texts, so what equal texts come to is kept (`env.interpolate`), and a secret has been taken
out of a profile before. A config is one tree that refers to any place in itself, to files that ship
with Tunedeck, and to secrets, which stay references (`config.interpolate`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any


def value_at(config: Any, path: Iterable[str | int]) -> Any:
    """A value of an OmegaConf config with every interpolation in it resolved, as plain data.

    Raises:
        OmegaConfBaseException: if one cannot be resolved.
        RecursionError: if it leads through too many others.
    """
    from omegaconf import OmegaConf

    with warnings.catch_warnings():
        # It warns of `${oc.env:NAME,}`, a default that is empty on purpose.
        warnings.simplefilter("ignore")
        node = config
        for key in path:
            node = node[key]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
