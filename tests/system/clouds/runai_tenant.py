"""The tenant of the fake Run:ai: who may ask, and what was there before any workload."""

from __future__ import annotations

import base64
import json
import secrets
import time

from tests.system.clouds.runai_schema import (
    CLAIM,
    CLIENT,
    CLUSTER_ID,
    FIELDS,
    POOLS,
    PROJECT,
    PROJECT_ID,
    SECRET,
    check,
    iso,
)
from tests.system.clouds.server import FakeService, Refused, Reply, Request


class Tenant(FakeService):
    """Tokens, the project with its cluster and node pools, volumes and secrets.

    Attributes:
        lasts_s: how long a token is good.
        tokens: those given out → when they run out.
        credentials: name of a generic secret → its keys and values.
        domain: host and port where the cluster's own services answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lasts_s = 3600
        self.tokens: dict[str, float] = {}
        self.credentials: dict[str, dict[str, str]] = {}
        self.domain = ""
        self.base_url = f"{self.url}/api/v1"
        for method, path, handler in (
            ("POST", "/api/v1/token", self._token),
            ("GET", "/api/v1/org-unit/projects", self._projects),
            ("GET", "/api/v1/clusters", self._clusters),
            ("GET", "/api/v1/node-pools", self._pools),
            ("GET", "/api/v1/asset/datasource/pvc", self._volumes),
            ("GET", "/api/v1/asset/credentials/generic-secret", self._secrets),
            ("POST", "/api/v1/asset/credentials/generic-secret", self._add_secret),
        ):
            self.route(method, path, handler)

    def expire(self) -> None:
        """All tokens that were given out are good no longer."""
        self.tokens = dict.fromkeys(self.tokens, 0.0)

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
            "tenantId": 1, "createdAt": iso(0), "version": "2.20", "status":
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

    def _secret_value(self, secret: dict[str, str]) -> str | None:
        for name, values in self.credentials.items():
            if _resource(name) == secret["name"]:
                return values.get(secret["key"])
        return None


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
