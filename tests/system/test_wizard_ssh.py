"""What a login asks, as dialogs of the wizard, against an SSH server that really asks."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from tests.system.test_ssh_keys import (
    PASSPHRASE,
    WithKey,
    make_key,
    needs_keygen,
    no_key_is_open,
)
from tests.system.test_ssh_logins import Hosts, Login, WithSecondFactor, hosts
from tests.tui.conftest import said, shown, until, working_folder
from tunedeck.core.drafts import Draft
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.ask import AskLogin
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.stages.environment import EnvironmentStage

__all__ = ["hosts", "no_key_is_open", "working_folder"]

Values = dict[str, Any]


async def ask_what_is_free(pilot: Pilot[None], folder: Path, values: Values) -> None:
    """Open the Environment stage at a profile with these values, and ask what is free there."""
    lines = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    (folder / "env.toml").write_text(f"[lab]\nexecutor = 'slurm'\n{lines}\n")
    chosen = Selection("peft/automodel", config="tiny", profile="lab", cwd=folder)
    await pilot.app.push_screen(LaunchScreen(Draft.begin(chosen, "environment")))
    profiles = pilot.app.screen.query_one("#profiles", OptionList)
    await until(
        pilot,
        lambda: (marked := profiles.highlighted_option) is not None and marked.id == "lab",
    )
    await pilot.press("i")


async def asked(pilot: Pilot[None], words: str) -> Input:
    """Wait for a dialog that asks something; where one types the answer."""

    def there() -> bool:
        screen = pilot.app.screen
        seen = " ".join(shown(pilot).replace("│", " ").split())
        return isinstance(screen, AskLogin) and words in seen

    await until(pilot, there)
    return pilot.app.screen.query_one(Input)


async def answer(pilot: Pilot[None], words: str, text: str) -> None:
    typed = await asked(pilot, words)
    screen = pilot.app.screen
    typed.value = text
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen is not screen)


def told(pilot: Pilot[None]) -> Callable[[], bool]:
    """Whether the login was let in: what it says is on the screen (there is no Slurm behind it)."""
    return lambda: "lab has now" in shown(pilot)


def no_trace_of(secret: str, folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


async def test_a_password_that_was_wrong_is_asked_for_again(
    hosts: Hosts, working_folder: Path, tmp_path: Path
) -> None:
    values = await hosts.start(Login)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        typed = await asked(pilot, "Password for ada@127.0.0.1")
        assert typed.password
        await answer(pilot, "Password for ada@127.0.0.1", "open says me")
        await answer(pilot, "That was not right. Password for", "open sesame")
        await until(pilot, told(pilot))
        assert "open s" not in shown(pilot)
        # The connection is there: nothing is asked again.
        stage = pilot.app.screen.query_one(EnvironmentStage)
        before = stage.told_at["lab"]
        await pilot.press("i")
        await until(pilot, lambda: stage.told_at["lab"] > before)
        assert not isinstance(pilot.app.screen, AskLogin)
    no_trace_of("open sesame", tmp_path)
    no_trace_of("open says me", tmp_path)


async def test_a_second_factor_is_asked_for_and_shown_as_it_is_typed(
    hosts: Hosts, working_folder: Path
) -> None:
    values = await hosts.start(WithSecondFactor)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        assert (await asked(pilot, "Two questions")).password
        await answer(pilot, "Password:", "open sesame")
        assert not (await asked(pilot, "Code:")).password
        await answer(pilot, "Code:", "123456")
        await until(pilot, told(pilot))


@needs_keygen
async def test_the_passphrase_of_a_key(hosts: Hosts, working_folder: Path, tmp_path: Path) -> None:
    file = make_key(tmp_path / "key")
    values = {**await hosts.start(WithKey), "identity": str(file)}
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        assert (await asked(pilot, "Passphrase of")).password
        await answer(pilot, "Passphrase of", PASSPHRASE)
        await until(pilot, told(pilot))
    no_trace_of(PASSPHRASE, tmp_path)


async def test_an_unknown_host_is_trusted_by_its_fingerprint_or_not_at_all(
    hosts: Hosts, working_folder: Path, tmp_path: Path
) -> None:
    values = await hosts.start(Login)
    known = Path(values["known_hosts"])
    key = asyncssh.import_public_key(known.read_text().partition(" ")[2])
    fingerprint = key.get_fingerprint()
    known.write_text("")
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        await asked(pilot, "is not known")
        assert fingerprint in "".join(shown(pilot).split()).replace("│", "")
        await answer(pilot, "is not known", "no")
        await until(pilot, lambda: "was not trusted" in said(pilot))
        assert known.read_text() == ""
        await pilot.press("i")
        await answer(pilot, "is not known", "yes")
        await answer(pilot, "Password for", "open sesame")
        await until(pilot, told(pilot))
    assert key.export_public_key().decode().split()[1] in known.read_text()


async def test_leaving_the_question_ends_the_login_and_nothing_else(
    hosts: Hosts, working_folder: Path
) -> None:
    values = await hosts.start(Login)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        await asked(pilot, "Password for")
        await pilot.press("escape")
        await until(pilot, lambda: "left unanswered" in said(pilot))
        assert isinstance(pilot.app.screen, LaunchScreen)
        busy = pilot.app.screen.query_one("#busy", Static)
        await until(pilot, lambda: not busy.display)  # drawn a few times a second


async def test_a_host_that_hangs_up_takes_its_question_back(
    hosts: Hosts, working_folder: Path
) -> None:
    values = await hosts.start(Login)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        await asked(pilot, "Password for")
        for connection in Login.connections:
            connection.abort()
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        await until(pilot, lambda: "cannot be reached" in said(pilot))


async def test_a_host_that_says_nothing_can_be_given_up_at_once(
    working_folder: Path, tmp_path: Path
) -> None:
    server = socket.create_server(("127.0.0.1", 0))  # takes connections, and never says a word
    port = server.getsockname()[1]
    values = {"host": "127.0.0.1", "port": port, "user": "ada"}
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await ask_what_is_free(pilot, working_folder, values)
        await until(pilot, lambda: "◌ Asking lab" in shown(pilot))
        began = time.monotonic()
        await pilot.press("escape")
        await until(pilot, lambda: "Given up: Asking lab" in said(pilot))
        assert time.monotonic() - began < 15  # far below the time that a connection may take
        await until(pilot, lambda: "◌ Asking" not in shown(pilot))
    server.close()
