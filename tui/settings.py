"""What the wizard keeps from one session to the next: `wizard.toml` in the configuration folder."""

from __future__ import annotations

from pathlib import Path

from ..core import locations
from ..core.errors import UsageError


def settings_file() -> Path:
    """The file; it need not be there."""
    return locations.config_dir() / "wizard.toml"


def read_theme() -> str | None:
    """The theme that was chosen last, or None.

    Raises:
        UsageError: if the file is no TOML, or names no theme.
    """
    if not settings_file().exists():
        return None
    from ..core.toml.source import read_toml

    source = read_toml(settings_file())
    theme = source.data.get("theme")
    if theme is not None and not isinstance(theme, str):
        raise UsageError(
            "'theme' is no name.",
            place=source.locate(("theme",)),
            fix='Write a theme that the palette lists: theme = "nord"',
        )
    return theme


def keep_theme(name: str) -> None:
    """Have a theme in the next session too; everything else in the file stays as it is.

    Raises:
        UsageError: if the file that is there is no TOML.
        OSError: if it cannot be written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from ..core.files import write_atomic

    file = settings_file()
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8") if file.exists() else "")
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no TOML: {error}", fix="Mend it, or remove it.") from error
    document["theme"] = name
    write_atomic(file, tomlkit.dumps(document))
