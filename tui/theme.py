"""The wizard's own theme; Textual's other themes can be chosen in the command palette."""

from __future__ import annotations

from textual.theme import Theme

THEME = Theme(
    name="tunedeck",
    primary="#7aa2c8",
    secondary="#9a8fc8",
    accent="#6cc0b8",
    foreground="#d6d9dd",
    background="#14171b",
    surface="#1a1e23",
    panel="#232930",
    success="#8fbf7a",
    warning="#d9b36c",
    error="#d9776c",
    dark=True,
    variables={"footer-key-foreground": "#6cc0b8", "block-cursor-text-style": "none"},
)
