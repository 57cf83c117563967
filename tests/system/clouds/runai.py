"""A Run:ai control plane with one cluster, as its OpenAPI document has them.

Fields, types, routes and phases are those of runapy 1.224.0, which is generated from it. The
cluster's log service speaks TLS with a certificate of an authority of its own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import shlex
import socket
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.system.clouds.certificate import make_certificate
from tests.system.clouds.jobs import LocalJob
from tests.system.clouds.runai_schema import (
    CLAIM,
    CLUSTER_ID,
    FIELDS,
    POOLS,
    PROJECT_ID,
    check,
    check_workload,
)
from tests.system.clouds.server import FakeService, Refused, Reply, Request

CLIENT, SECRET = "tunedeck", "Rn8" + "kW3pZ5" * 5
PROJECT = "nlp"

_LOG = re.compile(
    r"/cluster-api/api/v1/(?P<project>[^/]+)/workloads/training/(?P<kind>runai|pytorch)"
    r"/(?P<name>[^/]+)/logs"
)


@dataclass
class Workload:
    """One workload, with the pods of its last try, the master first."""

    id: str
    kind: str
    body: dict[str, Any]
    pods: dict[str, LocalJob]
    created_at: float = field(default_factory=time.time)
    tries: int = 1
    suspended: bool = False
    deleted_at: float | None = None

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def first(self) -> LocalJob:
        return next(iter(self.pods.values()))

    @property
    def phase(self) -> str:
        """The service's word."""
        started = any(pod.started_at for pod in self.pods.values())
        over = all(pod.ended_at for pod in self.pods.values())
        if self.suspended:
            return "Stopping" if started and not over else "Stopped"
        if not started:
            return "Pending"
        if not over:
            return "Running"
        failed = any(pod.exit_code for pod in self.pods.values())
        return "Failed" if failed else "Completed"

    def told(self) -> dict[str, Any]:
        """The JSON of its own route."""
        desired = "Deleted" if self.deleted_at else "Stopped" if self.suspended else "Running"
        return {
            "name": self.name, "requestedName": self.name, "workloadId": self.id,
            "projectId": self.body["projectId"], "clusterId": self.body["clusterId"],
            "createdBy": CLIENT, "createdAt": _iso(self.created_at),
            "deletedAt": _iso(self.deleted_at), "desiredPhase": desired,
            "actualPhase": self.phase, "spec": self.body["spec"],
        }  # fmt: skip

    def row(self) -> dict[str, Any]:
        """The JSON of the list of all kinds."""
        ended = [pod.ended_at for pod in self.pods.values() if pod.ended_at]
        over = self.phase in ("Completed", "Failed", "Stopped")
        message = "Not enough resources in the node pool" if self.phase == "Pending" else ""
        return {
            "id": self.id, "name": self.name, "type": self.kind.removesuffix("s").capitalize(),
            "projectName": PROJECT, "projectId": str(PROJECT_ID), "clusterId": CLUSTER_ID,
            "phase": self.phase, "phaseMessage": message, "createdAt": _iso(self.created_at),
            "deletedAt": _iso(self.deleted_at),
            "completedAt": _iso(max(ended)) if over and ended else None,
        }  # fmt: skip


class FakeRunAI(FakeService):
    """The control plane and the cluster.

    Attributes:
        workloads: by id, in the order of their creation.
        held: while it is true, new workloads wait in Pending; `release` starts them.
        grace_s: how long a workload that is suspended may take before it is killed.
        lasts_s: how long a token is good.
        tokens: those given out → when they run out.
        credentials: name of a generic secret → its keys and values.
        cuts: after how many lines each of the next log connections is cut.
        turned_over: how many lines at the beginning of each log Kubernetes no longer gives out.
        gives_pods: whether the cluster's log service knows the query's `podName`.
        authority: the certificate that the cluster's log service is trusted by.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.workloads: dict[str, Workload] = {}
        self.held = False
        self.grace_s = 3.0
        self.lasts_s = 3600
        self.tokens: dict[str, float] = {}
        self.credentials: dict[str, dict[str, str]] = {}
        self.cuts: list[int] = []
        self.gives_pods = True
        self.turned_over = 0
        self.base_url = f"{self.url}/api/v1"
        self.kube_url = f"{self.url}/kube"
        self.authority, own = make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        self._logs = serve(self._log, "127.0.0.1", 0, ssl=context, process_request=self._admit)
        self.domain = f"127.0.0.1:{self._logs.socket.getsockname()[1]}"
        for method, path, handler in (
            ("POST", "/api/v1/token", self._token),
            ("GET", "/api/v1/org-unit/projects", self._projects),
            ("GET", "/api/v1/clusters", self._clusters),
            ("GET", "/api/v1/node-pools", self._pools),
            ("GET", "/api/v1/asset/datasource/pvc", self._volumes),
            ("GET", "/api/v1/asset/credentials/generic-secret", self._secrets),
            ("POST", "/api/v1/asset/credentials/generic-secret", self._add_secret),
            ("GET", "/api/v1/workloads", self._list),
            ("GET", "/api/v1/workloads/{id}", lambda r: Reply(200, self._any(r).row())),
            ("GET", "/api/v1/workloads/{id}/pods", self._pods),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)", self._create),
            ("GET", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}",
             lambda r: Reply(200, self._one(r).told())),
            ("DELETE", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}", self._delete),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}/suspend",
             self._suspend),
            ("POST", "/api/v1/workloads/(?P<kind>trainings|distributed)/{id}/resume",
             self._resume),
            ("GET", "/kube/api/v1/namespaces/{ns}/pods/{pod}/log", self._kube_log),
        ):  # fmt: skip
            self.route(method, path, handler)

    def start(self) -> None:
        """Begin to serve."""
        super().start()
        threading.Thread(target=self._logs.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Kill what still runs, and stop serving."""
        for workload in self.workloads.values():
            for pod in workload.pods.values():
                pod.kill()
        self._logs.shutdown()
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

    def expire(self) -> None:
        """All tokens that were given out are good no longer."""
        self.tokens = dict.fromkeys(self.tokens, 0.0)

    # The tenant.

    def _token(self, request: Request) -> Reply:
        body = {key.lower(): value for key, value in request.json().items()}  # as Go reads JSON
        grants = {
            "client_credentials": ("clientid", "clientsecret"),
            "app_token": ("appid", "appsecret"),
        }
        names = grants.get(body.get("granttype", ""))
        if names is None or set(body) != {"granttype", *names}:
            raise Refused(400, "invalid grant")
        if (body[names[0]], body[names[1]]) != (CLIENT, SECRET):
            raise Refused(401, "invalid client credentials")
        until = time.time() + self.lasts_s
        token = _jwt(int(until + self.skew_s))
        self.tokens[token] = until
        return Reply(200, {"accessToken": token, "expiresIn": self.lasts_s})

    def _good(self, token: str) -> bool:
        return self.tokens.get(token, 0.0) > time.time()

    def _known(self, request: Request) -> None:
        if not self._good(request.token):
            raise Refused(401, "Jwt is expired" if request.token in self.tokens else "Jwt missing")

    def _projects(self, request: Request) -> Reply:
        self._known(request)
        row = {
            "id": str(PROJECT_ID), "name": PROJECT, "clusterId": CLUSTER_ID,
            "resources": [{"nodePool": {"id": "1", "name": "default"}, "gpu": {"deserved": 8.0}}],
            "status": {"phase": "Ready", "quotaStatus": {"allocated": {"gpu": 2.0}}},
        }  # fmt: skip
        begin = int(request.option("offset") or 0)
        return Reply(200, {"next": 1, "projects": [row][begin:]})

    def _clusters(self, request: Request) -> Reply:
        self._known(request)
        return Reply(200, [{
            "uuid": CLUSTER_ID, "name": "dgx-eu", "domain": f"https://{self.domain}",
            "tenantId": 1, "createdAt": _iso(0), "version": "2.20", "status":
            {"state": "Connected"},
        }])  # fmt: skip

    def _pools(self, request: Request) -> Reply:
        self._known(request)
        rows = [{"name": n, "clusterId": CLUSTER_ID, "phase": "Ready", "id": n} for n in POOLS]
        return Reply(200, {"nodepools": rows[int(request.option("offset") or 0) :]})

    def _volumes(self, request: Request) -> Reply:
        self._known(request)
        spec = {"claimName": CLAIM, "existingPvc": True, "path": "/workspace"}
        return Reply(200, {"entries": [{"meta": {"name": "workspace", "id": "p1"}, "spec": spec}]})

    def _secrets(self, request: Request) -> Reply:
        self._known(request)
        entries = [
            {"meta": {"name": name, "scope": "project", "projectId": PROJECT_ID},
             "spec": {"keyId": 1}, "clusterInfo": {"resources": [{"name": _resource(name)}]}}
            for name in self.credentials
        ]  # fmt: skip
        return Reply(200, {"entries": entries})

    def _add_secret(self, request: Request) -> Reply:
        self._known(request)
        body = request.json()
        check(body, {"meta": dict, "spec": dict})
        check(body["meta"], FIELDS["meta"])
        check(body["spec"], {"existingSecretName": str, "keyValuePairs": list})
        name = body["meta"]["name"]
        if name in self.credentials:
            raise Refused(409, f"asset {name} already exists")
        for pair in body["spec"]["keyValuePairs"]:
            check(pair, FIELDS["pair"])
        pairs = body["spec"]["keyValuePairs"]
        self.credentials[name] = {pair["key"]: pair["value"] for pair in pairs}
        return Reply(202, {"meta": body["meta"], "spec": {"keyId": 1}})

    # Workloads.

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

    def _secret_value(self, secret: dict[str, str]) -> str | None:
        for name, values in self.credentials.items():
            if _resource(name) == secret["name"]:
                return values.get(secret["key"])
        return None

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

    # Logs: of the cluster, not of the control plane.

    def _pod_of(self, path: str) -> LocalJob | None:
        """The pod that a path of the log service asks for: the first where it names none."""
        route, _, query = path.partition("?")
        match = _LOG.fullmatch(route)
        if match is None or match["project"] != PROJECT:
            return None
        kind = {"runai": "trainings", "pytorch": "distributed"}[match["kind"]]
        found = [w for w in self.workloads.values() if (w.name, w.kind) == (match["name"], kind)]
        live = [workload for workload in found if not workload.deleted_at]
        if not live:
            return None
        wanted = dict(parse_qsl(query)).get("podName") if self.gives_pods else None
        pod = live[0].pods.get(wanted) if wanted else live[0].first
        return pod if pod and pod.started_at else None

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not self._good(token):
            return connection.respond(401, "Unauthorized\n")
        if self._pod_of(request.path) is None:
            return connection.respond(404, "not found\n")
        return None

    def _log(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        token = connection.request.headers["Authorization"].removeprefix("Bearer ")
        pod = self._pod_of(connection.request.path)
        assert pod
        left = self.cuts.pop(0) if self.cuts else None
        with contextlib.suppress(ConnectionClosed, OSError):
            for entry in pod.follow(self.turned_over):
                if not self._good(token):
                    connection.close(1008, "token expired")
                    return
                if entry is None:
                    continue
                line = entry.text + "\n"
                if left == 0:  # in the middle of a line
                    connection.send(line[: len(line) // 2])
                    connection.socket.shutdown(socket.SHUT_RDWR)
                    return
                connection.send(line)
                left = None if left is None else left - 1

    def _kube_log(self, request: Request) -> Reply:
        self._known(request)
        found = [w.pods[request.found["pod"]] for w in self.workloads.values()
                 if request.found["pod"] in w.pods]  # fmt: skip
        if not found or request.found["ns"] != f"runai-{PROJECT}":
            raise Refused(404, "pods not found")
        run = found[0]
        if request.option("follow") == "true":
            lines = (e.text.encode() + b"\n" for e in run.follow(self.turned_over) if e is not None)
        else:
            lines = (e.text.encode() + b"\n" for e in list(run.lines))
        return Reply(200, stream=lines, type="text/plain")


def _expanded(text: str, env: dict[str, str]) -> str:
    """`$(NAME)` and `$$` as Kubernetes fills them in, in commands and in variables."""
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][\w.-]*)\)",
        lambda m: "$" if m[0] == "$$" else env.get(m[1], m[0]),
        text,
    )


def _resource(name: str) -> str:
    """What a credential is called in Kubernetes."""
    return f"genericsecret-{name}"


def _jwt(exp: int) -> str:
    """A token in the form of a real one; runapy reads its payload as plain base64."""
    while True:
        payload = {"exp": exp, "iss": "runai", "jti": secrets.token_hex(8)}
        parts = [json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(payload)]
        texts = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
        if not set("".join(texts)) & set("-_"):
            return ".".join([*texts, secrets.token_hex(32)])


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
