"""A cloud on loopback to try things on by hand: `python -m tests.system.clouds lepton`.

It prints what to export, runs what it is sent as local processes, and stays until Ctrl-C. A line on
its input has something go wrong: `METHOD PATH key=value …`, as `Fault` in `server.py` has them, for
example `GET /logs$ lost=true times=3` or `POST /jobs$ status=429 headers={"Retry-After":"2"}`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from tests.system.clouds import hf, lepton, runai
from tests.system.clouds.lepton_schema import GROUP, STORAGE, TOKEN, WORKSPACE
from tests.system.clouds.runai_schema import CLAIM, CLIENT, PROJECT, SECRET
from tests.system.clouds.server import FakeService


def main() -> None:
    """Serve one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.clouds", description=__doc__)
    parser.add_argument("cloud", choices=("hf_jobs", "lepton", "dgxcloud"))
    parser.add_argument("--folder", type=Path, help="where disks and storage lie")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=f"tunedeck-{asked.cloud}-") as temporary:
        folder = asked.folder or Path(temporary)
        service, exports = _SERVICES[asked.cloud](folder)
        service.start()
        for name, value in exports.items():
            _say(f"export {name}={value}")
        _say(f"# {asked.cloud} serves until Ctrl-C; its disks and storage are in {folder}")
        try:
            for line in sys.stdin:
                _go_wrong(service, line)
            signal.pause()
        except KeyboardInterrupt:
            pass
        finally:
            service.stop()
            for error in service.errors:
                _say(f"# {error}")


def _go_wrong(service: FakeService, line: str) -> None:
    words = line.split()
    if len(words) < 2:
        return
    method, path, *pairs = words
    what = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        what[name] = json.loads(text)
    _say(f"# {service.fault(method, path, **what)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _lepton(folder: Path) -> tuple[FakeService, dict[str, str]]:
    service = lepton.FakeLepton(folder)
    return service, {
        "LEPTON_WORKSPACE_URL": service.workspace_url,
        "LEPTON_WORKSPACE_ID": WORKSPACE,
        "LEPTON_WORKSPACE_TOKEN": TOKEN,
        "LEPTON_NODE_GROUP": GROUP,
        "LEPTON_GPU_SHAPE": "gpu.8xh100-80gb",
        "LEPTON_ONE_GPU_SHAPE": "gpu.h100-80gb",
        "NEMOTRON_HOST_MOUNT": "/users/ada",
        "NEMOTRON_MOUNT_FROM": STORAGE,
    }


def _dgxcloud(folder: Path) -> tuple[FakeService, dict[str, str]]:
    service = runai.FakeRunAI(folder)
    return service, {
        "DGXCLOUD_BASE_URL": service.base_url,
        "DGXCLOUD_CLIENT_ID": CLIENT,
        "DGXCLOUD_CLIENT_SECRET": SECRET,
        "DGXCLOUD_PROJECT_NAME": PROJECT,
        "DGXCLOUD_PVC_CLAIM": CLAIM,
        "SSL_CERT_FILE": str(service.authority),
    }


def _hf_jobs(folder: Path) -> tuple[FakeService, dict[str, str]]:
    service = hf.FakeHub(folder)
    exports = {"HF_ENDPOINT": service.url, "HF_TOKEN": hf.TOKEN, "HF_NAMESPACE": "ada"}
    return service, {**exports, "HF_HOME": str(folder / "hf_home")}


_SERVICES = {"hf_jobs": _hf_jobs, "lepton": _lepton, "dgxcloud": _dgxcloud}

if __name__ == "__main__":
    main()
