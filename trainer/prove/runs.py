"""Short runs over the cut model, and how far two of them are apart."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ...core.errors import TunedeckError
from ...core.schema import TrainConfig
from .. import sft
from ..reporting.diff import compare
from ..reporting.ledger import Entry, read_ledger
from ..runtime import ModelAndOptimizerState
from .check import LOSS, NORM, Delta

_LIMIT_S = 600
_OF_A_RUN = (
    "TUNEDECK_EXIT_FILE",
    "TUNEDECK_DEADLINE",
    "TUNEDECK_DEADLINE_FILE",
    "SLURM_JOB_END_TIME",
    "TUNEDECK_RUN_ID",
)


def run_here(
    config: TrainConfig,
    folder: Path,
    then: Callable[[ModelAndOptimizerState], None] | None = None,
) -> list[Entry]:
    """Train in this process; the run's ledger.

    Raises:
        TunedeckError: the run failed.
    """
    with _as_nobodys_run():
        sft.main(config, folder, then=then)
    return read_ledger(folder)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What a run says of itself is not heard."""
    unheard = io.StringIO()
    with contextlib.redirect_stdout(unheard), contextlib.redirect_stderr(unheard):
        yield


def run_on_ranks(config: TrainConfig, folder: Path, ranks: int, *, gpus: bool) -> list[Entry]:
    """Train on several processes of this machine; the run's ledger.

    Args:
        config: of the run.
        folder: of the run.
        ranks: how many; 1 starts no torchrun.
        gpus: leave the GPUs visible.

    Raises:
        TunedeckError: the run failed; the last lines of what it said are in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.json"
    file.write_text(config.model_dump_json(exclude={"run"}), encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(torchrun if ranks > 1 else []), "-m", "tunedeck.trainer", "sft"]
    env = {k: v for k, v in os.environ.items() if k not in _OF_A_RUN}
    env |= {"TUNEDECK_RUN_DIR": str(folder), "OMP_NUM_THREADS": env.get("OMP_NUM_THREADS", "1")}
    if not gpus:
        env["CUDA_VISIBLE_DEVICES"] = ""
    try:
        done = subprocess.run(
            [*command, "--config", str(file)],
            env=env,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TunedeckError(f"{ranks} processes did not end within {_LIMIT_S} s") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "tunedeck: error" in line]
        last = said[:1] or done.stderr.strip().splitlines()[-1:]
        raise TunedeckError(f"{ranks} processes ended with {done.returncode}: {' '.join(last)}")
    return read_ledger(folder)


def apart(a: list[Entry], b: list[Entry], *, steps: int, exact: bool = False) -> tuple[Delta, ...]:
    """How far two runs are apart, at the step where they are farthest.

    Args:
        a: the one.
        b: the other.
        steps: how many steps both should have.
        exact: to the last bit, the weights included.

    Raises:
        TunedeckError: they do not have these steps, or trained on different rows.
    """
    found = compare(a, b)
    if found.compared != steps:
        raise TunedeckError(f"{found.compared} of {steps} steps can be compared")
    others = {entry.step: entry for entry in b}
    pairs = [(entry, others[entry.step]) for entry in a if entry.step in others]
    if parted := [one.step for one, other in pairs if one.batch != other.batch]:
        raise TunedeckError(f"other rows from step {parted[0]} on")
    loss = max(abs(one.loss - other.loss) for one, other in pairs)
    norm = max(abs(one.norm - other.norm) / max(one.norm, 1e-12) for one, other in pairs)
    limits = (0.0, 0.0) if exact else (LOSS, NORM)
    deltas = [Delta("loss", loss, limits[0]), Delta("norm", norm, limits[1])]
    if exact:
        weights = [one.weights != other.weights for one, other in pairs if one.weights]
        deltas.append(Delta("weights", float(sum(weights)), 0.0))
    return tuple(deltas)


@contextlib.contextmanager
def _as_nobodys_run() -> Iterator[None]:
    """The environment of no launcher, and signals as they were."""
    names = [*_OF_A_RUN, "RANK", "WORLD_SIZE"]
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        os.environ.update(kept)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def merged_difference(adapter: Path, base: Path, folder: Path) -> float:
    """Merge an adapter into its base; the largest difference of a logit.

    Raises:
        TunedeckError: it does not merge, or there is no room to compare.
    """
    from ...core.schema import MergeConfig
    from ..merging import merge

    folder.mkdir(parents=True, exist_ok=True)
    config = MergeConfig(
        lora_checkpoint=str(adapter),
        base_hf_path=str(base),
        output_hf_path=str(folder / "merged"),
        torch_dtype="float32",
    )
    merge.main(config, folder)
    difference = json.loads((folder / "result.json").read_text())["logit_difference"]
    if difference is None:
        raise TunedeckError("there is not enough memory to compare")
    return float(difference)
