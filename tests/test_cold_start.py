"""What starting up may import: a command line that feels instant imports what it needs, late."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROBE = """
import contextlib, io, json, sys
from tunedeck.core.cli.main import run
with contextlib.redirect_stdout(io.StringIO()):
    code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def _imported_by(*args: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *args], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stdout)
    assert code == 0, done.stderr
    return set(modules)


def test_help_imports_click_and_nothing_heavy() -> None:
    heavy = {"pydantic", "omegaconf", "yaml", "tomlkit", "rich", "jinja2", "torch", "textual"}
    assert not _imported_by("--help") & heavy


@pytest.mark.parametrize("command", [("steps", "list", "--json"), ("runs", "list", "--json")])
def test_listing_imports_neither_torch_nor_the_wizard(command: tuple[str, ...]) -> None:
    heavy = {"torch", "transformers", "datasets", "textual", "asyncssh", "huggingface_hub"}
    assert not _imported_by(*command) & heavy


def test_core_never_imports_torch_or_textual() -> None:
    probe = (
        "import pkgutil, importlib, sys, tunedeck.core as core\n"
        "for module in pkgutil.walk_packages(core.__path__, 'tunedeck.core.'):\n"
        "    importlib.import_module(module.name)\n"
        "found = {'torch', 'transformers', 'datasets', 'peft', 'textual'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(found)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
