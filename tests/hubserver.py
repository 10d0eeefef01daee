"""A hub on this machine: as much of its interface as fetching a repository takes."""

import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

COMMIT = "a1" * 20


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a folder, or the status and error code it answers with.

    Attributes:
        asked: Method and path of each request.
    """

    daemon_threads = True

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories, self.asked = repositories, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, body=b"", **headers):
        self.send_response(status)
        headers = {"Content-Length": len(body), **headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        parts = path.removeprefix("/api/models").strip("/").split("/")
        found = self.server.repositories.get("/".join(parts[:2]), (404, "RepoNotFound"))
        if isinstance(found, tuple):
            return self.say(found[0], b"{}", X_Error_Code=found[1])
        kind, revision, rest = parts[2], parts[3], "/".join(parts[4:])
        if revision not in ("main", COMMIT):
            return self.say(404, b"{}", X_Error_Code="RevisionNotFound")
        if kind == "revision":
            return self.json({"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": []})
        if kind == "tree":
            files = [p for p in sorted(found.rglob("*")) if p.is_file()]
            listed = [{"type": "file", "path": str(p.relative_to(found)), "size": p.stat().st_size} for p in files]
            return self.json([{**f, "oid": hashlib.sha1(f["path"].encode()).hexdigest()} for f in listed])
        if not (found / rest).is_file():
            return self.say(404, b"", X_Error_Code="EntryNotFound")
        body = (found / rest).read_bytes()
        self.say(200, body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def json(self, content):
        self.say(200, json.dumps(content).encode(), Content_Type="application/json")


@contextmanager
def serving(**repositories):
    hub = Hub(repositories)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
