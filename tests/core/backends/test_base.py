from __future__ import annotations

import pytest

from tunedeck.core.backends.base import EXECUTORS, load_backend
from tunedeck.core.env.models import MODELS
from tunedeck.core.errors import UsageError


def test_every_executor_of_a_profile_has_a_backend() -> None:
    assert set(EXECUTORS) == set(MODELS)
    assert {load_backend(name, {}).name for name in EXECUTORS} == set(MODELS)


def test_an_executor_that_is_mistyped_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="slurm"):
        load_backend("slrum", {})
