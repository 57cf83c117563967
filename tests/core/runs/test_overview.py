from __future__ import annotations

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.base import load_backend
from tunedeck.core.launch import launch
from tunedeck.core.runs.overview import Overview
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import wait_until_ended
from tunedeck.core.states import RunState


async def test_a_run_is_seen_with_its_curve_and_newest_values(
    make_plan: PlanMaker, registry: Registry
) -> None:
    plan = make_plan("print('step=1 loss=3.0'); print('step=2 loss=1.0')")
    backend = load_backend("local", dict(plan.profile_values))
    record = await launch(plan, backend.render(plan), backend, registry)
    await wait_until_ended(record, registry, 30)
    (glance,) = Overview(registry).known()
    assert glance.record.state is RunState.SUCCEEDED
    assert glance.curve == "█▁"
    assert glance.latest == {"step": 2, "loss": 1.0}


def test_an_empty_registry_is_an_empty_overview(registry: Registry) -> None:
    assert Overview(registry).known() == []
    assert Overview(registry).ask() == []


def test_older_runs_than_are_listed_are_told_of(make_plan: PlanMaker, registry: Registry) -> None:
    for name in ("one", "two"):
        registry.add(RunRecord.of(make_plan(name=name), forced=False))
    overview = Overview(registry, limit=1)
    assert len(overview.known()) == 1
    assert overview.has_older
    overview = Overview(registry, limit=2)
    assert len(overview.known()) == 2
    assert not overview.has_older
