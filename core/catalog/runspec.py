"""The header of a Nemotron step's `step.py`: how it is launched, and what it needs for it.

The facts stand in a `# /// script` block (PEP 723) at the top of the script, under
`[tool.runspec]`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from ..errors import UsageError
from ..findings import Finding
from ..toml.source import parse_toml
from .tables import CatalogTable, validate

_BLOCK = re.compile(r"^# /// script[ \t]*\n((?:#[^\n]*\n)*?)# ///[ \t]*$", re.MULTILINE)


class _Part(CatalogTable):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class RunTable(_Part):
    """`[tool.runspec.run]`: the launcher, a command line instead of it, and where it starts."""

    launch: Literal["torchrun", "python", "ray", "direct"] = "torchrun"
    cmd: str | None = None
    workdir: str | None = None


class HeaderConfig(_Part):
    """`[tool.runspec.config]`: the folder of the configs and the one used by default."""

    dir: str = "./config"
    default: str = "default"


class HeaderResources(_Part):
    """`[tool.runspec.resources]`. `gpu` leaves the number to the profile."""

    nodes: int = 1
    gpus_per_node: Annotated[int | None, BeforeValidator(lambda v: None if v == "gpu" else v)] = 8


class Runspec(_Part):
    """`[tool.runspec]`."""

    image: str | None = None
    run: RunTable = Field(default_factory=RunTable)
    config: HeaderConfig = Field(default_factory=HeaderConfig)
    resources: HeaderResources = Field(default_factory=HeaderResources)


class _Tool(_Part):
    runspec: Runspec | None = None


class _Script(_Part):
    tool: _Tool = Field(default_factory=_Tool)


def read_runspec(script: Path) -> tuple[Runspec | None, list[Finding]]:
    """Read the header of a script.

    Returns:
        The facts, or None where there is no such header or it is wrong; and what is wrong.
    """
    try:
        text = script.read_text(encoding="utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError):
        return None, []
    block = _BLOCK.search(text)
    if block is None:
        return None, []
    # Blanks in place of what is no TOML keep every key on the line and column it has in the script.
    above = "\n" * text.count("\n", 0, block.start(1))
    body = re.sub(r"^#", " ", block[1], flags=re.MULTILINE)
    try:
        source = parse_toml(above + body, str(script))
    except UsageError as error:
        return None, [Finding.of(error)]
    found, problems = validate(_Script, source, tolerant=True)
    return (found.tool.runspec if found else None), problems
