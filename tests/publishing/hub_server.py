"""A Hub in one process: the part of its HTTP protocol that creating, gating, uploading and downloading a model takes."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


class HubServer:
    """Repositories of one owner, models and data sets, in memory, behind a port of this machine.

    Args:
        owner (`str`): Whose repositories may be written.

    Attributes:
        tokens (`dict`): What each token may do: `write` or `read`.
        repos (`dict`): By id: `private`, `gated`, and `commits`, each an id and the files by name.
        requests (`list[str]`): Method and path of what was asked, in order.
        refused (`dict`):
            Status to answer, by the start of a method and path, in place of doing what is asked; 0 breaks the connection.
    """

    def __init__(self, owner: str = "someone"):
        self.owner = owner
        self.tokens = {"hf_writer": "write", "hf_reader": "read"}
        self.repos: dict[str, dict] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refused: dict[str, int] = {}
        self.asks_of_cards = {"license", "language", "library_name", "pipeline_tag", "base_model", "model-index"}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def files(self, repo_id: str) -> dict[str, bytes]:
        commits = self.repos[repo_id]["commits"]
        return commits[-1][1] if commits else {}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        for start, status in self.hub.refused.items():
            if f"{self.command} {path}".startswith(start):
                if not status:
                    self.close_connection = True
                    return None
                return self.error(status, "Refused")
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                return action(self, body, *match.groups())
        return self.error(404, "Not found", "EntryNotFound")

    @property
    def role(self) -> str | None:
        return self.hub.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def send(self, content, status=200, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status, message, code=""):
        self.send({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

    def may_write(self, owner) -> bool:
        if self.role is None:
            self.error(401, "Invalid credentials in Authorization header")
        elif self.role != "write" or owner != self.hub.owner:
            self.error(403, "Forbidden")
        return self.role == "write" and owner == self.hub.owner

    def visible(self, repo_id):
        """The repository, or None after an answer that says there is none."""
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo["private"] and self.role is None):
            self.error(404 if self.role else 401, "Repository not found", "RepoNotFound")
            return None
        return repo

    def whoami(self, body):
        if self.role is None:
            return self.error(401, "Invalid credentials in Authorization header")
        return self.send({"type": "user", "name": self.hub.owner, "orgs": []})

    def create(self, body):
        request = json.loads(body)
        owner = request.get("organization") or self.hub.owner
        repo_id = f"{'datasets/' if request.get('type') == 'dataset' else ''}{owner}/{request['name']}"
        if not self.may_write(owner):
            return None
        url = {"url": f"{self.hub.url}/{repo_id}"}
        if repo_id in self.hub.repos:
            return self.send({"error": "You already created this model repo", **url}, 409)
        private = request.get("visibility") == "private" or request.get("private") is True
        self.hub.repos[repo_id] = {"private": private, "gated": False, "commits": []}
        return self.send(url)

    def settings(self, body, repo_id):
        if self.may_write(repo_id.split("/")[-2]) and (repo := self.visible(repo_id)) is not None:
            request = json.loads(body)
            repo["gated"] = request.get("gated", repo["gated"])
            repo["private"] = request.get("visibility", "private" if repo["private"] else "public") == "private"
            self.send({})

    def validate(self, body):
        request = json.loads(body)
        metadata = yaml.safe_load(request["content"].split("---")[1])
        of_both = {"license", "language"}
        wanted = self.hub.asks_of_cards if request["repoType"] == "model" else self.hub.asks_of_cards & of_both
        missing = wanted - metadata.keys()
        errors = [{"message": f"{name} is required"} for name in missing]
        self.send({"errors": errors, "warnings": []}, 400 if errors else 200)

    def info(self, body, repo_id, revision=None):
        if (repo := self.visible(repo_id)) is not None:
            files = self.hub.files(repo_id)
            sha = repo["commits"][-1][0] if repo["commits"] else "0" * 40
            siblings = [{"rfilename": name} for name in files]
            info = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": sha, "siblings": siblings, "tags": []}
            self.send(
                {**info, "private": repo["private"], "gated": repo["gated"], "pipeline_tag": "text-classification"}
            )

    def tree(self, body, repo_id, revision, folder=None):
        if (repo := self.visible(repo_id)) is not None:
            if folder:
                return self.error(404, "Entry not found", "EntryNotFound")
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": git_id(data)}
                for name, data in dict(repo["commits"])[self.commit_of(repo, revision)].items()
            ]
            return self.send(entries)
        return None

    def preupload(self, body, repo_id):
        if self.may_write(repo_id.split("/")[-2]):
            present = self.hub.files(repo_id)
            answer = []
            for file in json.loads(body)["files"]:
                large = file["path"].endswith(".safetensors")
                data = present.get(file["path"])
                known = None if data is None else hashlib.sha256(data).hexdigest() if large else git_id(data)
                mode = "lfs" if large else "regular"
                answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known})
            self.send({"files": answer})

    def batch(self, body, repo_id):
        if self.may_write(repo_id.split("/")[-2]):
            objects = []
            for item in json.loads(body)["objects"]:
                entry = {"oid": item["oid"], "size": item["size"]}
                if item["oid"] not in self.hub.blobs:
                    entry["actions"] = {"upload": {"href": f"{self.hub.url}/blobs/{item['oid']}", "header": {}}}
                objects.append(entry)
            self.send({"transfer": "basic", "objects": objects})

    def put_blob(self, body, sha256):
        self.hub.blobs[sha256] = body
        self.send({})

    def commit(self, body, repo_id):
        if not self.may_write(repo_id.split("/")[-2]):
            return
        repo, files = self.hub.repos[repo_id], dict(self.hub.files(repo_id))
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        repo["commits"].append((oid, files))
        self.send({"commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None})

    def resolve(self, body, repo_id, revision, name):
        if (repo := self.visible(repo_id)) is None:
            return None
        if repo["gated"] and self.role is None:
            return self.error(401, "Access to this model is restricted", "GatedRepo")
        sha = self.commit_of(repo, revision)
        if not repo["commits"] and revision == "main":
            return self.send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit="0" * 40)
        if sha is None:
            return self.error(404, "Revision not found", "RevisionNotFound")
        data = dict(repo["commits"])[sha].get(name)
        if data is None:
            return self.send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        return self.send(data, ETag=f'"{hashlib.sha256(data).hexdigest()}"', X_Repo_Commit=sha)

    def commit_of(self, repo, revision):
        if not repo["commits"]:
            return None
        return (
            repo["commits"][-1][0]
            if revision == "main"
            else next((oid for oid, _ in repo["commits"] if oid == revision), None)
        )


def git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# By its kind: `OWNER/NAME` of a model, `datasets/OWNER/NAME` of a data set.
REPO = r"((?:datasets/)?[\w.-]+/[\w.-]+)"
API = r"/api/(?:models/)?((?:datasets/)?[\w.-]+/[\w.-]+)"
ROUTES = (
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate),
    (("PUT",), f"{API}/settings", _Handler.settings),
    (("GET",), f"{API}", _Handler.info),
    (("GET",), f"{API}/revision/([^/]+)", _Handler.info),
    (("GET",), f"{API}/tree/([^/]+)/?(.*)", _Handler.tree),
    (("POST",), f"{API}/preupload/main", _Handler.preupload),
    (("POST",), f"/{REPO}.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), "/blobs/([0-9a-f]+)", _Handler.put_blob),
    (("POST",), f"{API}/commit/main", _Handler.commit),
    (("GET", "HEAD"), f"/{REPO}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
