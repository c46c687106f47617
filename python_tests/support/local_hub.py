"""As much of the hub's protocol as streaming a dataset of one repository takes, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

REPOSITORY = "me/mine"


class LocalHub(ThreadingHTTPServer):
    """Serves ``files`` (path in the repository: content) of :data:`REPOSITORY`, whose newest commit is ``commit``."""

    def __init__(self, files: dict[str, bytes], commit: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.commit = commit
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def entries(self, folder: str) -> list[dict[str, object]]:
        """What lies directly in ``folder``."""
        prefix = f"{folder}/" if folder else ""
        found: dict[str, dict[str, object]] = {}
        for path, content in self.files.items():
            if path.startswith(prefix):
                name, below, _ = path.removeprefix(prefix).partition("/")
                kind = {"type": "directory"} if below else {"type": "file", "size": len(content)}
                found[name] = {"path": prefix + name, "oid": hashlib.sha1(content).hexdigest(), **kind}
        return list(found.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalHub

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        parts = urlparse(self.path).path.strip("/").split("/")
        if parts[:4] == ["api", "datasets", *REPOSITORY.split("/")]:
            self._answer_about(parts[4:])
        elif parts[:4] == ["datasets", *REPOSITORY.split("/"), "resolve"] and "/".join(parts[5:]) in self.server.files:
            self._send_file(self._commit(parts[4]), self.server.files["/".join(parts[5:])])
        else:
            known = REPOSITORY in self.path
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})

    do_HEAD = do_GET

    def _answer_about(self, question: list[str]) -> None:
        if question[:1] == ["tree"]:
            entries = self.server.entries("/".join(question[2:]))
            self._send(200 if entries else 404, json.dumps(entries).encode(), {"X-Error-Code": "EntryNotFound"})
        else:
            commit = self._commit(question[1] if question[:1] == ["revision"] else "main")
            names = [{"rfilename": name} for name in self.server.files]
            answer = {"id": REPOSITORY, "_id": "1", "sha": commit, "private": False, "tags": [], "siblings": names}
            self._send(200, json.dumps(answer).encode(), {})

    def _commit(self, revision: str) -> str:
        return self.server.commit if revision == "main" else revision

    def _send_file(self, commit: str, content: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            self._send(200, content, headers)
            return
        begin, end = wanted.removeprefix("bytes=").split("-")
        last = min(int(end or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{last}/{len(content)}"
        self._send(206, content[int(begin) : last + 1], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
