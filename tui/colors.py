"""What themes color text with, made legible on all that text stands on.

Themes are drawn for large areas: the yellow of a light one can hardly be read as a word. Each color
that words have is moved towards white or black until it can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from rich.terminal_theme import TerminalTheme
from textual.color import Color

CONTRAST = 4.5
"""The least contrast of text that WCAG 2.2 asks for (success criterion 1.4.3, level AA)."""

WORDS = ("foreground", "primary", "secondary", "accent", "success", "warning", "error")
"""The variables that text is colored with, beside `text-muted`."""
GROUNDS = (
    "background",
    "surface",
    "panel",
    "block-cursor-background",
    "block-cursor-blurred-background",
)
"""The variables that text stands on."""

_MARKED, _MARKED_BLURRED = 0.22, 0.1
_BAR = 0.45
_BAR_GROUNDS = (
    "scrollbar-background",
    "scrollbar-background-hover",
    "scrollbar-background-active",
    "scrollbar-corner-color",
)
_STEPS = 20
_QUIET = 0.45


def contrast(one: Color, other: Color) -> float:
    """The ratio of two colors' luminances as WCAG 2.2 defines it, from 1 to 21."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@cache
def _luminance(color: Color) -> float:
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in color.normalized
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def legible(variables: Mapping[str, str]) -> dict[str, str]:
    """A theme's variables with those changed that text is drawn with.

    The mark of a list is a tint of the background, so that what it stands on keeps its colors.
    Themes that leave the colors to the terminal stay as they are.
    """
    if not variables["background"].startswith("#") or not variables["foreground"].startswith("#"):
        return dict(variables)
    changed = dict(variables)
    ground, primary = Color.parse(variables["background"]), Color.parse(variables["primary"])
    changed["block-cursor-background"] = ground.blend(primary, _MARKED).hex
    changed["block-cursor-blurred-background"] = ground.blend(primary, _MARKED_BLURRED).hex
    grounds = [Color.parse(changed[name]) for name in GROUNDS]
    for name in WORDS:
        changed[name] = moved(Color.parse(variables[name]), grounds).hex
    foreground = Color.parse(changed["foreground"])
    changed["text-muted"] = moved(foreground.blend(ground, _QUIET), grounds).hex
    changed |= {
        "block-cursor-foreground": foreground.hex,
        "block-cursor-blurred-foreground": foreground.hex,
        "block-cursor-text-style": "bold",
        "footer-foreground": foreground.hex,
        "footer-description-foreground": foreground.hex,
        "footer-key-foreground": changed["accent"],
        "footer-background": changed["panel"],
        "footer-item-background": "transparent",
        "footer-key-background": "transparent",
        "footer-description-background": "transparent",
        "scrollbar": ground.blend(primary, _BAR).hex,
        "scrollbar-hover": primary.hex,
        "scrollbar-active": primary.hex,
        **dict.fromkeys(_BAR_GROUNDS, ground.hex),
    }
    return changed


def moved(color: Color, grounds: Sequence[Color]) -> Color:
    """A color moved away from what it stands on, as little as makes it legible on all of that."""
    away = Color(255, 255, 255) if _luminance(grounds[0]) < 0.18 else Color(0, 0, 0)
    for step in range(_STEPS):
        tried = color.blend(away, step / _STEPS)
        if min(contrast(tried, ground) for ground in grounds) >= CONTRAST:
            return tried
    return away


def terminal_colors(theme: TerminalTheme, variables: Mapping[str, str]) -> TerminalTheme:
    """What Rich's named colors (of highlighted code, of curves) are drawn as, legible too."""
    if not variables["background"].startswith("#"):
        return theme
    grounds = [Color.parse(variables[name]) for name in GROUNDS]
    ansi = [moved(Color(*theme.ansi_colors[number]), grounds).rgb for number in range(16)]
    plain = Color.parse(variables["foreground"]).rgb
    return TerminalTheme(grounds[0].rgb, plain, ansi[:8], ansi[8:])
