"""The wizard's numbers: first paint, memory, a log of a million lines, curves of 100,000 points.

    python benchmarks/wizard.py [--json] [--no-peers] [--peers DIR]

Goals: first paint 400 ms after exec, 80 MiB idle, a million lines opened at the tail within 1 s and
followed at 50,000 lines/s without a stall above 100 ms, curves redrawn in 20 ms. Beside it, on the
same machine in the same minutes: the first paint of posting and harlequin, and how toolong opens
and follows the same log. They are installed into environments of their own, which are thrown away
(or kept in DIR); one that cannot be had is left out, and that is said.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LINE = b"step=%d epoch=0 loss=2.3145 grad_norm=0.91 lr=2.0e-04 tokens=8192 tokens_per_s=10312\n"
_LINES = 1_000_000
_RATE = 50_000
_REPEATS = 5


def first_paint(
    home: str,
    command: Sequence[str] = (sys.executable, "-m", "tunedeck"),
    ready: bytes = b"palette",
) -> tuple[float, float]:
    """Seconds from exec until something stands on the screen, and MiB of memory 2 s later.

    Args:
        home: the folder of the wizard's state, or of a peer's.
        command: what is opened.
        ready: what is waited for; the last line of the wizard's home.
    """
    master, worker = pty.openpty()
    fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=worker,
        stdout=worker,
        stderr=worker,
        env={**os.environ, "TERM": "xterm-256color", "TUNEDECK_HOME": home, "HOME": home},
        start_new_session=True,
    )
    data = b""
    while ready not in data:
        if process.poll() is not None or not select.select([master], [], [], 60)[0]:
            raise RuntimeError(f"{command} shows nothing of {ready!r}")
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

    from tunedeck.core.logs.spool_reader import SpoolReader
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
    file.write(line * (int(seconds * rate) - written))
    file.write(sys.argv[4].encode() if len(sys.argv) > 4 else b"")
"""
_VIEW = """
import sys
from pathlib import Path
from textual.app import App
from tunedeck.core.logs.spool_reader import SpoolReader
from tunedeck.tui.widgets.log_view import LogView

class LogApp(App):
    def compose(self):
        yield LogView()
    def on_mount(self):
        reader = SpoolReader(Path(sys.argv[1]))
        reader.refresh()
        view = self.query_one(LogView)
        view.attach(reader)
        self.set_interval(0.1, view.refresh_log)

LogApp().run()
"""


def lag(home: str, command: Sequence[str], log: Path) -> float:
    """Seconds from the last of a stream of lines being written until it stands on the screen."""
    master, worker = pty.openpty()
    fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "HOME": home}
    viewer = subprocess.Popen(
        command, stdin=worker, stdout=worker, stderr=worker, env=env, start_new_session=True
    )
    try:
        _until(master, lambda _data: False, 6.0)  # it has opened the log by then
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(log), str(_RATE), "3", "ENDOFSTREAM\n"]
        )
        _until(master, lambda _data: writer.poll() is not None, 30.0)
        written = time.perf_counter()
        _until(master, lambda data: b"ENDOFSTREAM" in data, 30.0)
        return time.perf_counter() - written
    finally:
        viewer.kill()
        viewer.wait()
        os.close(master)
        os.close(worker)


def _until(master: int, done: Callable[[bytes], bool], seconds: float) -> None:
    """Read what is drawn until it is enough, or the time is over."""
    data, end = b"", time.perf_counter() + seconds
    while time.perf_counter() < end and not done(data):
        if select.select([master], [], [], 0.02)[0]:
            data = data[-4096:] + os.read(master, 1 << 16)


def peers(folder: Path, home: str, log: Path) -> dict[str, dict[str, float]]:
    """What posting, harlequin and toolong take for the same; those that cannot be had are left out.

    Args:
        folder: where their environments are, or are made.
        home: a home of their own.
        log: the log of a million lines.
    """
    found: dict[str, dict[str, float]] = {}
    for name, word in (("posting", b"Send"), ("harlequin", b"Query")):
        if program := _installed(folder, name):
            with _left_out(name):
                paints = [first_paint(home, [program], word) for _ in range(_REPEATS)]
                found[name] = {
                    "first paint, ms": min(p for p, _ in paints) * 1e3,
                    "idle memory, MiB": max(m for _, m in paints),
                }
    if program := _installed(folder, "toolong", "tl"):
        command = [program, str(log)]
        with _left_out("toolong"):
            opened = min(first_paint(home, command, _LAST)[0] for _ in range(2))
            found["toolong"] = {"log opened, ms": opened * 1e3}
            found["toolong"]["lag after 50,000 lines/s, ms"] = lag(home, command, log) * 1e3
    return found


@contextmanager
def _left_out(name: str) -> Iterator[None]:
    """A peer that does not get as far as a picture is left out, with a word."""
    try:
        yield
    except RuntimeError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)


_LAST = b"999999"  # without what a highlighter may part it from


def _installed(folder: Path, package: str, program: str = "") -> str | None:
    """The program of a package in an environment of its own; None, and a word, where it fails."""
    place = folder / package
    path = place / "bin" / (program or package)
    if not path.exists():
        made = subprocess.run([sys.executable, "-m", "venv", place], check=False)
        pip = [str(place / "bin" / "pip"), "install", "--quiet", package]
        done = made.returncode or subprocess.run(pip, check=False, capture_output=True).returncode
        if package == "posting":  # its highlighter ends it with a segmentation fault
            remove = [pip[0], "uninstall", "--quiet", "--yes", "tree-sitter"]
            subprocess.run(remove, check=False, capture_output=True)
        if done or not path.exists():
            print(f"{package} cannot be installed here, and is left out.", file=sys.stderr)
            return None
    return str(path)


def redraw() -> float:
    """Seconds to draw a curve of 100,000 points again, the median of many."""
    from tunedeck.core.charts.curves import Curve
    from tunedeck.core.charts.plot import Line, draw

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
    """Measure, and print beside the goals and the peers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--no-peers", action="store_true", help="measure the wizard alone")
    parser.add_argument("--peers", type=Path, help="keep the peers' environments here")
    options = parser.parse_args()
    beside: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = f"{folder}/home"
        Path(home).mkdir()
        paints = [first_paint(home) for _ in range(_REPEATS)]
        log = Path(folder) / "log.txt"
        log.write_bytes(b"".join(_LINE % step for step in range(_LINES)))
        ours = {"log opened, ms": first_paint(home, _viewer(log), _LAST)[0] * 1e3}
        if not options.no_peers:
            beside = peers(options.peers or Path(folder) / "peers", home, log)
            log.write_bytes(b"".join(_LINE % step for step in range(_LINES)))
            ours["lag after 50,000 lines/s, ms"] = lag(home, _viewer(log), log) * 1e3
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
    numbers = {name: value for name, (value, _) in rows.items()} | ours
    if options.json:
        print(json.dumps({"tunedeck": numbers, **beside}))
        return
    for name, (value, goal) in rows.items():
        print(f"{name:<32} {value:>10.1f}   goal {goal}")
    for peer, measured in beside.items():
        for name, value in measured.items():
            ratio = value / numbers[name]
            print(f"{peer:<10} {name:<30} {value:>10.1f}   {ratio:.1f} x the wizard's")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _viewer(log: Path) -> list[str]:
    return [sys.executable, "-c", _VIEW, str(log)]


if __name__ == "__main__":
    main()
