"""How long `env check` takes for a thousand profiles under one base.

    python benchmarks/env_check.py

Prints the CPU-seconds of the check itself, and the wall seconds of the whole command beside those
of `tunedeck env check` on one profile. Goal: the thousand in under a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tunedeck.core.env.check import check_files
from tunedeck.core.env.find import FoundFiles

BASE = """
[base]
executor = "slurm"
tunnel = "ssh"
host = "login.site.edu"
account = "nlp"
partition = "gpu"
container_image = "nvcr.io/nvidia/nemo:25.11"
workspace = "${oc.env:SITE_WORKSPACE,/lustre/ada}"
build_cache_dir = "${workspace}/images"
remote_job_dir = "${oc.env:SITE_RUNS,${oc.env:SITE_WORKSPACE,/lustre/ada}/runs}"
mounts = ["/lustre:/lustre"]
gpus_per_node = 8
time = "04:00:00"
env_vars = { HF_HOME = "${oc.env:SITE_WORKSPACE,/lustre/ada}/hf", RAY_DEDUP_LOGS = "0" }
"""
PROFILE = """
[p{n}]
extends = "base"
nodes = {nodes}
container_image = "nvcr.io/nvidia/nemo:26.{n}"
startup_commands = ["python -m pip install --quiet omegaconf"]
env_vars.OUT_DIR = "${{oc.env:SITE_WORKSPACE,/lustre/ada}}/output/p{n}"
env_vars.LOG_DIR = "${{workspace}}/log/p{n}"
"""


def main() -> None:
    """Check one profile to warm up, then a thousand, then run the command on both files."""
    with tempfile.TemporaryDirectory() as folder:
        one, many = Path(folder) / "env.one.toml", Path(folder) / "env.many.toml"
        one.write_text(BASE)
        many.write_text(BASE + "".join(PROFILE.format(n=n, nodes=n % 4 + 1) for n in range(1000)))
        check_files(FoundFiles((one,), ""))
        start = time.process_time()
        found = check_files(FoundFiles((many,), ""))
        print(
            f"1,000 profiles: {time.process_time() - start:.2f} CPU-seconds, {len(found)} findings"
        )
        for file in (one, many):
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "tunedeck", "env", "check", str(file)],
                env=dict(os.environ), stdout=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            print(f"env check {file.name}: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
