"""How long a command takes to start, as a ratio to importing click in the same run.

    python benchmarks/start_up.py [RUNS]

Commands are interleaved, so that a machine that slows down slows all of them. Prints medians in
milliseconds and ratios. Goals: `--help` at most 2.5 times the import of click, `steps list --json`
at most 7.5 times.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

TUNEDECK = str(Path(sys.executable).with_name("tunedeck"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import click": [sys.executable, "-c", "import click"],
    "tunedeck --help": [TUNEDECK, "--help"],
    "tunedeck steps list --json": [TUNEDECK, "steps", "list", "--json"],
    "tunedeck runs list --json": [TUNEDECK, "runs", "list", "--json"],
}


def main(runs: int) -> None:
    """Time every command `runs` times, in turn, after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(runs + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn:
                times[name].append(time.perf_counter() - start)
    click = statistics.median(times["import click"])
    print(f"{'command':<30}{'median ms':>10}{'x click':>9}")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<30}{median * 1000:>10.1f}{median / click:>9.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
