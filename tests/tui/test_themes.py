from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES

from tests.tui.conftest import said, shown, until
from tests.tui.scenes import SCENES, prepare_folder
from tunedeck.tui.app import WizardApp
from tunedeck.tui.colors import GROUNDS, WORDS, contrast, legible
from tunedeck.tui.theme import THEME

_OWN = {name: theme for name, theme in BUILTIN_THEMES.items() if not name.startswith("ansi-")}
_OWN[THEME.name] = THEME
_LIGHT_AND_DARK = ("tunedeck", "textual-light", "solarized-dark", "solarized-light", "nord")
_FRAME = set("─│┌┐└┘├┤╭╮╰╯▏▎▍▌▋▊▉█▁▂▃▄▅▆▇━╸╺▔▕🬀 ")


def test_contrast_is_that_of_the_guideline() -> None:
    white, black, grey = Color(255, 255, 255), Color(0, 0, 0), Color(118, 118, 118)
    assert contrast(white, black) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.005)  # the example of WCAG


@pytest.mark.parametrize("name", _OWN)
def test_words_can_be_read_on_all_that_they_stand_on(name: str) -> None:
    theme = _OWN[name]
    variables = legible({**theme.to_color_system().generate(), **theme.variables})
    for word in (*WORDS, "text-muted"):
        for ground in GROUNDS:
            pair = Color.parse(variables[word]), Color.parse(variables[ground])
            assert contrast(*pair) >= 4.5, (word, ground)


@pytest.mark.parametrize("name", _OWN)
def test_what_tells_states_apart_keeps_apart(name: str) -> None:
    variables = legible({**_OWN[name].to_color_system().generate(), **_OWN[name].variables})
    telling = [variables[word] for word in ("foreground", "success", "warning", "error")]
    assert len(set(telling)) == len(telling)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the scenes."""
    prepare_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def _faint(pilot: Pilot[None]) -> list[str]:
    """Words on the screen, after all filters, that are fainter than is allowed."""
    app = pilot.app
    found = []
    dialogs = app.screen.query("#dialog")
    region = dialogs.first().region if dialogs else app.screen.region  # what is behind is dimmed
    for row in app.screen._compositor.render_strips()[region.y : region.bottom]:
        strip = row.crop(region.x, region.right)
        for one in app._filters:
            strip = strip.apply_filter(one, app.screen.background_colors[1])
        for segment in strip:
            style = segment.style
            if not set(segment.text) - _FRAME or style is None or style.color is None:
                continue
            if style.bgcolor is None or style.bgcolor.triplet is None or style.dim:
                continue
            if style.color.triplet is None:
                continue
            front, back = (Color.from_rich_color(c) for c in (style.color, style.bgcolor))
            ratio = contrast(front, back)
            if ratio < 4.4:  # colors are rounded on their way
                found.append(f"{app.theme}: {segment.text!r} {ratio:.2f} {front.hex} on {back.hex}")
    return found


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("scene", SCENES)
async def test_each_screen_can_be_read_in_light_and_dark(scene: str, folder: Path) -> None:
    app = WizardApp(read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await SCENES[scene](pilot, folder)
        faint = []
        for name in _LIGHT_AND_DARK:
            app.theme = name
            await pilot.pause(0.15)
            faint += _faint(pilot)
    assert not faint, "\n".join(faint)


async def test_a_theme_chosen_in_the_palette_is_there_in_the_next_session(home: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"theme", "enter")
        await until(pilot, lambda: "Search for themes" in shown(pilot))
        await pilot.press(*"nord", "enter")
        await until(pilot, lambda: app.theme == "nord")
        await until(pilot, (home / "config/wizard.toml").exists)
    assert WizardApp().theme == "nord"


async def test_what_else_is_in_the_file_of_settings_stays(home: Path) -> None:
    (home / "config").mkdir(parents=True)
    file = home / "config/wizard.toml"
    file.write_text('# mine\ntheme = "nord"  # at night\nother = 1\n')
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = "gruvbox"
        await until(pilot, lambda: "gruvbox" in file.read_text())
    assert file.read_text() == '# mine\ntheme = "gruvbox"  # at night\nother = 1\n'


@pytest.mark.parametrize("text", ['theme = "no-such"', "theme = 3", "[[[", "theme = '\\x1b[2J'"])
async def test_a_theme_that_is_none_is_told_and_stops_nothing(home: Path, text: str) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/wizard.toml").write_text(text)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "wizard.toml" in said(pilot))
        assert app.theme == THEME.name
        await until(pilot, lambda: "New launch" in shown(pilot))


async def test_a_theme_that_cannot_be_kept_is_told(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "config").write_text("a file where the folder would be")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = "nord"
        await until(pilot, lambda: str(home / "config") in said(pilot))
        assert app.theme == "nord"


async def test_read_only_keeps_no_theme(home: Path) -> None:
    app = WizardApp(read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = "nord"
        await until(pilot, lambda: app.current_theme.name == "nord")
        await pilot.pause(0.2)
    assert not (home / "config/wizard.toml").exists()


async def test_the_colors_of_a_theme_are_worked_out_once() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)):
        dark = app.ansi_theme  # asked for with each line that is drawn
        assert app.ansi_theme is dark
        app.theme = "textual-light"
        assert app.ansi_theme is not dark
