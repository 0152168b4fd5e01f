"""A Hugging Face Hub on this machine, with as much of its interface as publishing and downloading a bundle need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_" + "x" * 34


class LocalHub(ThreadingHTTPServer):
    """``repositories``: name to ``{"files": {path: bytes}, "tags": {tag: commit}, "private": bool}``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.strange: list[str] = []  # requests without an answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Silent."""

    def answer(self, content: Any, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self) -> None:
        self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def repository(self, path: str) -> tuple[dict[str, Any] | None, str]:
        """The repository that a path under ``/api/models`` or of a file names, and the rest of the path."""
        match = re.match(r"(?:/api/models)?/([\w-]+/[\w-]+)(?:/(.*))?$", path)
        return (self.server.repositories.get(match[1]), match[2] or "") if match else (None, "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.repositories.setdefault(name, {"files": {}, "tags": {}, "private": private})
            return self.answer({"url": f"{self.server.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        repository, rest = self.repository(self.path)
        if repository is None:
            return self.missing()
        if rest.startswith("preupload/"):
            files = json.loads(body)["files"]
            return self.answer({"files": [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in files]})
        if rest.startswith("commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    repository["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = commit_of(repository)
            name = self.path.split("/commit/")[0].removeprefix("/api/models/")
            return self.answer({"commitUrl": f"{self.server.url}/{name}/commit/{commit}", "commitOid": commit})
        if rest.startswith("tag/"):
            repository["tags"][json.loads(body)["tag"]] = commit_of(repository)
            return self.answer({})
        self.server.strange.append(f"POST {self.path}")
        return self.answer({"error": "unknown"}, 404)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        repository, rest = self.repository(path)
        if repository is None:
            return self.missing()
        commit = commit_of(repository)
        files = repository["files"]
        if rest == "refs":
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in repository["tags"].items()
            ]
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit}
            return self.answer({"branches": [main], "tags": tags, "converts": []})
        if rest == "" or rest.startswith("revision/"):
            return self.answer({"id": "a/b", "sha": commit, "siblings": [{"rfilename": name} for name in files]})
        if rest.startswith("tree/"):
            return self.answer(
                [{"type": "file", "path": name, "size": len(data), "oid": sha1(data)} for name, data in files.items()]
            )
        match = re.match(r"resolve/[^/]+/(.*)$", rest)
        if match and match[1] in files:
            data = files[match[1]]
            return self.answer(data, X_Repo_Commit=commit, ETag=f'"{sha1(data)}"')
        self.server.strange.append(f"GET {self.path}")
        return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


def sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def commit_of(repository: dict[str, Any]) -> str:
    return sha1(repr(sorted(repository["files"].items())).encode())


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    hub = LocalHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
