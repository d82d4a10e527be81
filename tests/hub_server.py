"""A Hub on loopback for the real huggingface_hub client (HF_ENDPOINT, HF_HUB_DISABLE_XET=1): repositories in memory,
every request recorded. It knows the calls that an upload and the download of a data set make, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml


@dataclass
class Repo:
    """Files at the head, and at every commit; `refs` are branches besides main, by the commit they point to."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    renamed_from: str | None = None

    def commit(self, files: dict[str, bytes], ref: str | None = None) -> str:
        """Adds a commit that holds exactly `files`, on main or on another branch; returns its sha."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        if ref is None:
            self.files = dict(files)
            self.commits[sha] = dict(files)
        else:
            self.commits = {sha: dict(files), **self.commits}  # main's head stays the last
            self.refs[ref] = sha
        return sha

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files at a commit, a branch or main; None for a revision that does not exist."""
        if revision == "main":
            return self.files
        return self.commits.get(self.refs.get(revision, revision))

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
        self.datasets: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.failures: dict[str, int] = {}
        self.creates_public = False
        self.loses: str | None = None  # a file that a commit silently leaves out
        self.large = (".safetensors", ".gguf")  # the endings of files that go through LFS
        self.corrupts: str | None = None  # a file whose first byte a download changes
        self.stalls: str | None = None  # a regex on "METHOD /path": such a request is never answered
        self.released = threading.Event()

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def of(self, kind: str) -> dict[str, Repo]:
        return {"models": self.repos, "datasets": self.datasets}[kind]

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

    do_POST = do_PUT = do_HEAD = do_DELETE = do_GET

    def _serve(self) -> None:
        path = self.path.partition("?")[0]
        authorization = self.headers.get("Authorization")
        token = authorization.removeprefix("Bearer ") if authorization else None
        request = Request(self.command, path, token, self._body())
        self.hub.requests.append(request)
        call = f"{self.command} {path}"
        if self.hub.stalls and re.search(self.hub.stalls, call):
            self.hub.released.wait()
            return None
        failure = next((status for pattern, status in self.hub.failures.items() if re.search(pattern, call)), None)
        open_to_all = path == "/api/agent-harnesses" or call.startswith("PUT /lfs/")  # as presigned addresses are
        open_to_all = open_to_all or (token is None and re.match(r"(GET|HEAD) /(api/)?datasets/", call))
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
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def whoami(hub: Hub, request: Request) -> tuple:
    return 200, {"name": "me", "type": "user", "orgs": [], "auth": {"accessToken": {"role": hub.role}}}


def create(hub: Hub, request: Request) -> tuple:
    wanted = json.loads(request.body)
    name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
    repos = hub.of(f"{wanted.get('type') or 'model'}s")
    if name in repos:
        return 409, {"error": "You already created this repo"}
    private = wanted.get("visibility") == "private" or wanted.get("private") is True
    repos[name] = Repo(private and not hub.creates_public)
    return 200, {"url": f"{hub.url}/{name}", "name": name}


def visible(hub: Hub, request: Request, kind: str, name: str) -> tuple[str, Repo] | None:
    """The repository under its own or its former name, or None where this caller may not know that it exists."""
    repos = hub.of(kind)
    found = next((own for own, repo in repos.items() if name in (own, repo.renamed_from)), None)
    if found is None or (repos[found].private and request.token is None):
        return None
    return found, repos[found]


def not_found(request: Request) -> tuple:
    """What the Hub says of missing and of private repositories: 401 to strangers, 404 to the others."""
    return (404 if request.token else 401), {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}


def info(hub: Hub, request: Request, kind: str, name: str, revision: str | None) -> tuple:
    found = visible(hub, request, kind, name)
    if found is None:
        return not_found(request)
    name, repo = found
    revision = unquote(revision or "main")
    files = repo.at(revision)
    if files is None:
        return 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"}
    sha = repo.head if revision == "main" else repo.refs.get(revision, revision)
    siblings = [{"rfilename": path} for path in files]
    gated = "manual" if repo.gated else False
    return 200, {"id": name, "private": repo.private, "gated": gated, "sha": sha, "siblings": siblings, "tags": []}


def tree(hub: Hub, request: Request, kind: str, name: str, revision: str) -> tuple:
    found = visible(hub, request, kind, name)
    if found is None:
        return not_found(request)
    files = found[1].at(unquote(revision)) or found[1].files
    entries = [{"type": "file", "path": path, "size": len(data), "oid": git_oid(data)} for path, data in files.items()]
    for entry in entries:
        if entry["path"].endswith(hub.large):
            oid = oid_of(hub, entry["path"], files[entry["path"]])
            entry["lfs"] = {"oid": oid, "size": entry["size"], "pointerSize": 134}
    return 200, entries


def resolve(hub: Hub, request: Request, kind: str | None, name: str, revision: str, path: str) -> tuple:
    """One file of a repository, as HEAD and GET ask for it."""
    found = visible(hub, request, kind or "models", name)
    if found is None:
        return not_found(request)
    if found[1].gated:
        return (403 if request.token else 401), {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"}
    files, path = found[1].at(unquote(revision)) or {}, unquote(path)
    if path not in files:
        return 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"}
    sha = found[1].head if revision == "main" else found[1].refs.get(revision, revision)
    if path == hub.corrupts:
        return 200, b"#" + files[path][1:], {"ETag": f'"{oid_of(hub, path, files[path])}"', "X-Repo-Commit": sha}
    return 200, files[path], {"ETag": f'"{oid_of(hub, path, files[path])}"', "X-Repo-Commit": sha}


def validate(hub: Hub, request: Request) -> tuple:
    content = json.loads(request.body)["content"]
    metadata = yaml.safe_load(content.split("---")[1])
    errors = [] if isinstance(metadata, dict) else [{"message": "no metadata"}]
    return (400 if errors else 200), {"errors": errors, "warnings": []}


def preupload(hub: Hub, request: Request, kind: str, name: str) -> tuple:
    known, answers = hub.of(kind)[name].files, []
    for path in (wanted["path"] for wanted in json.loads(request.body)["files"]):
        mode = "lfs" if path.endswith(hub.large) else "regular"
        oid = oid_of(hub, path, known[path]) if path in known else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return 200, {"files": answers}


def batch(hub: Hub, request: Request, kind: str | None, name: str) -> tuple:
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


def commit(hub: Hub, request: Request, kind: str, name: str) -> tuple:
    repo = hub.of(kind)[name]
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


def create_tag(hub: Hub, request: Request, kind: str, name: str, revision: str) -> tuple:
    refs, tag = hub.of(kind)[name].refs, json.loads(request.body)["tag"]
    if tag in refs:
        return 409, {"error": "Tag already exists"}
    refs[tag] = unquote(revision)
    return 200, {}


def delete_tag(hub: Hub, request: Request, kind: str, name: str, tag: str) -> tuple:
    return (200 if hub.of(kind)[name].refs.pop(unquote(tag), None) else 404), {}


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()


def oid_of(hub: Hub, path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if path.endswith(hub.large) else git_oid(content)


NAME = r"([\w.-]+/[\w.-]+)"
API = rf"/api/(models|datasets)/{NAME}"
ROUTES = [
    (r"GET /api/whoami-v2", whoami),
    (r"POST /api/repos/create", create),
    (rf"GET {API}(?:/revision/([\w.%-]+))?", info),
    (r"GET /api/(datasets)/([\w.-]+)()", info),  # a data set of the early days, without an owner
    (rf"GET {API}/tree/([\w.%-]+)", tree),
    (rf"(?:GET|HEAD) /(?:(datasets)/)?{NAME}/resolve/([\w.%-]+)/(.+)", resolve),
    (rf"POST {API}/tag/([\w.%-]+)", create_tag),
    (rf"DELETE {API}/tag/([\w.%-]+)", delete_tag),
    (r"POST /api/validate-yaml", validate),
    (rf"POST {API}/preupload/main", preupload),
    (rf"POST /(datasets/)?{NAME}\.git/info/lfs/objects/batch", batch),
    (r"PUT /lfs/([0-9a-f]{64})", put),
    (r"POST /lfs-verify", verify),
    (rf"POST {API}/commit/main", commit),
]
