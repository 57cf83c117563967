from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry


@pytest.fixture
def sent(make_plan: PlanMaker, registry: Registry) -> RunRecord:
    """A run that a service has taken."""
    record = replace(RunRecord.of(make_plan(), forced=False), job_id="job-1", handle={})
    registry.add(record)
    return record
