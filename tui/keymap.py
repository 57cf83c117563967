"""Keys that a person has put elsewhere: `keys.toml` in the configuration folder.

It holds one line a binding, by the id that the help screen shows: `"home.new" = "f2"`.
"""

from __future__ import annotations

from pathlib import Path

from ..core import locations
from ..core.errors import UsageError


def keymap_file() -> Path:
    """The file of rebound keys; it need not be there."""
    return locations.config_dir() / "keys.toml"


def read_keymap() -> dict[str, str]:
    """Binding id → keys, comma between several.

    Raises:
        UsageError: if the file is no TOML or holds something else than strings.
    """
    if not keymap_file().exists():
        return {}
    from ..core.toml.source import read_toml

    source = read_toml(keymap_file())
    for name, keys in source.data.items():
        if not isinstance(keys, str):
            raise UsageError(
                f"'{name}' is no key.",
                place=source.locate((name,)),
                fix='Write the binding\'s id and its keys: "home.new" = "f2"',
            )
    return {name: str(keys) for name, keys in source.data.items()}
