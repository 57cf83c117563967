"""What Slurm costs on a testbed: submitting beside plain ssh, log lag, one connection, throughput.

python benchmarks/slurm_submit.py
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.system.conftest import Cluster
from tests.system.testbed import Testbed
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.slurm.logs import follow_log
from tunedeck.core.logs.spool import bring_home
from tunedeck.core.states import RunState, Status

ROUNDS = 5
FOLLOWED = 20
BIG = 100_000_000


def plain_ssh(bed: Testbed) -> list[float]:
    """Seconds of `ssh host sbatch`, each with a connection of its own."""
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(
            ["ssh", "-i", bed.identity, "-p", str(bed.ssh_port),
             "-o", f"UserKnownHostsFile={bed.known_hosts}", f"{bed.user}@127.0.0.1",
             "sbatch --parsable --output=/dev/null --wrap true"],
            check=True, capture_output=True,
        )  # fmt: skip
        taken.append(time.perf_counter() - started)
    return taken


async def ours(cluster: Cluster) -> list[float]:
    """Seconds from a rendered plan to a job id; the first opens the connection and sends code."""
    taken = []
    for _ in range(ROUNDS):
        plan = cluster.plan("true")
        backend = cluster.backend(plan)
        submission = backend.render(plan)
        started = time.perf_counter()
        await backend.submit(submission)
        taken.append(time.perf_counter() - started)
    return taken


async def lag(cluster: Cluster) -> list[float]:
    """Seconds from a line's writing to its being read here."""
    command = "for i in $(seq 40); do date +%s.%N; sleep 0.37; done"
    backend, handle = await cluster.submit(command)
    found = []
    async for line in backend.logs(handle, None, follow=True):
        if line.line.startswith(b"1"):
            found.append(time.time() - float(line.line))
    return found[1:]


async def connections(cluster: Cluster) -> int:
    """TCP connections to the login while many runs of it are followed."""
    backend, handle = await cluster.submit("sleep 15")
    tasks = [asyncio.create_task(_drain(cluster, handle)) for _ in range(FOLLOWED)]
    await asyncio.sleep(8)
    listed = subprocess.run(
        ["ss", "-tnH", "state", "established", "dport", "=", f":{cluster.bed.ssh_port}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    await backend.cancel(handle)
    await asyncio.gather(*tasks)
    return len(listed.splitlines())


async def _drain(cluster: Cluster, handle: Handle) -> None:
    backend = cluster.backend(cluster.plan("true"))
    async for _ in backend.logs(handle, None, follow=True):
        pass


async def throughput(cluster: Cluster, folder: Path) -> tuple[float, float]:
    """MB/s of following a big log, and of bringing it home to the spool."""
    log = folder / "big.txt"
    log.write_bytes(b"".join(b"%015d " % i + b"x" * 83 + b"\n" for i in range(BIG // 100)))
    backend = cluster.backend(cluster.plan("true"))
    machine = backend._machine

    async def over() -> Status:
        return Status(RunState.SUCCEEDED)

    started, size = time.perf_counter(), 0
    async for block in follow_log(machine, str(log), 0, over):
        size += len(block.line) + 1
    assert size == BIG
    read = BIG / 1e6 / (time.perf_counter() - started)
    ours, handle = await cluster.submit("true")
    await cluster.end(ours, handle)
    (folder / "run").mkdir()
    log.rename(folder / "run" / "log.txt")
    handle = Handle(handle.run_id, handle.job_id, {"run_dir": str(folder / "run")})
    started = time.perf_counter()
    await bring_home(handle, backend, folder / "home" / "log.txt", print)
    spooled = BIG / 1e6 / (time.perf_counter() - started)
    assert (folder / "home" / "log.txt").read_bytes() == (folder / "run" / "log.txt").read_bytes()
    return read, spooled


def main() -> None:
    """Measure, and print a line each."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        os.environ["TUNEDECK_HOME"] = str(folder / "home")
        bed = Testbed(folder / "bed")
        bed.start()
        try:
            cluster = Cluster(bed, folder / "home")
            plain, submitted = plain_ssh(bed), asyncio.run(ours(cluster))
            base = statistics.median(plain)
            print(f"ssh host sbatch       {base:.2f} s (median of {ROUNDS})")
            print(f"submit, first         {submitted[0]:.2f} s (+{submitted[0] - base:.2f} s)")
            again = statistics.median(submitted[1:])
            print(f"submit, code cached   {again:.2f} s ({again - base:+.2f} s)")
            print(f"log lag               {statistics.median(asyncio.run(lag(cluster))):.2f} s")
            print(
                f"{FOLLOWED} runs followed      {asyncio.run(connections(cluster))} connection(s)"
            )
            read, spooled = asyncio.run(throughput(cluster, folder))
            print(f"log throughput        {read:.0f} MB/s read, {spooled:.0f} MB/s to the spool")
        finally:
            bed.stop()


if __name__ == "__main__":
    main()
