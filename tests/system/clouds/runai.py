"""A Run:ai control plane with one cluster, as its OpenAPI document has them.

Fields, types, routes and phases are those of runapy 1.224.0, which is generated from it. The
cluster's log service speaks TLS with a certificate of an authority of its own.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from tests.system.clouds.certificate import make_certificate
from tests.system.clouds.jobs import LocalJob
from tests.system.clouds.runai_schema import PROJECT
from tests.system.clouds.runai_workloads import Workloads
from tests.system.clouds.server import Refused, Reply, Request

_LOG = re.compile(
    r"/cluster-api/api/v1/(?P<project>[^/]+)/workloads/training/(?P<kind>runai|pytorch)"
    r"/(?P<name>[^/]+)/logs"
)


class FakeRunAI(Workloads):
    """The control plane, and the cluster that gives out its workloads' logs.

    Attributes:
        cuts: after how many lines each of the next log connections is cut.
        turned_over: how many lines at the beginning of each log Kubernetes no longer gives out.
        gives_pods: whether the cluster's log service knows the query's `podName`.
        authority: the certificate that the cluster's log service is trusted by.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cuts: list[int] = []
        self.gives_pods = True
        self.turned_over = 0
        self.kube_url = f"{self.url}/kube"
        self.authority, own = make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        self._logs = serve(self._log, "127.0.0.1", 0, ssl=context, process_request=self._admit)
        self.domain = f"127.0.0.1:{self._logs.socket.getsockname()[1]}"
        self.route("GET", "/kube/api/v1/namespaces/{ns}/pods/{pod}/log", self._kube_log)

    def start(self) -> None:
        """Begin to serve."""
        super().start()
        threading.Thread(target=self._logs.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Kill what still runs, and stop serving."""
        super().stop()
        self._logs.shutdown()

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
