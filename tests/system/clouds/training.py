"""The shipped launch as it trains on this machine, which a service's training is held against."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

OPTIONS = ("step_scheduler.max_steps=6", "step_scheduler.ckpt_every_steps=2", "sampling.prompts=[]")
LAUNCH = ("steps", "run", "peft/automodel", "-c", "tiny", *OPTIONS)
_SPEED = re.compile(r" (tokens_per_s|supervised_tokens_per_s|mem_gib|step_s|data_s)=\S+")


def measured(text: str) -> list[str]:
    """What the trainer measured, without what the machine's speed decides."""
    lines = [line for line in text.splitlines() if line.startswith("step=")]
    return [_SPEED.sub("", line) for line in lines]


def train_here(folder: Path) -> str:
    """The log of the launch in a home of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", *LAUNCH],
        cwd=folder,
        env={**kept, "TUNEDECK_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(measured(done.stdout)) >= 7
    return done.stdout
