"""The wizard's numbers: first paint, memory, a log of a million lines, curves of 100,000 points.

    python benchmarks/wizard.py [--json]

Goals: first paint 400 ms after exec, 80 MiB idle, a million lines opened at the tail within 1 s and
followed at 50,000 lines/s without a stall above 100 ms, curves redrawn in 20 ms.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

_LINE = b"step=%d epoch=0 loss=2.3145 grad_norm=0.91 lr=2.0e-04 tokens=8192 tokens_per_s=10312\n"
_LINES = 1_000_000
_RATE = 50_000
_REPEATS = 5


def first_paint(home: str) -> tuple[float, float]:
    """Seconds from exec to the home screen's last line, and MiB of memory 2 s later."""
    master, worker = pty.openpty()
    fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "tunedeck"],
        stdin=worker,
        stdout=worker,
        stderr=worker,
        env={**os.environ, "TERM": "xterm-256color", "TUNEDECK_HOME": home},
        start_new_session=True,
    )
    data = b""
    while b"palette" not in data:
        select.select([master], [], [], 10)
        data += os.read(master, 1 << 16)
    painted = time.perf_counter() - start
    end = time.monotonic() + 2
    while time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            os.read(master, 1 << 16)
    status = Path(f"/proc/{process.pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    resident = next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    process.terminate()
    while process.poll() is None:
        if select.select([master], [], [], 0.1)[0]:
            os.read(master, 1 << 16)
    os.close(master)
    os.close(worker)
    return painted, resident / 1024


async def follow(log: Path) -> tuple[float, float, float]:
    """Seconds to open at the tail, the worst stall while following, and lines/s that were shown."""
    from textual.app import App, ComposeResult

    from tunedeck.core.spool_reader import SpoolReader
    from tunedeck.tui.widgets.log_view import LogView

    class LogApp(App[None]):
        def compose(self) -> ComposeResult:
            yield LogView()

    app = LogApp()
    async with app.run_test(size=(120, 36)) as pilot:
        start = time.perf_counter()
        reader = SpoolReader(log)
        await asyncio.to_thread(reader.refresh)
        view = app.query_one(LogView)
        view.attach(reader)
        await pilot.pause()
        opened = time.perf_counter() - start
        app.set_interval(0.1, view.refresh_log)
        before, seconds = len(reader), 4.0
        writing = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(log), str(_RATE), str(seconds)]
        )
        stalls: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            tick = time.perf_counter()
            await asyncio.sleep(0.005)
            stalls.append(time.perf_counter() - tick - 0.005)
        writing.wait()
        view.refresh_log()
        return opened, max(stalls), (len(reader) - before) / seconds


_WRITER = """
import sys, time
path, rate, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
line = b"rank 0: a line of a log that is about as long as such lines mostly are, give or take\\n"
start = time.perf_counter()
with open(path, "ab", buffering=0) as file:
    written = 0
    while (passed := time.perf_counter() - start) < seconds:
        due = int(passed * rate) - written
        file.write(line * due)
        written += due
        time.sleep(0.01)
"""


def redraw() -> float:
    """Seconds to draw a curve of 100,000 points again, the median of many."""
    from tunedeck.core.curves import Curve
    from tunedeck.core.plot import Line, draw

    curve = Curve()
    for step in range(100_000):
        curve.add(step, 3 / (1 + step / 5000) + (step * 7919 % 101) / 1000)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        draw([Line("loss", curve)], 100, 30)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, and print beside the goals."""
    with tempfile.TemporaryDirectory() as folder:
        paints = [first_paint(f"{folder}/home") for _ in range(_REPEATS)]
        log = Path(folder) / "log.txt"
        log.write_bytes(b"".join(_LINE % step for step in range(_LINES)))
        opened, stall, rate = asyncio.run(follow(log))
    rows = {
        "first paint, ms": (min(p for p, _ in paints) * 1e3, 400),
        "idle memory, MiB": (max(m for _, m in paints), 80),
        "1,000,000 lines opened, ms": (opened * 1e3, 1000),
        "followed, lines/s": (rate, _RATE),
        "worst stall meanwhile, ms": (stall * 1e3, 100),
        "100,000 points redrawn, ms": (redraw() * 1e3, 20),
    }
    if "--json" in sys.argv:
        print(json.dumps({name: value for name, (value, _) in rows.items()}))
        return
    for name, (value, goal) in rows.items():
        print(f"{name:<30} {value:>10.1f}   goal {goal}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
