"""A registry on loopback that serves one image to who knows the password. Just enough of the distribution API."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY, TAG = "team/app", "v1"
AUTH = {"username": "someone", "password": "secret"}
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class _Content:
    """The documents of an image with one file."""

    def __init__(self) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            entry = tarfile.TarInfo("hello")
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
        layer = gzip.compress(buffer.getvalue(), mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"User": "1234", "Cmd": ["/hello"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]},
            }
        ).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": self._part("application/vnd.docker.container.image.v1+json", config),
                "layers": [self._part("application/vnd.docker.image.rootfs.diff.tar.gzip", layer)],
            }
        ).encode()
        self.blobs = {_digest(config): config, _digest(layer): layer}
        self.digest = _digest(self.manifest)

    @staticmethod
    def _part(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


class _Handler(BaseHTTPRequestHandler):
    content: _Content

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"{AUTH['username']}:{AUTH['password']}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            self._answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="registry"'})
            return
        prefix = f"/v2/{REPOSITORY}/"
        kind, _, name = self.path.removeprefix(prefix).partition("/")
        if self.path == "/v2/":
            self._answer(200, b"{}")
        elif kind == "manifests" and name in (TAG, self.content.digest):
            self._answer(
                200, self.content.manifest, {"Content-Type": _MANIFEST, "Docker-Content-Digest": self.content.digest}
            )
        elif kind == "blobs" and name in self.content.blobs:
            self._answer(200, self.content.blobs[name])
        else:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are not printed."""

    def _answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@contextlib.contextmanager
def registry() -> Iterator[tuple[str, str]]:
    """`host:port` and the digest of the image's manifest."""
    handler = type("Handler", (_Handler,), {"content": _Content()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", handler.content.digest  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
