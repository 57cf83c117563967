"""A Lepton workspace that runs jobs, as the API (version 2) of NVIDIA's own client expects it.

Fields, states and refusals are those of leptonai 0.47.1 (`api/v2/types`, `job_validation.py`,
`spec_utils.py`, `log.py`).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.system.clouds.jobs import LocalJob, free_port
from tests.system.clouds.lepton_schema import (
    GROUP,
    GROUP_ID,
    JOB,
    SHAPES,
    TOKEN,
    WORKSPACE,
    check,
    check_job,
)
from tests.system.clouds.server import FakeService, Refused, Reply, Request

_MASTER = "${LEPTON_JOB_WORKER_PREFIX}-0.${LEPTON_SUBDOMAIN}"
_PORT = "MASTER_PORT=29400"
_NS = 1_000_000_000


@dataclass
class Attempt:
    """The replicas of one try of a job, by their ids."""

    replicas: dict[str, LocalJob]

    @property
    def started(self) -> bool:
        return any(run.started_at for run in self.replicas.values())

    @property
    def over(self) -> bool:
        return all(run.ended_at for run in self.replicas.values())

    @property
    def failed(self) -> int:
        return sum(run.exit_code not in (None, 0) for run in self.replicas.values())


@dataclass
class LeptonJob:
    """One job, with all its tries."""

    id: str
    metadata: dict[str, Any]
    spec: dict[str, Any]
    created_at: float
    attempts: list[Attempt] = field(default_factory=list)
    archived: bool = False
    deleted: bool = False

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def state(self) -> str:
        """The service's word."""
        if self.archived:
            return "Archived"
        if self.spec.get("stopped"):
            return "Stopping" if self.last.started and not self.last.over else "Stopped"
        if not self.last.started:
            return "Queueing"
        if not self.last.over:
            return "Running"
        if self.last.failed:
            return "PendingRetry" if self.retries_left else "Failed"
        return "Completed"

    @property
    def retries_left(self) -> int:
        return int(self.spec.get("max_job_failure_retry") or 0) + 1 - len(self.attempts)

    def told(self) -> dict[str, Any]:
        """The service's JSON of it. Times are in milliseconds."""
        runs = list(self.last.replicas.values())
        ended = [run.ended_at for run in runs if run.ended_at]
        over = self.state in ("Completed", "Failed", "Stopped", "Archived")
        return {
            "metadata": {**self.metadata, "id": self.id, "name": self.id,
                         "created_at": int(self.created_at * 1000)},
            "spec": {**self.spec},
            "status": {
                "job_name": self.id,
                "state": self.state,
                "ready": sum(run.running for run in runs),
                "active": sum(run.running for run in runs),
                "failed": self.last.failed if over else 0,
                "succeeded": sum(run.exit_code == 0 for run in runs),
                "creation_time": int(self.created_at * 1000),
                "completion_time": int(max(ended) * 1000) if over and ended else None,
                "job_history": [],
            },
        }  # fmt: skip


class FakeLepton(FakeService):
    """A workspace.

    Attributes:
        jobs: by id, in the order of their creation.
        held: while it is true, new jobs wait in Queueing; `release` starts them.
        grace_s: how long a job that is stopped may take before it is killed.
        secrets: the workspace's secrets with their values.
        expired: tokens that were good once.
        events: what Kubernetes tells of each job, the oldest first: type, reason, and message.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.jobs: dict[str, LeptonJob] = {}
        self.held = False
        self.grace_s = 3.0
        self.secrets: dict[str, str] = {}
        self.expired: set[str] = set()
        self.events: list[tuple[str, str, str]] = []
        self.workspace_url = f"{self.url}/api/v2/workspaces/{WORKSPACE}"
        base = "/api/v2/workspaces/{ws}"
        for method, path, handler in (
            ("GET", "/workspace", self._workspace),
            ("GET", "/shapes", self._shapes),
            ("GET", "/dedicated-node-groups", self._groups),
            ("GET", "/dedicated-node-groups/{group}/nodes", self._nodes),
            ("GET", "/dedicated-node-groups/{group}/reservations", self._reservations),
            ("GET", "/usersecrets", self._list_secrets),
            ("POST", "/usersecrets", self._add_secrets),
            ("POST", "/jobs", self._create),
            ("GET", "/jobs", self._list),
            ("GET", "/jobs/{id}", lambda r: Reply(200, self._job(r).told())),
            ("PATCH", "/jobs/{id}", self._patch),
            ("DELETE", "/jobs/{id}", self._delete),
            ("GET", "/jobs/{id}/replicas", self._replicas),
            ("GET", "/jobs/{id}/replicas/{replica}/log", self._stream),
            ("GET", "/jobs/{id}/events", self._events),
            ("GET", "/logs", self._logs),
        ):
            self.route(method, base + path, handler)

    def stop(self) -> None:
        """Kill what still runs, and stop serving."""
        for job in self.jobs.values():
            for run in job.last.replicas.values():
                run.kill()
        super().stop()

    def release(self) -> None:
        """Start the jobs that wait, and those to come at once."""
        self.held = False
        for job in self.jobs.values():
            if job.state == "Queueing":
                self._start(job)

    def run_of(self, run_id: str) -> LeptonJob | None:
        """The job of a run, carriers left out."""
        return next((job for job in self.jobs.values() if job.id.endswith(run_id)), None)

    def storage(self, mount: dict[str, Any]) -> Path:
        """The folder that stands for what is mounted."""
        name: str = mount["from"].replace(":", "_")
        path: str = mount["path"].strip("/")
        folder = self.folder / "storage" / name / path
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # The workspace.

    def _known(self, request: Request) -> None:
        if request.found.get("ws") != WORKSPACE:
            raise Refused(404, "workspace not found")
        if request.token in self.expired:
            raise Refused(401, "token expired")
        if request.token != TOKEN:
            raise Refused(401, "unauthorized")

    def _workspace(self, request: Request) -> Reply:
        self._known(request)
        return Reply(200, {
            "build_time": "2026-01-01", "git_commit": "abc", "workspace_name": WORKSPACE,
            "workspace_tier": "Enterprise", "workspace_state": "normal", "supported_shapes": {},
            "workspace_disk_usage_bytes": 0, "workloads": {}, "resource_quota": {},
        })  # fmt: skip

    def _shapes(self, request: Request) -> Reply:
        self._known(request)
        rows = []
        for name, gpus in SHAPES.items():
            gpu = {"accelerator_type": "NVIDIA-H100-80GB-HBM3", "accelerator_num": gpus}
            spec = {"name": name, "cpu": 8.0, "memory_in_mb": 65536, **(gpu if gpus else {})}
            rows.append({"metadata": {"id": name, "name": name}, "spec": spec})
        return Reply(200, rows)

    def _groups(self, request: Request) -> Reply:
        self._known(request)
        volume = {"from": "nfs", "name": "lustre", "size_in_gb": 1024, "from_path": "/export"}
        spec = {"volumes": [volume], "gpu_product": "NVIDIA-H100-80GB-HBM3", "desired_nodes": 2}
        metadata = {"id": GROUP_ID, "name": GROUP}
        status = {"ready_nodes": 2, "quota_enabled": True}
        return Reply(200, [{"metadata": metadata, "spec": spec, "status": status}])

    def _nodes(self, request: Request) -> Reply:
        self._known(request)
        busy = sum(job.state == "Running" for job in self.jobs.values())
        gpu = {"product": "NVIDIA-H100-80GB-HBM3", "allocated": float(min(busy, 8)), "total": 8.0}
        return Reply(200, [
            {"metadata": {"id": f"node-{n}"}, "spec": {"unschedulable": False, "resource": {
                "gpu": gpu if n == 0 else {**gpu, "allocated": 0.0}}}, "status": {}}
            for n in range(2)
        ])  # fmt: skip

    def _reservations(self, request: Request) -> Reply:
        self._known(request)
        row = {"metadata": {"id": "res-1", "name": "release"}, "spec": {},
               "status": {"phase": "Reserved", "reserved_count": 2}}  # fmt: skip
        return Reply(200, [row])

    def _list_secrets(self, request: Request) -> Reply:
        self._known(request)
        return Reply(200, [{"name": name} for name in self.secrets])

    def _add_secrets(self, request: Request) -> Reply:
        self._known(request)
        rows = request.json()
        if not isinstance(rows, list):
            raise Refused(400, "json: cannot unmarshal object into Go value of type []SecretItem")
        for row in rows:
            check(row, {"name": str, "value": str, "tags": list, "owner": str, "visibility": str})
            if row["name"] in self.secrets:
                raise Refused(409, f"secret {row['name']} already exists")
        self.secrets |= {row["name"]: row["value"] for row in rows}
        return Reply(200)

    # Jobs.

    def _create(self, request: Request) -> Reply:
        self._known(request)
        body = request.json()
        check_job(body, self.secrets)
        name = body["metadata"].get("id") or body["metadata"].get("name")
        with self.lock:
            if name in self.jobs and not self.jobs[name].deleted:
                raise Refused(409, f"job {name} already exists")
            job = LeptonJob(name, body["metadata"], body["spec"], time.time() + self.skew_s)
            self.jobs[name] = job
            self._try(job)
        return Reply(201, job.told())

    def _try(self, job: LeptonJob) -> None:
        """Make the replicas of the next try; start them unless jobs are held."""
        spec = job.spec
        count = int(spec.get("parallelism") or 1)
        mounts = {m["mount_path"]: self.storage(m) for m in spec.get("mounts") or ()}
        # What only its workers' network resolves; and each job there has an address of its own.
        mounts |= {_MASTER: Path("127.0.0.1"), _PORT: Path(f"MASTER_PORT={free_port()}")}
        runs = {}
        for number in range(count):
            replica = f"{job.id}-{number}-{secrets.token_hex(3)}"
            env = {
                env["name"]: env.get("value")
                or self.secrets.get((env.get("value_from") or {}).get("secret_name_ref", ""), "")
                for env in spec.get("envs") or ()
            }
            env |= {
                "LEPTON_JOB_NAME": job.id,
                "LEPTON_JOB_WORKER_INDEX": str(number),
                "LEPTON_JOB_TOTAL_WORKERS": str(count),
                "LEPTON_JOB_WORKER_PREFIX": f"{job.id}-worker",
                "LEPTON_SUBDOMAIN": f"{job.id}-job-svc",
            }
            folder = self.folder / "disks" / replica
            runs[replica] = LocalJob(spec["container"]["command"], env, mounts, folder)
        job.attempts.append(Attempt(runs))
        if not self.held:
            self._start(job)

    def _start(self, job: LeptonJob) -> None:
        attempt = job.last
        for run in attempt.replicas.values():
            run.start()
        threading.Thread(target=self._oversee, args=(job, attempt), daemon=True).start()

    def _oversee(self, job: LeptonJob, attempt: Attempt) -> None:
        """Try a failed job again, as often as it may be."""
        for run in attempt.replicas.values():
            run.wait(3600)
        with self.lock:
            again = attempt.failed and job.retries_left > 0 and not job.spec.get("stopped")
            if again and job.last is attempt:
                self._try(job)

    def _list(self, request: Request) -> Reply:
        self._known(request)
        mode = request.option("job_query_mode") or "alive_only"
        page, size = int(request.option("page") or 1), int(request.option("page_size") or 500)
        found = [
            job
            for job in self.jobs.values()
            if not job.deleted
            and (request.option("q") or "") in job.id
            and (mode == "alive_and_archive" or job.archived == (mode == "archive_only"))
        ]
        rows = [job.told() for job in found[(page - 1) * size : page * size]]
        return Reply(200, {"jobs": rows, "total": len(found)})

    def _job(self, request: Request) -> LeptonJob:
        self._known(request)
        job = self.jobs.get(request.found.get("id") or request.option("job") or "")
        if job is None or job.deleted:
            raise Refused(404, "job not found")
        if job.archived and request.option("job_query_mode") == "alive_only":
            raise Refused(404, "job not found")
        return job

    def _patch(self, request: Request) -> Reply:
        job, body = self._job(request), request.json()
        check(body, JOB)
        if set(body.get("spec", {})) - {"stopped"}:
            raise Refused(400, "only spec.stopped can be changed")
        was, now = bool(job.spec.get("stopped")), bool(body["spec"]["stopped"])
        job.spec["stopped"] = now
        if now and not was:
            for run in job.last.replicas.values():
                run.stop(self.grace_s)
        elif was and not now:
            self._try(job)
        return Reply(200, job.told())

    def _delete(self, request: Request) -> Reply:
        job = self._job(request)
        for run in job.last.replicas.values():
            run.kill()
        job.deleted = True
        return Reply(200)

    def _replicas(self, request: Request) -> Reply:
        job = self._job(request)
        rows = [
            {"id": name, "metadata": {"id": name}, "status": {}}
            for attempt in job.attempts
            for name, run in attempt.replicas.items()
            if run.started_at
        ]
        return Reply(200, rows)

    def _events(self, request: Request) -> Reply:
        job = self._job(request)
        return Reply(200, [
            {"type": kind, "reason": reason, "message": message, "count": 1,
             "regarding": {"kind": "Pod", "name": job.id},
             "last_observed_time": datetime.fromtimestamp(job.created_at + n, UTC).isoformat()}
            for n, (kind, reason, message) in enumerate(self.events)
        ])  # fmt: skip

    # Logs.

    def _stream(self, request: Request) -> Reply:
        job = self._job(request)
        run = job.last.replicas.get(request.found["replica"])
        if run is None or not run.running:
            raise Refused(404, "replica not found")
        return Reply(200, stream=_text(run), type="text/plain")

    def _logs(self, request: Request) -> Reply:
        job = self._job(request)
        start, end = (int(request.option(name) or 0) for name in ("start", "end"))
        if start <= 0 or end <= start:
            raise Refused(400, "start and end are required, and end must be after start")
        if end - start > 30 * 24 * 3600 * _NS:
            raise Refused(400, "the query time range exceeds the limit of 30d1h")
        limit = int(request.option("limit") or 5000)
        if limit > 10_000:
            raise Refused(400, "max entries limit per query exceeded")
        forward = request.option("direction") == "forward"
        wanted, skew = request.option("replica"), int(self.skew_s * _NS)
        streams = []
        for attempt in job.attempts:
            for name, run in attempt.replicas.items():
                if wanted not in (None, name):
                    continue
                values = [[str(line.at_ns + skew), line.text] for line in list(run.lines)]
                values = [v for v in values if start <= int(v[0]) < end]
                values = values[:limit] if forward else values[: -limit - 1 : -1]
                if values:
                    streams.append({"stream": {"replica": name, "job": job.id}, "values": values})
        return Reply(200, {"status": "success", "data": {"resultType": "streams",
                                                         "result": streams}})  # fmt: skip


def _text(run: LocalJob) -> Iterator[bytes]:
    for entry in run.follow():
        if entry is not None:
            yield entry.text.encode() + b"\n"
