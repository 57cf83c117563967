from __future__ import annotations

import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_package_of_schemas_loads_no_pydantic() -> None:
    assert "pydantic" not in modules_after("import tunedeck.core.schema")


def test_a_schema_loads_nothing_but_pydantic_and_itself() -> None:
    loaded = modules_after("from tunedeck.core.schema import TrainConfig")
    assert "pydantic" in loaded
    assert not loaded & {"omegaconf", "yaml", "torch", "jinja2", "rich", "click"}
    ours = {name for name in loaded if name.startswith("tunedeck.core.")}
    assert all(name.startswith("tunedeck.core.schema") for name in ours)


def test_importing_the_composer_loads_neither_omegaconf_nor_pydantic() -> None:
    loaded = modules_after("import tunedeck.core.config.compose, tunedeck.core.config.paths")
    assert not loaded & {"omegaconf", "yaml", "pydantic", "torch", "jinja2", "rich"}
