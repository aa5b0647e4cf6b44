"""A Hugging Face Hub on 127.0.0.1 for tests: the real client code runs against it unchanged.

    with LoopbackHub(folder) as hub:
        HfApi(endpoint=hub.url, token=hub.token).create_repo("owner/model")
        subprocess.run(command, env=hub.environment(home))      # HF_ENDPOINT, HF_TOKEN, HF_HOME, ... for a process

    python tests/loopback_hub.py FOLDER                         # by hand: prints those variables, serves until Ctrl-C

It speaks what huggingface_hub 2.4 asks of the Hub to create, fill, tag, list, read and delete repositories of models,
datasets and spaces: the repos, commit (regular and LFS files), tree, paths-info, refs and resolve APIs, with ranges.
Xet is not spoken (`environment` switches it off), nor are pull requests, discussions or search.

Nothing is checked less strictly than there: a wrong token is refused (401), so is another owner's repository (403), an
unknown repository, revision or file (404 with the Hub's error codes), an existing name (409), a commit on a stale
parent (412), an LFS object whose content is not what its name says. `hub.requests` lists what was asked; `hub.fail`
makes a request fail. Everything lives in memory but LFS objects, which are files in `folder`.
"""

import base64
import hashlib
import json
import re
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from loopback_repositories import (
    Refused,
    Repo,
    card_data,
    file_row,
    folder_row,
    history,
    lfs,
    new_commit,
    page_of,
    pointer,
    regular,
)

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".parquet", ".arrow", ".gz", ".zip", ".npy")
LFS_SIZE = 10_000_000  # bytes from which every file is kept by LFS, as on the Hub


class LoopbackHub:
    """The server, as a context. `token` may write to the repositories of `owner` and read the private ones."""

    def __init__(self, folder: Path, owner: str = "owner"):
        self.objects = Path(folder) / "lfs"
        self.objects.mkdir(parents=True, exist_ok=True)
        self.owner, self.token = owner, "hf_" + secrets.token_hex(17)
        self.role = "write"  # of every token, as whoami tells it
        self.users = {self.token: owner}  # further users: hub.users["hf_..."] = "name"
        self.repos: dict[tuple[str, str], Repo] = {}
        self.requests: list[str] = []  # "GET /api/models/owner/name", in order
        self.faults: list[list] = []
        self.lock = threading.RLock()
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        # a short poll, or leaving the context would take half a second
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environment(self, home: Path, token: bool = True) -> dict[str, str]:
        """Variables for a process whose libraries shall talk to this hub and keep their caches in `home`.

        The libraries read them on import: set them for a new process, not in one that has imported them.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HOME": str(home),
            "PATH": "/usr/bin:/bin",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **({"HF_TOKEN": self.token} if token else {}),
        }

    def connect(self, patch, folder: Path) -> None:
        """Let the client that this process has imported, and the processes it starts, talk to this hub. `patch`:
        pytest's MonkeyPatch; caches are kept in `folder`."""
        import huggingface_hub

        for name, value in {
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(folder / "cache"),
        }.items():
            patch.setattr(huggingface_hub.constants, name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        for name, value in self.environment(folder / "home").items():
            patch.setenv(name, value)

    def fail(self, request: str, status: int = 500, times: int = 1) -> None:
        """Answer the next `times` requests that the pattern `request` finds ("PUT /lfs/") with an error."""
        self.faults.append([re.compile(request), status, times])

    def find(self, kind: str, repo_id: str, user: str | None) -> Repo:
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and user != repo_id.split("/")[0]):
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    def find_to_write(self, kind: str, repo_id: str, user: str | None) -> Repo:
        self.may_write(repo_id.split("/")[0], user)
        return self.find(kind, repo_id, user)

    def may_write(self, owner: str, user: str | None) -> None:
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        if user != owner:
            raise Refused(403, f"You don't have the rights to write under the namespace {owner!r}")


class Handler(BaseHTTPRequestHandler):
    """One request: `ROUTES` says which method answers it, with the parts of the address that the pattern names."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def answer(self) -> None:
        address = urlsplit(self.path)
        path = address.path
        self.query = parse_qs(address.query)
        self.body = self.read_body()
        with self.hub.lock:
            self.hub.requests.append(f"{self.command} {unquote(path)}")
            try:
                self.fail_on_purpose()
                self.user = self.who()
                for methods, pattern, answer in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and self.command in methods.split():
                        parts = {name: unquote(value or "") for name, value in match.groupdict().items()}
                        if "kind" in parts:
                            parts["kind"] = KINDS[parts["kind"].rstrip("/")]
                        return answer(self, **parts)
                raise Refused(404, f"{self.command} {path} is not spoken by the loopback hub")
            except Refused as refused:
                self.send(refused.status, {"error": str(refused), **refused.content}, refusal=refused)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def fail_on_purpose(self) -> None:
        for fault in self.hub.faults:
            pattern, status, times = fault
            if times and pattern.search(self.hub.requests[-1]):
                fault[2] -= 1
                raise Refused(status, "failed on purpose")

    def who(self) -> str | None:
        """Name of the user; None without a token."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def json(self) -> dict:
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refused(400, "the body is no JSON") from None

    def send(self, status: int, content=None, headers: dict | None = None, refusal: Refused | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        if refusal is not None:
            self.send_header("X-Error-Message", str(refusal))
            if refusal.code:
                self.send_header("X-Error-Code", refusal.code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # --- who and which

    def whoami(self) -> None:
        if self.user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        access = {"displayName": "loopback", "role": self.hub.role}
        auth = {"type": "access_token", "accessToken": access}
        self.send(
            200, {"type": "user", "id": self.user, "name": self.user, "fullname": self.user, "orgs": [], "auth": auth}
        )

    def create(self) -> None:
        asked = self.json()
        kind = asked.get("type") or "model"
        owner = asked.get("organization") or self.user
        self.hub.may_write(owner, self.user)
        repo_id = f"{owner}/{asked['name']}"
        content = {"url": page_of(self.hub.url, kind, repo_id), "name": repo_id}
        if (kind, repo_id) in self.hub.repos:
            raise Refused(409, f"You already created this {kind} repo: {repo_id}", **content)
        repo = Repo(kind, repo_id, private=bool(asked.get("private")) or asked.get("visibility") == "private")
        repo.branches["main"] = new_commit({}, "initial commit", "", None)
        self.hub.repos[kind, repo_id] = repo
        self.send(200, content)

    def delete(self) -> None:
        asked = self.json()
        kind, repo_id = asked.get("type") or "model", f"{asked.get('organization') or self.user}/{asked['name']}"
        self.hub.find_to_write(kind, repo_id, self.user)
        del self.hub.repos[kind, repo_id]
        self.send(200)

    def settings(self, kind, repo_id) -> None:
        repo = self.hub.find_to_write(kind, repo_id, self.user)
        asked = self.json()
        if "private" in asked or "visibility" in asked:
            repo.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.send(200, {"private": repo.private})

    def info(self, kind, repo_id, revision="main") -> None:
        repo = self.hub.find(kind, repo_id, self.user)
        commit = repo.at(revision or "main")
        siblings = []
        for path, file in commit.files.items():
            row = {"rfilename": path}
            if "blobs" in self.query:
                row |= {"size": file.size, "blobId": file.oid}
                if file.sha256:
                    row["lfs"] = {"size": file.size, "sha256": file.sha256, "pointerSize": len(pointer(file))}
            siblings.append(row)
        card = card_data(commit.files["README.md"].content) if "README.md" in commit.files else None
        self.send(
            200,
            {
                "_id": hashlib.sha1(repo_id.encode()).hexdigest()[:24],
                "id": repo_id,
                "modelId": repo_id,
                "author": repo_id.split("/")[0],
                "sha": commit.id,
                "lastModified": commit.date,
                "createdAt": repo.created,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": (card or {}).get("tags") or [],
                "cardData": card,
                "siblings": siblings,
            },
        )

    # --- what is in it

    def tree(self, kind, repo_id, revision, path="") -> None:
        commit = self.hub.find(kind, repo_id, self.user).at(revision)
        path = path.strip("/")
        inside = {name: file for name, file in commit.files.items() if not path or name.startswith(path + "/")}
        if path and not inside:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        recursive = self.query.get("recursive", ["False"])[0].lower() == "true"
        rows, folders = [], set()
        for name, file in inside.items():
            rest = name[len(path) + 1 if path else 0 :]
            parts = rest.split("/")[:-1]
            for depth in range(1, len(parts) + 1 if recursive else min(len(parts), 1) + 1):
                folders.add("/".join([*([path] if path else []), *parts[:depth]]))
            if recursive or not parts:
                rows.append(file_row(name, file, commit))
        self.send(200, [folder_row(name, commit) for name in sorted(folders)] + rows)

    def paths_info(self, kind, repo_id, revision) -> None:
        commit = self.hub.find(kind, repo_id, self.user).at(revision)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = self.json()["paths"]
        else:
            paths = parse_qs(self.body.decode()).get("paths", [])
        rows = []
        for path in paths:
            if path in commit.files:
                rows.append(file_row(path, commit.files[path], commit))
            elif any(name.startswith(path + "/") for name in commit.files):
                rows.append(folder_row(path, commit))
        self.send(200, rows)

    def resolve(self, kind, repo_id, revision, path) -> None:
        commit = self.hub.find(kind, repo_id, self.user).at(revision)
        file = commit.files.get(path)
        if file is None:
            raise Refused(404, f"{path} does not exist on {revision}", "EntryNotFound")
        content = (self.hub.objects / file.sha256).read_bytes() if file.sha256 else file.content
        headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.sha256 or file.oid}"', "Accept-Ranges": "bytes"}
        if file.sha256:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.send(200, content, headers)
        first, last = int(asked[1]), min(int(asked[2] or file.size - 1), file.size - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        if first >= file.size:
            return self.send(416, b"", headers | {"Content-Range": f"bytes */{file.size}"})
        self.send(206, content[first : last + 1], headers)

    def refs(self, kind, repo_id) -> None:
        repo = self.hub.find(kind, repo_id, self.user)
        rows = {
            name: [
                {"name": ref, "ref": f"refs/{place}/{ref}", "targetCommit": commit.id} for ref, commit in named.items()
            ]
            for name, place, named in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        }
        self.send(200, {**rows, "converts": [], "pullRequests": []})

    def commits(self, kind, repo_id, revision) -> None:
        repo = self.hub.find(kind, repo_id, self.user)
        author = [{"user": repo_id.split("/")[0]}]
        self.send(
            200,
            [
                {
                    "id": commit.id,
                    "title": commit.title,
                    "message": commit.message,
                    "date": commit.date,
                    "authors": author,
                }
                for commit in history(repo.at(revision))
            ],
        )

    def ref(self, kind, repo_id, place, name) -> None:
        """Create or delete a tag (`name` is the revision it is put on, or its own) or a branch."""
        repo = self.hub.find_to_write(kind, repo_id, self.user)
        named = repo.tags if place == "tag" else repo.branches
        asked = self.json()
        new = asked.get("tag") if place == "tag" else name
        if self.command == "DELETE":
            if named.pop(name, None) is None:
                raise Refused(404, f"no {place} {name}", "RevisionNotFound")
        elif new in named:
            raise Refused(409, f"the {place} {new} exists")
        else:
            named[new] = repo.at(name if place == "tag" else asked.get("startingPoint") or "main")
        self.send(200)

    # --- filling it

    def validate_yaml(self) -> None:
        try:
            card_data(self.json()["content"].encode())
        except yaml.YAMLError as error:
            raise Refused(400, "invalid YAML", errors=[{"message": str(error)}]) from None
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, kind, repo_id, revision) -> None:
        commit = self.hub.find_to_write(kind, repo_id, self.user).at(revision)
        rows = []
        for asked in self.json()["files"]:
            path, there = asked["path"], commit.files.get(asked["path"])
            text = not path.endswith(LFS_SUFFIXES) and asked["size"] < LFS_SIZE
            row = {"path": path, "uploadMode": "regular" if text else "lfs", "shouldIgnore": False}
            rows.append(row | ({"oid": there.sha256 or there.oid} if there else {}))
        self.send(200, {"files": rows})

    def lfs_batch(self, kind, repo_id) -> None:
        self.hub.find_to_write(kind, repo_id, self.user)
        rows = []
        for asked in self.json()["objects"]:
            row = {"oid": asked["oid"], "size": asked["size"]}
            if not (self.hub.objects / asked["oid"]).is_file():
                href = f"{self.hub.url}/lfs/{asked['oid']}"
                row["actions"] = {"upload": {"href": href}, "verify": {"href": href + "/verify"}}
            rows.append(row)
        self.send(200, {"transfer": "basic", "objects": rows})

    def lfs_put(self, oid) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, f"the content is not that of object {oid}")
        part = self.hub.objects / f"{oid}.part"
        part.write_bytes(self.body)
        part.rename(self.hub.objects / oid)
        self.send(200)

    def lfs_verify(self, oid) -> None:
        path = self.hub.objects / oid
        if not path.is_file() or path.stat().st_size != self.json()["size"]:
            raise Refused(404, f"object {oid} was not uploaded")
        self.send(200)

    def commit(self, kind, repo_id, revision) -> None:
        repo = self.hub.find_to_write(kind, repo_id, self.user)
        if revision not in repo.branches:
            raise Refused(404, f"no branch {revision}", "RevisionNotFound")
        head = repo.branches[revision]
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next((line["value"] for line in lines if line["key"] == "header"), {})
        if header.get("parentCommit") not in (None, head.id):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines:
            value = line["value"]
            path = value.get("path", "")
            if line["key"] == "file":
                files[path] = regular(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                stored = self.hub.objects / value["oid"]
                if not stored.is_file():
                    raise Refused(400, f"{path}: LFS object {value['oid']} was not uploaded")
                files[path] = lfs(value["oid"], stored.stat().st_size)
            elif line["key"] == "deletedFile":
                if files.pop(path, None) is None:
                    raise Refused(400, f"{path} does not exist")
            elif line["key"] == "deletedFolder":
                files = {name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")}
        made = new_commit(files, header.get("summary", ""), header.get("description", ""), head)
        repo.branches[revision] = made
        page = page_of(self.hub.url, kind, repo_id)
        self.send(200, {"success": True, "commitOid": made.id, "commitUrl": f"{page}/commit/{made.id}"})


KINDS = {"": "model", "models": "model", "datasets": "dataset", "spaces": "space"}
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<repo_id>[^/]+/[^/]+)"
REPO = r"/(?P<kind>datasets/|spaces/|)(?P<repo_id>[^/]+/[^/]+?)"
ROUTES = [
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create),
    ("DELETE", "/api/repos/delete", Handler.delete),
    ("POST", "/api/validate-yaml", Handler.validate_yaml),
    ("GET", API, Handler.info),
    ("GET", API + r"/revision/(?P<revision>[^/]+)", Handler.info),
    ("PUT", API + "/settings", Handler.settings),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(?P<path>/.*)?", Handler.tree),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    ("GET", API + "/refs", Handler.refs),
    ("GET", API + r"/commits/(?P<revision>[^/]+)", Handler.commits),
    ("POST DELETE", API + r"/(?P<place>tag|branch)/(?P<name>[^/]+)", Handler.ref),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", Handler.commit),
    ("POST", REPO + r"\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", Handler.lfs_verify),
    ("GET HEAD", REPO + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


if __name__ == "__main__":
    with LoopbackHub(Path(sys.argv[1])) as running:
        for variable, value in running.environment(Path(sys.argv[1]) / "home").items():
            print(f"export {variable}={value}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
