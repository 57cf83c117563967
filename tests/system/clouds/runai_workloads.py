"""The workloads of the fake Run:ai: made, run as local processes, held, suspended and removed."""

from __future__ import annotations

import re
import secrets
import shlex
import threading
import time
import uuid
from pathlib import Path

from tests.system.clouds.jobs import LocalJob, free_port
from tests.system.clouds.runai_schema import check_workload, iso
from tests.system.clouds.runai_tenant import Tenant
from tests.system.clouds.runai_workload import Workload
from tests.system.clouds.server import Refused, Reply, Request


class Workloads(Tenant):
    """A tenant with the workloads of its project.

    Attributes:
        folder: where the pods' disks and the volumes lie.
        workloads: by id, in the order of their creation.
        held: while it is true, new workloads wait in Pending; `release` starts them.
        grace_s: how long a workload that is suspended may take before it is killed.
        events: what Kubernetes tells of each workload, the oldest first: type, reason, message.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.workloads: dict[str, Workload] = {}
        self.held = False
        self.grace_s = 3.0
        self.events: list[tuple[str, str, str]] = []
        for method, path, handler in (
            ("GET", "/api/v1/workloads", self._list),
            ("GET", "/api/v1/workloads/{id}", lambda r: Reply(200, self._any(r).row())),
            ("GET", "/api/v1/workloads/{id}/pods", self._pods),
            ("GET", "/api/v1/workloads/{id}/events", self._events),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)", self._create),
            ("GET", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}",
             lambda r: Reply(200, self._one(r).told())),
            ("DELETE", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}", self._delete),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}/suspend",
             self._suspend),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}/resume",
             self._resume),
        ):  # fmt: skip
            self.route(method, path, handler)

    def stop(self) -> None:
        """Kill what still runs, and stop serving."""
        for workload in self.workloads.values():
            for pod in workload.pods.values():
                pod.kill()
        super().stop()

    def release(self) -> None:
        """Start the workloads that wait, and those to come at once."""
        self.held = False
        for workload in self.workloads.values():
            if workload.phase == "Pending":
                self._start(workload)

    def run_of(self, run_id: str) -> Workload | None:
        """The workload of a run, carriers left out."""
        found = (w for w in self.workloads.values() if w.name.endswith(run_id))
        return next(found, None)

    def volume(self, claim: str) -> Path:
        """The folder that is a volume."""
        folder = self.folder / "volumes" / claim
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _create(self, request: Request) -> Reply:
        self._known(request)
        kind, body = request.found["kind"], request.json()
        check_workload(kind, body, self._secret_value)
        with self.lock:
            live = [w for w in self.workloads.values() if not w.deleted_at]
            if any(workload.name == body["name"] for workload in live):
                raise Refused(409, f"workload with name {body['name']} already exists")
            workload = Workload(str(uuid.uuid4()), kind, body, {})
            workload.pods = self._make_pods(workload)
            self.workloads[workload.id] = workload
        if not self.held:
            self._start(workload)
        return Reply(202, workload.told())

    def _make_pods(self, workload: Workload) -> dict[str, LocalJob]:
        spec, several = workload.body["spec"], workload.kind == "distributed"
        count = spec["numWorkers"] + 1 if several else 1
        port = free_port()
        mounts = {p["path"]: self.volume(p["claimName"]) for p in spec["storage"].get("pvc", ())}
        pods = {}
        for rank in range(count):
            role = "master-0" if rank == 0 else f"worker-{rank - 1}"
            name = f"{workload.name}-{role}" if several else f"{workload.name}-0-0"
            env: dict[str, str] = {}
            if several:
                env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank),
                       "WORLD_SIZE": str(count), "PET_NNODES": str(count)}  # fmt: skip
            for variable in spec.get("environmentVariables") or ():
                value = variable.get("value")
                if value is None:
                    value = self._secret_value(variable["secret"]) or ""
                env[variable["name"]] = _expanded(value, env)
            words = shlex.split(f"{spec.get('command', '')} {spec.get('args', '')}")
            command = [_expanded(word, env) for word in words]
            folder = self.folder / "disks" / f"{name}-{secrets.token_hex(2)}"
            pods[name] = LocalJob(command, env, mounts, folder)
        return pods

    def _start(self, workload: Workload) -> None:
        for pod in workload.pods.values():
            pod.start()
        threading.Thread(target=self._oversee, args=(workload,), daemon=True).start()

    def _oversee(self, workload: Workload) -> None:
        """Try a failed workload again, as often as its backoffLimit lets it."""
        for pod in workload.pods.values():
            pod.wait(3600)
        limit = workload.body["spec"].get("backoffLimit", 6)
        with self.lock:
            again = workload.phase == "Failed" and workload.tries <= limit
            if again and not workload.deleted_at:
                workload.tries += 1
                workload.pods = self._make_pods(workload)
        if again:
            self._start(workload)

    def _list(self, request: Request) -> Reply:
        self._known(request)
        rows = [w.row() for w in self.workloads.values() if not w.deleted_at]
        for text in ",".join(request.options("filterBy")).split(","):
            if match := re.fullmatch(r"(\w+)(==|=@)(.*)", text):
                name, operator, value = match.groups()
                rows = [
                    row
                    for row in rows
                    if (row[name] == value if operator == "==" else value in row[name])
                ]
        if request.option("sortOrder") == "desc":
            rows.reverse()
        begin, limit = int(request.option("offset") or 0), int(request.option("limit") or 50)
        if limit > 500:
            raise Refused(400, "limit is too large")
        return Reply(200, {"next": begin + limit, "workloads": rows[begin : begin + limit]})

    def _any(self, request: Request) -> Workload:
        self._known(request)
        workload = self.workloads.get(request.found["id"])
        if workload is None or workload.deleted_at:
            raise Refused(404, "workload not found")
        return workload

    def _one(self, request: Request) -> Workload:
        workload = self._any(request)
        if workload.kind != request.found["kind"]:
            raise Refused(404, "workload not found")
        return workload

    def _pods(self, request: Request) -> Reply:
        rows = [
            {"name": name, "id": name, "workloadId": request.found["id"], "containers": []}
            for name, pod in self._any(request).pods.items()
            if pod.started_at
        ]
        return Reply(200, {"next": 1, "pods": rows[int(request.option("offset") or 0) :]})

    def _events(self, request: Request) -> Reply:
        workload = self._any(request)
        rows = [
            {"id": str(number), "type": kind, "reason": reason, "message": message,
             "createdAt": iso(workload.created_at + number)}
            for number, (kind, reason, message) in enumerate(self.events)
        ]  # fmt: skip
        if request.option("sortOrder") != "asc":  # the document's default is desc
            rows.reverse()
        begin, limit = int(request.option("offset") or 0), int(request.option("limit") or 50)
        return Reply(200, {"next": begin + limit, "events": rows[begin : begin + limit]})

    def _delete(self, request: Request) -> Reply:
        workload = self._one(request)
        workload.deleted_at = time.time()
        for pod in workload.pods.values():
            pod.kill()
        return Reply(202, {"code": 202, "message": "accepted"})

    def _suspend(self, request: Request) -> Reply:
        workload = self._one(request)
        workload.suspended = True
        for pod in workload.pods.values():
            pod.stop(self.grace_s)
        return Reply(202, {"code": 202, "message": "accepted"})

    def _resume(self, request: Request) -> Reply:
        workload = self._one(request)
        if workload.phase != "Stopped":
            raise Refused(409, "workload is not suspended")
        workload.suspended = False
        workload.pods = self._make_pods(workload)
        self._start(workload)
        return Reply(202, {"code": 202, "message": "accepted"})


def _expanded(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` and `$$` as Kubernetes fills them in, in commands and in variables."""
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][\w.-]*)\)",
        lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]),
        text,
    )
