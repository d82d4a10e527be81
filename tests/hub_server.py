"""A Hub on loopback for the real huggingface_hub client (HF_ENDPOINT, HF_HUB_DISABLE_XET=1): repositories in memory,
every request recorded. It knows the calls that an upload makes, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


@dataclass
class Repo:
    """Files at the head, and at every commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return next(reversed(self.commits), "0" * 40)


@dataclass
class Request:
    method: str
    path: str
    token: str | None
    body: bytes


class Hub:
    """`with Hub() as hub:` serves until the block ends. `failures` maps a regex on "METHOD /path" to a status."""

    def __init__(self, token: str = "hf_right", role: str = "write"):
        self.token, self.role = token, role
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.failures: dict[str, int] = {}
        self.creates_public = False
        self.loses: str | None = None  # a file that a commit silently leaves out
        self.large = ".safetensors"  # the ending of files that go through LFS

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def calls(self) -> list[str]:
        """Method and path of every request, without the client's own look-up of agent harnesses."""
        return [f"{r.method} {r.path}" for r in self.requests if r.path != "/api/agent-harnesses"]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        request = Request(self.command, path, token, self._body())
        self.hub.requests.append(request)
        call = f"{self.command} {path}"
        failure = next((status for pattern, status in self.hub.failures.items() if re.search(pattern, call)), None)
        open_to_all = path == "/api/agent-harnesses" or call.startswith("PUT /lfs/")  # as presigned addresses are
        if not open_to_all and token != self.hub.token:
            return self._send(401, {"error": "Invalid username or password."},
                              {"X-Error-Message": "Invalid credentials in Authorization header"})  # fmt: skip
        if failure:
            return self._send(failure, {"error": "as the test wants it"})
        for pattern, answer in ROUTES:
            if match := re.fullmatch(pattern, call):
                return self._send(*answer(self.hub, request, *match.groups()))
        return self._send(404, {"error": f"this Hub does not know {call}"})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def whoami(hub: Hub, request: Request) -> tuple:
    return 200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": hub.role}}}


def create(hub: Hub, request: Request) -> tuple:
    wanted = json.loads(request.body)
    name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
    if name in hub.repos:
        return 409, {"error": "You already created this model repo"}
    private = wanted.get("visibility") == "private" or wanted.get("private") is True
    hub.repos[name] = Repo(private and not hub.creates_public)
    return 200, {"url": f"{hub.url}/{name}", "name": name}


def info(hub: Hub, request: Request, name: str) -> tuple:
    if name not in hub.repos:
        return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
    repo = hub.repos[name]
    siblings = [{"rfilename": path} for path in repo.files]
    return 200, {"id": name, "private": repo.private, "sha": repo.head, "siblings": siblings, "tags": []}


def tree(hub: Hub, request: Request, name: str, revision: str) -> tuple:
    repo = hub.repos[name]
    files = repo.commits.get(revision, repo.files)
    entries = [{"type": "file", "path": path, "size": len(data), "oid": git_oid(data)} for path, data in files.items()]
    for entry in entries:
        if entry["path"].endswith(hub.large):
            oid = oid_of(hub, entry["path"], files[entry["path"]])
            entry["lfs"] = {"oid": oid, "size": entry["size"], "pointerSize": 134}
    return 200, entries


def validate(hub: Hub, request: Request) -> tuple:
    content = json.loads(request.body)["content"]
    metadata = yaml.safe_load(content.split("---")[1])
    errors = [] if isinstance(metadata, dict) else [{"message": "no metadata"}]
    return (400 if errors else 200), {"errors": errors, "warnings": []}


def preupload(hub: Hub, request: Request, name: str) -> tuple:
    known, answers = hub.repos[name].files, []
    for path in (wanted["path"] for wanted in json.loads(request.body)["files"]):
        mode = "lfs" if path.endswith(hub.large) else "regular"
        oid = oid_of(hub, path, known[path]) if path in known else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {"files": answers}


def batch(hub: Hub, request: Request, name: str) -> tuple:
    def action(thing: dict) -> dict:
        if thing["oid"] in hub.objects:
            return thing
        upload, verify = {"href": f"{hub.url}/lfs/{thing['oid']}"}, {"href": f"{hub.url}/lfs-verify"}
        return {**thing, "actions": {"upload": upload, "verify": verify}}

    return 200, {"transfer": "basic", "objects": [action(thing) for thing in json.loads(request.body)["objects"]]}


def put(hub: Hub, request: Request, oid: str) -> tuple:
    hub.objects[hashlib.sha256(request.body).hexdigest()] = request.body
    return 200, {}


def verify(hub: Hub, request: Request) -> tuple:
    return (200 if json.loads(request.body)["oid"] in hub.objects else 404), {}


def commit(hub: Hub, request: Request, name: str) -> tuple:
    repo = hub.repos[name]
    for line in map(json.loads, request.body.splitlines()):
        value = line["value"]
        if value.get("path") == hub.loses:
            continue
        if line["key"] == "file":
            repo.files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            repo.files[value["path"]] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            del repo.files[value["path"]]
    oid = hashlib.sha1(request.body + str(len(repo.commits)).encode()).hexdigest()
    repo.commits[oid] = dict(repo.files)
    return 200, {"commitUrl": f"{hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True}


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


def oid_of(hub: Hub, path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(hub.large) else git_oid(content)


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"GET /api/whoami-v2", whoami),
    (r"POST /api/repos/create", create),
    (rf"GET /api/models/{NAME}(?:/revision/[\w.-]+)?", info),
    (rf"GET /api/models/{NAME}/tree/([\w.-]+)", tree),
    (r"POST /api/validate-yaml", validate),
    (rf"POST /api/models/{NAME}/preupload/main", preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", batch),
    (r"PUT /lfs/([0-9a-f]{64})", put),
    (r"POST /lfs-verify", verify),
    (rf"POST /api/models/{NAME}/commit/main", commit),
]
