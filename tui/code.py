"""Highlighted code: configs, scripts, payloads, diffs."""

from __future__ import annotations

from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme, Syntax

from ..core.text import strip_controls

# Only names of colors, so that they are those of the theme. Dimmed text would be another color in
# each theme, and not always one that can be read.
_THEME = ANSISyntaxTheme(
    {
        token: Style(color="bright_black") if style.dim else style
        for token, style in ANSI_DARK.items()
    }
)


def code(text: str, language: str) -> Syntax:
    """Highlighted text, without anything that a terminal would act on."""
    return Syntax(
        strip_controls(text),
        language,
        theme=_THEME,
        background_color="default",
        word_wrap=True,
    )
