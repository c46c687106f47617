"""As much of the hub as the library needs here, in memory: who am I, jobs with logs, one revision of repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_the-callers-token"
JOB_ID = "687fb701029421ae5549d998"


class FakeHub:
    """Serves ``url``.

    Attributes:
        repos: content by path, by repository.
        jobs: ``(namespace, body)`` of each job that was sent.
        requests: method and path of every request.
        failures: a status to answer with, by a pattern of ``"METHOD path"``; taken away by the test.
        awake: cleared, and the hub says nothing until it is set.
        log: lines of every job's log; None never ends it.
        stage: in which every job is.
    """

    def __init__(self):
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.jobs: list[tuple[str, dict]] = []
        self.requests: list[str] = []
        self.failures: dict[str, tuple[int, str]] = {}
        self.awake = threading.Event()
        self.awake.set()
        self.log: list[str] = []
        self.stage = "COMPLETED"
        self.commits = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.awake.set()
        self._server.shutdown()
        self._server.server_close()

    def respond(self, method, path, body):
        """``(status, JSON)`` or ``(status, bytes, headers)``."""
        if path == "/api/whoami-v2":
            return 200, {"name": "me", "type": "user"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            name = f"{body.get('organization') or 'me'}/{body['name']}"
            if name in self.repos:
                return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
            self.repos[name] = {}
            self.private[name] = body.get("private", body.get("visibility") == "private")
            return 200, {"url": f"{self.url}/{name}", "name": name}
        if job := re.fullmatch(r"/api/jobs/([^/]+)(/[^/]+)?(/logs)?", path):
            return self._job(job, body)
        if repo := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|preupload|commit)/[^/]+)?", path):
            return self._repo(repo[1], repo[2], body)
        if file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            content = self.repos.get(file[1], {}).get(file[2])
            if content is None:
                return 404, {"error": "Entry not found"}
            return 200, content, {"ETag": _oid(content), "X-Repo-Commit": self._sha()}
        return 404, {"error": f"the test's hub has no {method} {path}"}

    def _job(self, match, body):
        namespace, job, logs = match.groups()
        if job is None:
            self.jobs.append((namespace, body))
        if logs:
            lines = [
                f"data: {json.dumps({'timestamp': '2026-01-01T00:00:00Z', 'data': text})}\n\n" for text in self.log
            ]
            return 200, "".join(lines).encode(), {"Content-Type": "text/event-stream"}
        return 200, {
            "id": JOB_ID,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "owner": {"id": "1", "name": namespace, "type": "user"},
            "status": {"stage": self.stage if job else "SCHEDULING", "message": None},
        }

    def _repo(self, name, action, body):
        files = self.repos.get(name)
        if files is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if action == "tree":
            return 200, [
                {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}
                for path, content in files.items()
            ]
        if action == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return 200, {"files": [{"path": file["path"], **modes} for file in body["files"]]}
        if action == "commit":
            for line in body:
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            self.commits += 1
            return 200, {"success": True, "commitOid": self._sha(), "commitUrl": f"{self.url}/{name}/commit/1"}
        return 200, {"id": name, "sha": self._sha(), "siblings": [{"rfilename": path} for path in files]}

    def _sha(self):
        return f"{self.commits:040x}"


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        self.hub.awake.wait()
        for pattern, (status, text) in self.hub.failures.items():
            if re.search(pattern, request):
                return self._send(status, {"error": text})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        return self._send(*self.hub.respond(self.command, path, body))

    do_POST = do_HEAD = do_GET

    def _body(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "ndjson" in self.headers.get("Content-Type", ""):
            return [json.loads(line) for line in content.splitlines()]
        return json.loads(content) if content else {}

    def _send(self, status, answer, headers=None):
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


def _oid(content):
    return hashlib.sha1(content).hexdigest()
