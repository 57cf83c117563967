"""What a step needs on the machine that runs it, and whether this machine has it."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .step import LaunchFacts

_DISTRIBUTION = "tunedeck"
_SHELLS_OWN = {"case", "cd", "command", "eval", "exec", "export", "for", "if", "set", "source",
               "time", "trap", "ulimit", "umask", "until", "while"}  # fmt: skip


def lacking(launch: LaunchFacts) -> str | None:
    """Why this machine cannot run it, with the remedy, or None if it can."""
    if launch.extra and (missing := missing_of_extra(launch.extra)):
        return (
            f"this machine lacks {', '.join(missing)}. "
            f"Install them: pip install '{_DISTRIBUTION}[{launch.extra}]'"
        )
    if launch.module and not _importable(launch.module, sys.path):
        return f"the Python module {launch.module} is not installed here"
    if launch.workdir and not Path(launch.workdir).is_dir():
        return f"it starts in {launch.workdir}, a folder of its container, which is not here"
    if (program := _program(launch.command)) and not shutil.which(program):
        return f"its command starts '{program}', which is not on this machine's PATH"
    if launch.script is not None:
        return _lacking_for_script(launch.script)
    return None


def _program(command: str | None) -> str | None:
    """The program that a command line starts with; None where the shell itself begins."""
    try:
        words = shlex.split(command or "")
    except ValueError:
        return None
    first = next((word for word in words if not re.match(r"\w+=", word)), "")
    plain = re.fullmatch(r"[A-Za-z0-9][\w.+-]*", first)
    return first if plain and first not in _SHELLS_OWN else None


def missing_of_extra(extra: str) -> list[str]:
    """The packages of one of Tunedeck's extras that are not installed here."""
    missing = []
    for requirement in importlib.metadata.requires(_DISTRIBUTION) or ():
        package, _, marker = requirement.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", marker):
            name = re.split(r"[^A-Za-z0-9._-]", package.strip(), maxsplit=1)[0]
            try:
                importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                missing.append(name)
    return missing


def _lacking_for_script(script: Path) -> str | None:
    try:
        tree = ast.parse(script.read_bytes(), filename=str(script))
    except (OSError, SyntaxError, ValueError) as error:
        return f"{script} cannot be read as Python: {error}"
    search = [str(script.parent), *sys.path]
    missing = sorted(
        {name.partition(".")[0] for name in _imported(tree) if not _importable(name, search)}
    )
    if not missing:
        return None
    them = "package" if len(missing) == 1 else "packages"
    return f"{script.name} imports the Python {them} {', '.join(missing)}, not installed here"


def _imported(tree: ast.Module) -> set[str]:
    """The modules that the script imports, but for those it can do without.

    An import below `try` or `if` is taken for optional; one inside a function is not.
    """
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif not isinstance(node, ast.Try | ast.If | ast.expr):
            waiting.extend(ast.iter_child_nodes(node))
    return names


def _importable(module: str, search: Sequence[str]) -> bool:
    """Whether a module can be found, without importing anything.

    A folder that happens to bear the name of a package is found as a namespace package: only a
    search that goes on to the first real package or module tells the two apart.
    """
    if module.partition(".")[0] in sys.stdlib_module_names:
        return True
    name, where = "", search
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, list(where))
        if spec is None:
            return False
        if spec.origin is not None:
            return True
        where = list(spec.submodule_search_locations or ())
    return False
