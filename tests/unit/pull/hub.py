"""A stand-in for a hub: its listing, its redirects to where files are, ranges, and everything that goes wrong there."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/model"


@dataclass
class Hub:
    """What the stand-in holds and does. `drops` are after how many bytes it closes the next connections, in turn."""

    files: dict[str, bytes] = field(default_factory=dict)
    small: frozenset[str] = frozenset()
    drops: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    ranges: bool = True
    sends: dict[str, bytes] = field(default_factory=dict)
    token: str = ""
    disposition: str = ""
    elsewhere: str = ""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for the bytes of a file."""
        return [headers for target, headers in self.seen if target == f"/store/{path}"]

    def listing(self) -> dict[str, Any]:
        siblings = []
        for path, data in self.files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
            entry["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if path not in self.small:
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.split("?")[0]
        hub.seen.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}" and "/store/" not in path:
            self.reply(401, b"")
        elif path.startswith(f"/api/models/{REPO}"):
            wrong = re.fullmatch(rf"/api/models/{REPO}/revision/(?!main|{COMMIT})\S+", path)
            headers = {"X-Error-Code": "RevisionNotFound"} if wrong else {}
            self.reply(404 if wrong else 200, json.dumps(hub.listing()).encode(), **headers)
        elif path.startswith("/api/models/"):
            self.reply(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif found := re.fullmatch(rf"/{REPO}/resolve/(?:{COMMIT}|main)/(.+)", path):
            self.reply(302, b"", Location=f"{hub.elsewhere}/store/{found[1]}")
        elif path.startswith("/store/") and path.removeprefix("/store/") in hub.files:
            self.send_file(path.removeprefix("/store/"))
        else:
            self.reply(404, b"")

    def send_file(self, path: str) -> None:
        hub = self.hub
        if hub.answers and (status := hub.answers.pop(0)) != 200:
            self.reply(status, b"")
            return
        data = hub.sends.get(path, hub.files[path])
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": tag} | ({"Content-Disposition": hub.disposition} if hub.disposition else {})
        start = self.start(data, tag)
        if start > len(data) or (start and start == len(data)):
            self.reply(416, b"", **{"Content-Range": f"bytes */{len(data)}"})
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.send_response(206 if start else 200)
        for name, value in {**headers, "Content-Length": str(len(data) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        drop = hub.drops.pop(0) if hub.drops else len(data)
        self.wfile.write(data[start : start + drop])
        self.close_connection = True

    def start(self, data: bytes, tag: str) -> int:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        return int(wanted[1]) if wanted and self.hub.ranges and condition in {None, tag} else 0

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve the stand-in on a port of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
