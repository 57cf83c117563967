"""A Hub that runs jobs and keeps buckets, as huggingface_hub's requests expect it.

Shapes and refusals are those of the client's own code (huggingface_hub 2.4.0, `_jobs_api.py` and
`_buckets.py`) and of the service's published pages.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.clouds.hf_storage import TOKEN, FakeStorage, iso
from tests.system.clouds.jobs import LocalJob
from tests.system.clouds.server import Refused, Reply, Request

__all__ = ["FLAVORS", "TOKEN", "FakeHub", "HFJob"]

FLAVORS = {
    "cpu-basic": (2, "16 GB", 0, "", 167),
    "cpu-upgrade": (8, "32 GB", 0, "", 500),
    "t4-small": (4, "15 GB", 1, "T4", 6667),
    "a10g-small": (4, "15 GB", 1, "A10G", 16667),
    "a10g-largex2": (24, "92 GB", 2, "A10G", 50000),
    "a100-large": (12, "142 GB", 1, "A100", 41667),
    "a100x8": (96, "1136 GB", 8, "A100", 333333),
}
"""Name → CPUs, memory, GPUs, their model, price of a minute in millionths of a dollar."""

_FIELDS: dict[str, tuple[type, ...]] = {
    "command": (list,),
    "arguments": (list,),
    "environment": (dict,),
    "secrets": (dict,),
    "flavor": (str,),
    "timeoutSeconds": (int,),
    "attempts": (int,),
    "labels": (dict,),
    "volumes": (list,),
    "dockerImage": (str,),
    "spaceId": (str,),
    "expose": (dict,),
    "ssh": (dict,),
    "network": (dict,),
    "resourceGroupId": (str,),
}
_VOLUME = {"type", "source", "mountPath", "readOnly", "revision", "path"}
_LABEL = re.compile(r"[a-zA-Z0-9._-]*")
_PAGE = 50
_LIVE = ("SCHEDULING", "RUNNING")


@dataclass
class HFJob:
    """One job. The values of its secrets are nowhere in what the service tells of it."""

    id: str
    namespace: str
    spec: dict[str, Any]
    run: LocalJob
    created_at: float = field(default_factory=time.time)
    canceled: bool = False
    message: str | None = None

    @property
    def stage(self) -> str:
        """The service's word."""
        if self.canceled and not self.run.running:
            return "CANCELED"
        if self.run.started_at is None:
            return "SCHEDULING"
        if self.run.ended_at is None:
            return "RUNNING"
        return "COMPLETED" if self.run.exit_code == 0 else "ERROR"

    def told(self) -> dict[str, Any]:
        """The service's JSON of it."""
        message = self.message
        if self.stage == "ERROR" and message is None:
            message = f"Job failed with exit code: {self.run.exit_code}. Reason: Error"
        kept = {k: self.spec.get(k) for k in ("command", "arguments", "environment", "flavor",
                                               "labels", "volumes", "dockerImage")}  # fmt: skip
        return {
            **{key: value for key, value in kept.items() if value is not None},
            "id": self.id,
            "createdAt": iso(self.created_at),
            "startedAt": iso(self.run.started_at),
            "finishedAt": iso(self.run.ended_at),
            "status": {"stage": self.stage, "message": message},
            "owner": {"id": "5e9ecfc04957053f60648a3e", "name": self.namespace, "type": "user"},
        }


class FakeHub(FakeStorage):
    """The Hub.

    Attributes:
        jobs: by id, in the order of their creation.
        held: while it is true, new jobs wait in SCHEDULING; `release` starts them.
        stuck: while it is true, streams of logs do not end with their jobs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.jobs: dict[str, HFJob] = {}
        self.held = False
        self.stuck = False
        for method, path, handler in (
            ("GET", "/api/whoami-v2", self._whoami),
            ("GET", "/api/jobs/hardware", self._hardware),
            ("POST", "/api/jobs/{ns}", self._create),
            ("GET", "/api/jobs/{ns}", self._list),
            ("GET", "/api/jobs/{ns}/{id}", lambda r: Reply(200, self._job(r).told())),
            ("POST", "/api/jobs/{ns}/{id}/cancel", self._cancel),
            ("GET", "/api/jobs/{ns}/{id}/logs", self._logs),
        ):
            self.route(method, path, handler)

    def stop(self) -> None:
        """Kill what still runs, and stop serving."""
        self.stuck = False
        for job in self.jobs.values():
            job.run.kill()
        super().stop()

    def release(self) -> None:
        """Start the jobs that wait, and those to come at once."""
        self.held = False
        for job in self.jobs.values():
            if job.stage == "SCHEDULING":
                job.run.start()

    # The account.

    def _whoami(self, request: Request) -> Reply:
        self.account(request)
        return Reply(200, {"type": "user", "name": "ada", "orgs": [{"name": "lab"}]})

    def _hardware(self, request: Request) -> Reply:
        rows = []
        for name, (cpus, ram, gpus, model, micro) in FLAVORS.items():
            accelerator = {
                "type": "gpu",
                "model": model,
                "quantity": str(gpus),
                "vram": "24 GB",
                "manufacturer": "Nvidia",
            }
            rows.append(
                {
                    "name": name,
                    "prettyName": name,
                    "cpu": f"{cpus} vCPU",
                    "ram": ram,
                    "accelerator": accelerator if gpus else None,
                    "unitCostMicroUSD": micro,
                    "unitCostUSD": micro / 1e6,
                    "unitLabel": "minute",
                }
            )
        return Reply(200, rows)

    # Jobs.

    def _create(self, request: Request) -> Reply:
        namespace = self.account(request)
        spec = request.json()
        self._check(spec)
        job_id = secrets.token_hex(12)
        mounts = {
            volume["mountPath"]: self.bucket(volume["source"]) for volume in spec.get("volumes", ())
        }
        run = LocalJob(
            [*spec["command"], *spec["arguments"]],
            {**spec["environment"], **spec.get("secrets", {})},
            mounts,
            self.folder / "jobs" / job_id,
        )
        job = HFJob(job_id, namespace, spec, run)
        with self.lock:
            self.jobs[job_id] = job
        if not self.held:
            run.start()
        return Reply(200, job.told())

    def _check(self, spec: Any) -> None:
        for name, value in spec.items():
            if name not in _FIELDS:
                raise Refused(400, f'Unrecognized key(s) in object: "{name}"')
            if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
                raise Refused(400, f"Expected {_FIELDS[name][0].__name__} at {name}")
        for name in ("command", "arguments", "environment", "flavor", "timeoutSeconds"):
            if name not in spec:
                raise Refused(400, f"Required: {name}")
        if ("dockerImage" in spec) == ("spaceId" in spec):
            raise Refused(400, "Exactly one of dockerImage and spaceId is required")
        if spec["flavor"] not in FLAVORS:
            raise Refused(400, f"Invalid flavor {spec['flavor']}")
        if spec["timeoutSeconds"] <= 0:
            raise Refused(400, "timeoutSeconds must be positive")
        texts = [*spec["command"], *spec["environment"].values(), *spec.get("secrets", {}).values()]
        if not all(isinstance(text, str) for text in texts):
            raise Refused(400, "Expected string")
        if both := set(spec["environment"]) & set(spec.get("secrets", {})):
            raise Refused(400, f"In environment and in secrets: {', '.join(both)}")
        for name, value in spec.get("labels", {}).items():
            if not _LABEL.fullmatch(name) or not _LABEL.fullmatch(value) or len(value) > 100:
                raise Refused(400, f"Invalid label {name}={value}")
        for volume in spec.get("volumes", ()):
            self._check_volume(volume)

    def _check_volume(self, volume: dict[str, Any]) -> None:
        if unknown := set(volume) - _VOLUME:
            raise Refused(400, f'Unrecognized key(s) in object: "{unknown.pop()}"')
        if not volume["mountPath"].startswith("/"):
            raise Refused(400, "mountPath must be absolute")
        if volume["type"] != "bucket" and volume.get("readOnly") is False:
            raise Refused(400, "Repositories can only be mounted read-only")
        if not self.bucket(volume["source"]).is_dir():
            raise Refused(404, f"Bucket {volume['source']} not found")

    def _list(self, request: Request) -> Reply:
        namespace = self.account(request)
        wanted = dict(text.split("=", 1) for text in request.options("label"))
        stages = request.options("stage")
        found = [
            job
            for job in reversed(self.jobs.values())
            if job.namespace == namespace
            and (not stages or job.stage in stages)
            and wanted.items() <= (job.spec.get("labels") or {}).items()
        ]
        begin = int(request.option("cursor") or 0)
        headers = {}
        if len(found) > begin + _PAGE:
            following = f"{self.url}{request.path}?cursor={begin + _PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        return Reply(200, [job.told() for job in found[begin : begin + _PAGE]], headers)

    def _job(self, request: Request) -> HFJob:
        namespace = self.account(request)
        job = self.jobs.get(request.found["id"])
        if job is None or job.namespace != namespace:
            raise Refused(404, "Job not found")
        return job

    def _cancel(self, request: Request) -> Reply:
        job = self._job(request)
        if job.stage in _LIVE:
            job.canceled = True
            job.run.stop()
        return Reply(200, {})

    def _logs(self, request: Request) -> Reply:
        job = self._job(request)
        tail = int(request.option("tail") or 0)
        return Reply(200, stream=self._events(job, tail, request.token), type="text/event-stream")

    def _events(self, job: HFJob, tail: int, token: str) -> Iterator[bytes]:
        yield _event("===== Job started at 2026-01-01 00:00:00 =====", time.time_ns())
        begin = max(0, len(job.run.lines) - tail) if tail else 0
        for entry in job.run.follow(begin):
            if token in self.expired:
                return
            yield b": keep-alive\n\n" if entry is None else _event(entry.text, entry.at_ns)
        while self.stuck:
            time.sleep(0.2)
            yield b": keep-alive\n\n"


def _event(text: str, at_ns: int) -> bytes:
    told = {"data": text, "timestamp": iso(at_ns / 1e9)}
    return f"data: {json.dumps(told)}\n\n".encode()
