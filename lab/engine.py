"""The few calls of the Docker Engine API that the lab makes, over the engine's socket (blocking)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lab.errors import LabError


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """To the socket's path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Engine:
    """A Docker engine. Every method but `answers` raises LabError when the engine refuses or does not answer."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        self._path = path
        self._timeout = timeout

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            self._call("GET", "/_ping")
        except LabError:
            return False
        return True

    def containers(self) -> list[str]:
        """The ids of all containers, running or not."""
        return [c["Id"] for c in json.loads(self._call("GET", "/containers/json?all=1"))]

    def remove(self, container: str) -> None:
        """Kill and remove a container; nothing happens when it is gone."""
        self._call("DELETE", f"/containers/{quote(container)}?force=1&v=1", absent=True)

    def has_image(self, reference: str, digest: str) -> bool:
        """Whether there is an image of that name which was imported with the label `kybern.io/digest=DIGEST`."""
        answer = self._call("GET", f"/images/{quote(reference)}/json", absent=True)
        image: dict[str, Any] = json.loads(answer or "{}")
        labels = (image.get("Config") or {}).get("Labels") or {}
        return bool(labels.get("kybern.io/digest") == digest)

    def import_image(self, reference: str, layer: bytes, changes: Sequence[str]) -> None:
        """Make an image of one layer (a tar) and Dockerfile instructions such as `CMD ["/bin/true"]`."""
        name, _, tag = reference.rpartition(":")
        query = urlencode([("fromSrc", "-"), ("repo", name), ("tag", tag), *(("changes", c) for c in changes)])
        answer = self._call("POST", f"/images/create?{query}", body=layer)
        for line in answer.splitlines():
            if error := json.loads(line).get("error"):
                raise LabError(f"the Docker engine cannot import {reference}: {error}")

    def _call(self, method: str, path: str, *, body: bytes | None = None, absent: bool = False) -> bytes:
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LabError(f"the Docker engine at {self._path} does not answer: {error}") from error
        finally:
            connection.close()
        if absent and response.status == http.HTTPStatus.NOT_FOUND:
            return b""
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise LabError(f"the Docker engine at {self._path} refuses {method} {path}: {answer.decode()[:500]}")
        return answer
