"""The catalog of steps: read from folders, checked, searched."""

from .artifacts import ArtifactGraph, Conversion
from .catalog import Catalog
from .checks import check_choices, check_min_gpus, check_required
from .load import STEPS_VARIABLE, load_catalog
from .manifest import Manifest
from .step import SHIPPED, LaunchFacts, Step

__all__ = [
    "SHIPPED",
    "STEPS_VARIABLE",
    "ArtifactGraph",
    "Catalog",
    "Conversion",
    "LaunchFacts",
    "Manifest",
    "Step",
    "check_choices",
    "check_min_gpus",
    "check_required",
    "load_catalog",
]
