from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.tui.conftest import said, shown, until
from tunedeck.core.backends.base import Capabilities
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.drafts import Draft
from tunedeck.core.findings import Finding
from tunedeck.core.plan import Plan
from tunedeck.core.prepare import Prepared, prepare
from tunedeck.core.replays.replay import save_replay
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.profile import ProfileScreen
from tunedeck.tui.screens.replay import ReplayScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.stages.config import ConfigStage
from tunedeck.tui.stages.review import ReviewStage
from tunedeck.tui.stages.stage import Chosen

TINY = Selection("peft/automodel", config="tiny")
CHANGED = replace(TINY, overrides=("optimizer.lr=5e-4",))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local backend, which says that it is elsewhere."""
    monkeypatch.setattr(LocalBackend, "capabilities", Capabilities(remote=True))


async def test_what_is_other_than_in_the_last_run_is_a_page_of_its_own() -> None:
    plan = resolve(TINY)
    Registry().add(RunRecord.of(plan, forced=False))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(LaunchScreen(Draft.begin(CHANGED, "review")))
        await until(pilot, lambda: f"1 value other than in {plan.run_id}" in shown(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "config.optimizer.lr" in shown(pilot))
        assert "+ 0.0005" in shown(pilot)


async def test_what_is_checked_anew_is_not_shown_as_it_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()

    async def slowly(selection: Selection, **options: Any) -> Prepared:
        if selection.overrides:
            await asyncio.to_thread(go_on.wait, 60)
        return await prepare(selection, **options)

    monkeypatch.setattr("tunedeck.tui.stages.review.prepare", slowly)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(TINY, "review"))
        await app.push_screen(screen)
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        app.screen.post_message(Chosen(CHANGED))
        await until(pilot, lambda: "Resolving" in shown(pilot))
        assert "digest" not in shown(pilot)
        assert "summary" not in shown(pilot)
        go_on.set()
        await until(pilot, lambda: "✓ Ready" in shown(pilot) and "lr=5e-4" in shown(pilot))
        await until(pilot, lambda: "summary" in shown(pilot))


async def test_a_saved_launch_is_held_against_its_lock() -> None:
    save_replay(resolve(TINY).to_json(), "mine")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(ReplayScreen("mine"))
        await until(pilot, lambda: "Nothing has changed" in shown(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "most used" in shown(pilot))
        await pilot.press("colon", *"optimizer.lr=5e-4", "enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        await pilot.press("alt+4")
        await until(pilot, lambda: "1 value other than 'mine'" in shown(pilot))


async def test_one_key_leads_to_the_field_that_is_in_the_way() -> None:
    app = WizardApp()
    chosen = replace(TINY, overrides=("peft.dim=-3",))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(chosen, "review"))
        await app.push_screen(screen)
        await until(pilot, lambda: "cannot be launched" in shown(pilot))
        await pilot.press("f")
        await until(pilot, lambda: "✗ peft.dim" in shown(pilot))
        row = screen.query_one(ConfigStage)._row
        assert row is not None
        assert row.info.key == "peft.dim"


async def test_a_finding_about_the_profile_leads_to_its_key_there(working_folder: Path) -> None:
    (working_folder / "env.toml").write_text('[mine]\nexecutor = "local"\nvenv = "/none"\n')
    finding = Finding("error", "bad", profile="mine", key="venv")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(
            Draft.begin(replace(TINY, profile="mine", cwd=working_folder), "review")
        )
        await app.push_screen(screen)
        await until(pilot, lambda: screen.query_one(ReviewStage).prepared is not None)
        screen.go_to_field(finding)
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        await until(pilot, lambda: "/none" in shown(pilot))
        keys = app.screen.query_one("#keys")
        await until(pilot, lambda: getattr(keys, "highlighted_option", None) is not None)
        assert keys.highlighted_option.id == "venv"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("elsewhere")
async def test_a_place_elsewhere_is_asked_when_one_says_so_and_that_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def hangs(self: LocalBackend, plan: Plan) -> list[Finding]:
        asked.append(plan.run_id)
        await asyncio.sleep(3600)
        return []

    monkeypatch.setattr(LocalBackend, "preflight", hangs)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(TINY, "review"))
        await app.push_screen(screen)
        await until(pilot, lambda: "local is not asked yet" in shown(pilot))
        assert not asked
        await pilot.press("o")
        await until(pilot, lambda: "esc gives up" in shown(pilot) and len(asked) == 1)
        await pilot.press("s")
        await until(pilot, lambda: "is being asked" in said(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "local was not asked" in shown(pilot))
        prepared = screen.query_one(ReviewStage).prepared
        assert prepared is not None
        assert asked == [prepared.plan.run_id]
        assert Registry().list() == []


@pytest.mark.usefixtures("elsewhere")
async def test_submitting_asks_first_and_stops_at_what_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuses(self: LocalBackend, plan: Plan) -> list[Finding]:
        return [Finding("error", "The account is closed.", profile="local", key="account")]

    monkeypatch.setattr(LocalBackend, "preflight", refuses)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(LaunchScreen(Draft.begin(TINY, "review")))
        await until(pilot, lambda: "is not asked yet" in shown(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "The account is closed." in shown(pilot))
        await until(pilot, lambda: "Not submitted" in said(pilot))
    assert Registry().list() == []


async def test_a_file_that_the_system_refuses_is_told_and_nothing_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "/data/train.jsonl")

    monkeypatch.setattr("tunedeck.tui.stages.review.prepare", refuses)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(LaunchScreen(Draft.begin(TINY, "review")))
        await until(pilot, lambda: "/data/train.jsonl: Permission denied" in shown(pilot))
        assert "cannot be launched as it is" in shown(pilot)


async def test_what_has_gone_of_an_upload_is_told_while_a_launch_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tellers: list[Callable[[str, int, int], None]] = []

    class Uploads(LocalBackend):
        def tell_uploads(self, told: Callable[[str, int, int], None]) -> None:
            tellers.append(told)

        async def submit(self, submission: object) -> NoReturn:
            tellers[0]("data\x1b[2J.jsonl", 1_500_000, 12_000_000)
            await asyncio.sleep(3600)
            raise AssertionError("given up long before")

    monkeypatch.setattr("tunedeck.core.backends.local.backend.LocalBackend", Uploads)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(LaunchScreen(Draft.begin(TINY, "review")))
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "Uploading data.jsonl: 1.5 of 12.0 MB" in shown(pilot))
        tellers[0]("data.jsonl", 12_000_000, 12_000_000)
        await until(pilot, lambda: "Submitting r" in shown(pilot))


async def test_a_submission_that_hangs_can_be_given_up_and_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hangs(self: LocalBackend, submission: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(LocalBackend, "submit", hangs)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(TINY, "review"))
        await app.push_screen(screen)
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "Submitting r" in shown(pilot) and bool(Registry().list()))
        await pilot.press("escape")
        await until(pilot, lambda: "Given up: Submitting" in said(pilot))
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        assert not isinstance(app.screen, RunScreen)
        await until(pilot, lambda: Registry().list()[0].word == "given up")
    (record,) = Registry().list()
    assert record.state == "submitting"
