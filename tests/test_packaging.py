"""The wheel, the sdist and the editable install each give a working command in a fresh place."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, links kept, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source") / "tunedeck"
    tracked = _run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    return copy


def _build(source: Path, kind: str, out: Path) -> Path:
    _run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "-o", out, cwd=source)
    (artifact,) = out.iterdir()
    return artifact


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_install_in_a_fresh_environment_lists_the_steps_without_torch(
    kind: str, source: Path, tmp_path: Path
) -> None:
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=True)
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt"]
    if kind == "editable":
        what: list[str | Path] = ["-e", source]
    else:
        what = [_build(source, kind, tmp_path / "out")]
    _run(*pip, *what, cwd=tmp_path)

    listed = _run(tmp_path / "env" / "bin" / "tunedeck", "steps", "list", "--json", cwd=tmp_path)
    assert {"peft/automodel", "sft/automodel", "convert/merge_lora"} <= {
        step["id"] for step in json.loads(listed)
    }
    probe = "import importlib.util as u; print([m for m in ('torch', 'peft') if u.find_spec(m)])"
    assert _run(python, "-c", probe, cwd=tmp_path).strip() == "[]"

    refused = subprocess.run(
        [tmp_path / "env" / "bin" / "tunedeck", "steps", "run", "peft/automodel", "-c", "tiny"],
        cwd=tmp_path,
        env={"TUNEDECK_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "pip install 'tunedeck[train]'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_wheel_owns_one_name_in_site_packages(source: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(_build(source, "wheel", tmp_path / "out")) as wheel:
        names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"tunedeck"}
    assert any(name == "tunedeck/core/assets/base/model.safetensors" for name in names)
    assert any(name == "tunedeck/profiles/slurm.yaml" for name in names)
    assert any(name == "tunedeck/profiles/hf_jobs.env.example" for name in names)
