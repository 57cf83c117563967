"""The Hub's account, its buckets and its repositories.

Files go through the real `hf_xet`, whose storage is a local folder here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import shutil
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.system.clouds.server import FakeService, Refused, Reply, Request

TOKEN = "hf_" + "Gd7Kq2" * 6
"""A token in the form of a real one; it opens `ada` and the organization `lab`."""


class FakeStorage(FakeService):
    """What the Hub keeps.

    Attributes:
        expired: tokens that were good once.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.expired: set[str] = set()
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._written: list[Path] = []
        for method, path, handler in (
            ("POST", "/api/buckets/{ns}/{name}", self._create_bucket),
            ("GET", "/api/buckets/{ns}/{name}", self._bucket_info),
            ("GET", "/api/buckets/{ns}/{name}/tree(/(?P<prefix>[^/]*))?", self._tree),
            ("POST", "/api/buckets/{ns}/{name}/paths-info", self._paths_info),
            ("POST", "/api/buckets/{ns}/{name}/batch", self._batch),
            ("GET", "/api/buckets/{ns}/{name}/xet-(read|write)-token", self._xet_token),
            ("HEAD", "/buckets/{ns}/{name}/resolve/{path}", self._resolve),
            ("POST", "/api/repos/create", self._create_repo),
            ("POST", "/api/models/{ns}/{name}/preupload/main", self._preupload),
            ("POST", "/api/models/{ns}/{name}/commit/main", self._commit),
            ("GET", "/api/models/{ns}/{name}", self._no_repo),
            ("GET", "/api/datasets/{ns}/{name}", self._no_repo),
        ):
            self.route(method, path, handler)

    def bucket(self, name: str) -> Path:
        """The folder that is a bucket."""
        return self.folder / "buckets" / name

    def make_bucket(self, name: str) -> Path:
        """Make a bucket."""
        self.bucket(name).mkdir(parents=True)
        return self.bucket(name)

    def account(self, request: Request) -> str:
        if request.token in self.expired:
            raise Refused(401, "User Access Token has expired")
        if request.token != TOKEN:
            raise Refused(401, "Invalid credentials in Authorization header")
        namespace = request.found.get("ns", "ada")
        if namespace not in ("ada", "lab"):
            raise Refused(403, f"You don't have the required permissions for {namespace}")
        return namespace

    # Buckets.

    def _folder(self, request: Request) -> Path:
        self.account(request)
        folder = self.bucket(f"{request.found['ns']}/{request.found['name']}")
        if not folder.is_dir():
            raise Refused(404, "Bucket not found", X_Error_Code="RepoNotFound")
        return folder

    def _create_bucket(self, request: Request) -> Reply:
        self.account(request)
        name = f"{request.found['ns']}/{request.found['name']}"
        there = self.bucket(name).is_dir()
        self.bucket(name).mkdir(parents=True, exist_ok=True)
        told = {"url": f"{self.url}/buckets/{name}"}
        return Reply(409 if there else 200, {**told, "error": "exists"} if there else told)

    def _bucket_info(self, request: Request) -> Reply:
        self._folder(request)
        name = f"{request.found['ns']}/{request.found['name']}"
        told = {"id": name, "private": True, "createdAt": iso(time.time())}
        return Reply(200, {**told, "size": 0, "totalFiles": 0})

    def _tree(self, request: Request) -> Reply:
        folder = self._folder(request)
        prefix = unquote(request.found["prefix"] or "")
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        below = [name for name in sorted(names) if name.startswith(prefix)]
        return Reply(200, [self._told(request, name) for name in below])

    def _told(self, request: Request, name: str) -> dict[str, Any]:
        path = self._folder(request) / name
        if path.is_symlink():
            raise AssertionError(f"a bucket knows no links: {name}")
        if path.is_dir():
            return {"type": "directory", "path": name, "uploadedAt": iso(time.time())}
        found = path.stat()
        return {
            "type": "file",
            "path": name,
            "size": found.st_size,
            "xetHash": self._hash_of(request, path),
            "mtime": iso(found.st_mtime),
            "uploadedAt": iso(found.st_mtime),
        }

    def _hash_of(self, request: Request, path: Path) -> str:
        """The file's hash; what a job wrote goes into the storage as it is first asked for."""
        found = path.stat()
        key = (str(path), found.st_size, found.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = self._xet_upload(path) if found.st_size else "0" * 64
        return self._hashes[key]

    def _paths_info(self, request: Request) -> Reply:
        folder = self._folder(request)
        wanted = request.json()["paths"]
        return Reply(200, [self._told(request, p) for p in wanted if (folder / p).is_file()])

    def _batch(self, request: Request) -> Reply:
        folder = self._folder(request)
        for line in request.body.splitlines():
            operation = json.loads(line)
            path = folder / operation["path"]
            if operation["type"] == "deleteFile":
                path.unlink(missing_ok=True)
                continue
            assert operation["type"] == "addFile", operation
            path.parent.mkdir(parents=True, exist_ok=True)
            self._xet_download(operation["xetHash"], path)
        return Reply(200, {"success": True, "failed": []})

    def _resolve(self, request: Request) -> Reply:
        path = self._folder(request) / unquote(request.found["path"])
        if not path.is_file():
            raise Refused(404, "Entry not found", X_Error_Code="EntryNotFound")
        name = f"{request.found['ns']}/{request.found['name']}"
        headers = {
            "X-Xet-Hash": self._hash_of(request, path),
            "X-Xet-Refresh-Route": f"{self.url}/api/buckets/{name}/xet-read-token",
            "X-Linked-Size": str(path.stat().st_size),
            "Content-Length": str(path.stat().st_size),
        }
        return Reply(200, headers=headers)

    # Repositories.

    def repository(self, name: str) -> Path:
        """The folder that is a repository of a model."""
        return self.folder / "repositories" / name

    def _create_repo(self, request: Request) -> Reply:
        self.account(request)
        asked = request.json()
        if asked.get("private") is not True and asked.get("visibility") != "private":
            raise Refused(400, "this account keeps only private repositories")
        name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
        there = self.repository(name).is_dir()
        self.repository(name).mkdir(parents=True, exist_ok=True)
        told = {"url": f"{self.url}/{name}", "id": name, "name": name}
        return Reply(409 if there else 200, {**told, "error": "exists"} if there else told)

    def _preupload(self, request: Request) -> Reply:
        self.account(request)
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
            for file in request.json()["files"]
        ]
        return Reply(200, {"files": files})

    def _commit(self, request: Request) -> Reply:
        self.account(request)
        name = f"{request.found['ns']}/{request.found['name']}"
        folder = self.repository(name)
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        assert header["key"] == "header"
        for operation in operations:
            assert operation["key"] == "file", operation
            path = folder / operation["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(operation["value"]["content"]))
        url = f"{self.url}/{name}/commit/{'0' * 40}"
        told = {"commitOid": "0" * 40, "commitUrl": url, "success": True}
        return Reply(200, told)

    def _no_repo(self, request: Request) -> Reply:
        raise Refused(404, "Repository not found", X_Error_Code="RepoNotFound")

    # The storage.

    def _xet_token(self, request: Request) -> Reply:
        """A local storage opens for one process at a time: each client gets one of its own.

        One that writes gets an empty one, and one that reads a copy of the service's.
        """
        self.account(request)
        if "x-own" in request.headers:
            return self._access(self.folder / "cas" / request.found["name"])
        self._folder(request)
        if request.path.endswith("read-token"):
            place = self._copy(self.folder / "cas" / "own")
        else:
            place = self.folder / "cas" / secrets.token_hex(4)
            self._written.append(place)
        return self._access(place)

    def _access(self, place: Path) -> Reply:
        expires = int(time.time()) + 3600
        return Reply(
            200,
            {"casUrl": f"local://{place}", "exp": expires, "accessToken": "xet"},
            {
                "X-Xet-Cas-Url": f"local://{place}",
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": str(expires),
            },
        )

    def _copy(self, place: Path) -> Path:
        copy = self.folder / "cas" / secrets.token_hex(4)
        shutil.copytree(place, copy)
        return copy

    def _xet_upload(self, path: Path) -> str:
        from hf_xet import SKIP_SHA256

        with _xet().new_upload_commit(**self._as_itself("own")) as commit:
            handle = commit.start_upload_file(str(path), sha256=SKIP_SHA256)
        found: str = handle.result().xet_info.hash
        return found

    def _xet_download(self, digest: str, path: Path) -> None:
        """Fetch a file from where a client has written it."""
        from hf_xet import XetFileInfo

        draft = self.folder / "incoming" / secrets.token_hex(8)
        draft.parent.mkdir(exist_ok=True)
        for place in reversed(self._written):
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                with _xet().new_file_download_group(
                    **self._as_itself(self._copy(place).name)
                ) as group:
                    group.start_download_file(XetFileInfo(digest, None), str(draft))
                shutil.move(draft, path)
                return
        raise AssertionError(f"nobody has written {digest}")

    def _as_itself(self, storage: str) -> dict[str, Any]:
        return {
            "token_refresh_url": f"{self.url}/api/buckets/ada/{storage}/xet-write-token",
            "token_refresh_headers": {"authorization": f"Bearer {TOKEN}", "x-own": "1"},
            "custom_headers": {},
            "progress_callback": None,
        }


@cache
def _xet() -> Any:
    from hf_xet import XetSession

    return XetSession()


def iso(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
