"""The wizard against every place that a run can go to: real daemons, services on loopback."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import OptionList

from tests.conftest import Command
from tests.system.clouds.lepton_place import workspace_on_loopback
from tests.system.clouds.runai_place import tenant_on_loopback
from tests.system.clouds.runai_schema import CLAIM, CLIENT, PROJECT
from tests.system.places import hub_on_loopback
from tests.system.testbed import Testbed
from tests.tui.conftest import said, shown, until, working_folder
from tunedeck.core.drafts import Draft
from tunedeck.core.env.generate import generate, write
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.run import RunScreen

__all__ = ["working_folder"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CANARY = "canary-3f9ac0417b"
LIMIT_S = 300
SHORT = ("step_scheduler.max_steps=4", "sampling.prompts=[]")


@dataclass(frozen=True)
class Site:
    """A place as the wizard is to show it.

    Attributes:
        profile: the one that is chosen.
        has: words of what it has free.
        sends: words of what is sent.
        service: the fake, None behind the testbed.
    """

    profile: str
    has: tuple[str, ...]
    sends: tuple[str, ...]
    service: Any = None


@contextlib.contextmanager
def _hf_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("HF_NAMESPACE", "ada")
    monkeypatch.setenv("HF_FLAVOR", "t4-small")
    with hub_on_loopback(folder, monkeypatch) as hub:
        sends = ('"flavor": "t4-small"', '"timeoutSeconds"', "‹the script below")
        yield Site("hf_peft_automodel", ("Flavors", "USD per hour"), sends, hub)


@contextlib.contextmanager
def _lepton(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in {
        "LEPTON_NODE_GROUP": "h100-pool",
        "LEPTON_GPU_SHAPE": "gpu.8xh100-80gb",
        "LEPTON_ONE_GPU_SHAPE": "gpu.h100-80gb",
        "NEMOTRON_HOST_MOUNT": "/users/ada",
        "NEMOTRON_MOUNT_FROM": "node-nfs:lustre",
    }.items():
        monkeypatch.setenv(name, value)
    with workspace_on_loopback(folder, monkeypatch) as service:
        sends = ('"resource_shape": "gpu.h100-80gb"', '"secret_name_ref"')
        yield Site("lepton_peft_automodel", ("Node groups", "h100-pool"), sends, service)


@contextlib.contextmanager
def _dgxcloud(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with tenant_on_loopback(folder, monkeypatch) as service:
        monkeypatch.setenv("DGXCLOUD_BASE_URL", service.base_url)
        monkeypatch.setenv("DGXCLOUD_CLIENT_ID", CLIENT)
        monkeypatch.setenv("DGXCLOUD_PROJECT_NAME", PROJECT)
        monkeypatch.setenv("DGXCLOUD_PVC_CLAIM", CLAIM)
        sends = ('"gpuDevicesRequest": 1', '"backoffLimit": 0')
        yield Site("dgxcloud_peft_automodel", ("Projects", "Node pools"), sends, service)


CLOUDS = {"hf_jobs": _hf_jobs, "lepton": _lepton, "dgxcloud": _dgxcloud}


@pytest.fixture(params=sorted(CLOUDS))
def cloud(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    working_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A cloud, with the env file that the generator makes for it in the working folder."""
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with CLOUDS[request.param](tmp_path, monkeypatch) as site:
        write(generate(request.param, [], working_folder, {}))
        yield site


async def choose_place(pilot: Pilot[None], site: Site, *overrides: str) -> LaunchScreen:
    """Open the Environment stage, and mark the site's profile as a person does: by typing."""
    chosen = Selection("peft/automodel", config="tiny", overrides=(*SHORT, *overrides))
    screen = LaunchScreen(Draft.begin(chosen, "environment"))
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: "built in" in shown(pilot) or "for peft/automodel" in shown(pilot))
    await pilot.press("slash", *site.profile, "enter")
    profiles = screen.query_one("#profiles", OptionList)
    await until(
        pilot,
        lambda: (marked := profiles.highlighted_option) is not None and marked.id == site.profile,
    )
    return screen


async def everything_on_the_page(pilot: Pilot[None]) -> str:
    """What a page of the review has, from its top to its end."""
    page = pilot.app.screen.query_one("#review-page", VerticalScroll)
    seen = [shown(pilot)]
    while page.scroll_offset.y < page.max_scroll_y:
        page.scroll_page_down(animate=False)
        await pilot.pause()
        seen.append(shown(pilot))
    return "\n".join(seen)


async def ended(pilot: Pilot[None], seconds: float = LIMIT_S) -> RunScreen:
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen), seconds)
    screen = pilot.app.screen
    assert isinstance(screen, RunScreen)
    await until(pilot, lambda: screen.record.state.terminal, seconds)
    return screen


async def walk(pilot: Pilot[None], site: Site, tunedeck: Command, folder: Path) -> RunScreen:
    """From the place to the end of the run, looking at everything on the way."""
    screen = await choose_place(pilot, site)
    await pilot.press("i")
    await until(pilot, lambda: all(words in shown(pilot) for words in site.has), LIMIT_S)
    assert screen.command_line == f"tunedeck queue {site.profile}"
    await pilot.press("enter")
    await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
    digest = json.loads(
        tunedeck(*shlex.split(screen.command_line)[1:], "--json", cwd=folder).stdout
    )["plan"]["digest"]
    assert digest[:20] in shown(pilot)
    await pilot.press("o")
    await until(pilot, lambda: f"✓ {site.profile} was asked" in shown(pilot), LIMIT_S)
    if site.profile.startswith("hf_"):
        assert "at most $" in shown(pilot)
    await pilot.press("p", "p", "p")
    await until(pilot, lambda: "what is sent (4 of 4" in shown(pilot))
    sent = await everything_on_the_page(pilot)
    assert all(words in sent for words in site.sends)
    assert CANARY not in sent
    await pilot.press("s")
    run = await ended(pilot)
    assert run.record.state is RunState.SUCCEEDED
    await until(pilot, lambda: "step 4/4" in shown(pilot) and "exit=0" in shown(pilot), LIMIT_S)
    assert run.record.word in shown(pilot)
    assert run.record.plan["digest"] == digest
    return run


async def brought_home_and_resumed(pilot: Pilot[None], run: RunScreen) -> None:
    """From an ended run: its files are fetched, and another one goes on from its checkpoint."""
    await pilot.press("g")
    await until(pilot, lambda: "Fetched " in said(pilot), LIMIT_S)
    assert json.loads((run.record.run_dir / "result.json").read_text())["steps"] == 4
    await pilot.press("r")
    await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
    await pilot.press("2", "colon", *"step_scheduler.max_steps=6", "enter", "4")
    await until(pilot, lambda: "max_steps=6" in shown(pilot) and "✓ Ready" in shown(pilot), LIMIT_S)
    await pilot.press("s")
    await until(pilot, lambda: "step 6/6" in shown(pilot), LIMIT_S)
    further = await ended(pilot)
    assert further.record.run_id != run.record.run_id
    assert further.record.state is RunState.SUCCEEDED
    await until(pilot, lambda: "exit=0" in shown(pilot), LIMIT_S)
    log = further.record.log.read_text()
    assert "step=5 " in log
    assert "step=4 epoch" not in log


async def test_a_launch_goes_to_each_cloud_from_the_wizard(
    cloud: Site, tunedeck: Command, working_folder: Path, tmp_path: Path
) -> None:
    async with WizardApp().run_test(size=(120, 36)) as pilot:
        run = await walk(pilot, cloud, tunedeck, working_folder)
        kept = run.record.log.read_text()
        # Long after, the log, the curve and the outcome are here: nobody else is asked for them.
        await pilot.press("escape")
        asked = len(cloud.service.requests)
        await pilot.app.push_screen(RunScreen(Registry().get(run.record.run_id)))
        await until(pilot, lambda: "step 4/4" in shown(pilot) and "exit=0" in shown(pilot))
        assert "training loss" in shown(pilot)
        assert run.record.log.read_text() == kept
        assert len(cloud.service.requests) == asked
        await brought_home_and_resumed(pilot, run)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


async def test_a_service_that_hangs_is_given_up_and_one_that_refuses_says_what_to_do(
    cloud: Site,
) -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await choose_place(pilot, cloud)
        hangs = cloud.service.fault("GET", "", delay_s=600, times=99)
        also = cloud.service.fault("POST", "", delay_s=600, times=99)
        await pilot.press("i")
        await until(pilot, lambda: f"◌ Asking {cloud.profile}" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: f"Given up: Asking {cloud.profile}" in said(pilot))
        hangs.times = also.times = 0
        refuses = cloud.service.fault("GET", "", status=401, times=99)
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
        await pilot.press("o")
        await until(pilot, lambda: "401" in shown(pilot), LIMIT_S)
        assert "fix:" in shown(pilot)
        refuses.times = 0
        await pilot.press("o")
        await until(pilot, lambda: f"✓ {cloud.profile} was asked" in shown(pilot), LIMIT_S)
    assert Registry().list() == []


async def test_a_run_is_cancelled_from_its_screen(cloud: Site) -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await choose_place(pilot, cloud, "run.env.run_command=sleep 600")
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
        await pilot.press("s")
        await until(pilot, lambda: "● running" in shown(pilot), LIMIT_S)
        await pilot.press("x")
        await until(pilot, lambda: "Cancel the run" in shown(pilot))
        await pilot.press("y")
        run = await ended(pilot)
        assert run.record.state is RunState.CANCELLED
        await until(pilot, lambda: "✗ cancelled" in shown(pilot))


@pytest.fixture
def slurm(testbed: Testbed, working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    profile = testbed.profile(venv=f'"{sys.prefix}"', nodes="1")
    (working_folder / "env.toml").write_text(profile)
    return Site("slurm_testbed", ("Partitions", "batch"), ("#SBATCH --partition=batch",))


async def test_the_same_launch_goes_to_the_cluster_by_changing_one_thing(
    slurm: Site, tunedeck: Command, working_folder: Path
) -> None:
    async with WizardApp().run_test(size=(120, 36)) as pilot:
        chosen = Selection("peft/automodel", config="tiny", overrides=SHORT)
        await pilot.app.push_screen(LaunchScreen(Draft.begin(chosen, "review")))
        await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
        await pilot.press("s")
        here = await ended(pilot)
        assert here.record.state is RunState.SUCCEEDED
        # From the run that was here: again, on to where it runs, one down, take it, send it.
        await pilot.press("a")
        await until(pilot, lambda: "most used" in shown(pilot), LIMIT_S)
        await pilot.press("n")
        await until(pilot, lambda: "slurm_testbed" in shown(pilot), LIMIT_S)
        await pilot.press("down", "enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
        assert "profile" in shown(pilot)
        await pilot.press("s")
        await until(pilot, lambda: pilot.app.screen is not here, LIMIT_S)
        there = await ended(pilot)
        assert there.record.backend == "slurm"
        assert there.record.state is RunState.SUCCEEDED
        await until(pilot, lambda: "step 4/4" in shown(pilot), LIMIT_S)


async def test_the_walk_on_the_cluster(
    slurm: Site, tunedeck: Command, working_folder: Path
) -> None:
    async with WizardApp().run_test(size=(120, 36)) as pilot:
        run = await walk(pilot, slurm, tunedeck, working_folder)
        await pilot.press("g")
        await until(pilot, lambda: "Fetched " in said(pilot), LIMIT_S)
        assert (run.record.run_dir / "result.json").is_file()


async def test_the_lines_of_one_node_and_of_one_rank_are_shown(slurm: Site) -> None:
    async with WizardApp().run_test(size=(120, 36)) as pilot:
        await choose_place(pilot, slurm, "run.env.nodes=2")
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), LIMIT_S)
        await pilot.press("s")
        run = await ended(pilot)
        assert run.record.state is RunState.SUCCEEDED
        for chosen, options in (
            ("node 1, all lines", "--node 1"),
            ("node 1, rank 1", "--node 1 --rank 1"),
        ):
            await pilot.press("t", *chosen, "enter")
            await until(pilot, lambda: "[rank1]: process" in shown(pilot), LIMIT_S)
            assert run.command_line.endswith(options)
            assert "[rank0]" not in shown(pilot)
        await pilot.press("t", *"rank 0", "enter")
        await until(pilot, lambda: "[rank0]: process" in shown(pilot), LIMIT_S)
        assert "[rank1]" not in shown(pilot)
