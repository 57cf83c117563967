from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tunedeck.core.backends.provide import main, missing
from tunedeck.core.bundle import Bundle, bundle, requirements
from tunedeck.core.plan import Launch


def test_the_trainer_starts_from_the_bundle_alone(home: Path, tmp_path: Path) -> None:
    with tarfile.open(bundle().archive()) as tar:
        tar.extractall(tmp_path / "code", filter="data")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tunedeck.trainer", "sft", "--config", "/nonexistent"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "code"), "HOME": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "There is no such config" in done.stderr
    where = subprocess.run(
        [sys.executable, "-P", "-c", "import tunedeck; print(tunedeck.__file__)"],
        env={"PYTHONPATH": str(tmp_path / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path))


def test_the_bundle_is_pure_python_and_small(home: Path) -> None:
    assert bundle().archive().stat().st_size < 1 << 20
    assert not [name for name in bundle().files if name.endswith((".so", ".safetensors", ".pyc"))]


def test_the_same_files_give_the_same_bytes(tmp_path: Path, home: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1\n")
    one = Bundle("sha256:1", {"tunedeck/a.py": tmp_path / "a.py"}).archive().read_bytes()
    os.utime(tmp_path / "a.py", (1, 1))
    assert Bundle("sha256:2", {"tunedeck/a.py": tmp_path / "a.py"}).archive().read_bytes() == one


def test_the_tracker_torch_and_bitsandbytes_are_required_only_where_they_are_used() -> None:
    trains, looks = (
        Launch("python", f"tunedeck.{name}") for name in ("trainer", "core.inspection")
    )

    def needs(launch: Launch, **config: object) -> set[str]:
        return {re.split(r"\W", name)[0] for name in requirements(launch, config)}

    assert needs(trains) - needs(looks) >= {"torch", "transformers", "peft"}
    assert needs(trains, wandb={"mode": "online"}) - needs(trains) == {"wandb"}
    for few_bits in ({"peft": {"quantization": "nf4"}}, {"optimizer": {"name": "adamw8bit"}}):
        assert needs(trains, **few_bits) - needs(trains) == {"bitsandbytes"}
        assert needs(looks, **few_bits) == needs(looks)


def test_what_is_there_is_not_missing_whatever_its_version(tmp_path: Path) -> None:
    assert missing(["PyYAML>=999", "no-such-package>=1"], str(tmp_path)) == ["no-such-package>=1"]


def test_without_torch_the_run_ends_with_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert main(str(tmp_path / "site"), "torch>=2.7", "peft") == 1
    assert "lacks torch>=2.7, peft" in capsys.readouterr().err
