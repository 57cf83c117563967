"""What `env check` looks for: one file a question, each a function from a profile to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ...findings import Finding
from .gpus import gpu_counts
from .images import image_tags
from .keys import keys_and_types, second_spellings
from .mounts import collisions, outside_mounts
from .names import names
from .paths import absolute_paths
from .placeholders import placeholders
from .secrets import secrets_in_clear
from .slurm import slurm_forms
from .subject import Subject
from .variables import variable_names
from .walltime import time_limits

RULES: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    keys_and_types,
    second_spellings,
    placeholders,
    secrets_in_clear,
    variable_names,
    collisions,
    outside_mounts,
    absolute_paths,
    gpu_counts,
    time_limits,
    image_tags,
    slurm_forms,
    names,
)
"""All rules, in no particular order."""
