"""What the API says about itself: discovery, OpenAPI, version. Made once per set of served resources, kept as bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import msgspec
from aiohttp import web

import kybern
from kybern.api import discovery, openapi
from kybern.api.errors import no_such_path
from kybern.api.resources import Registry, Resource
from kybern.api.schema.definitions import VERSION
from kybern.clock import Clock
from master.rest.answers import respond
from master.rest.negotiation import accepted, wants_aggregated
from master.rest.paths import GroupPath

# openapi.v2.Document (gnostic's OpenAPIv2.proto): swagger = "2.0", info = {title: "Kybern", version: "v1"}.
_OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_EMPTY_V2 = b"\x0a\x032.0\x12\x0c\x0a\x06Kybern\x12\x02v1"
_YEAR = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    etag: str


class ApiDocuments:
    """Answers about the API; `address` is where clients reach this server."""

    def __init__(self, registry: Callable[[], Registry], address: str, clock: Clock) -> None:
        self._registry = registry
        self._address = address
        self._clock = clock
        self._snapshot: tuple[Resource, ...] = ()
        self._kept: dict[tuple[str, ...], _Kept | None] = {}
        self._version = msgspec.json.format(msgspec.json.encode(_version()), indent=2) + b"\n"

    def version(self, request: web.BaseRequest) -> web.Response:
        """`/version`."""
        return respond(self._version)

    def group(self, request: web.BaseRequest, path: GroupPath) -> web.Response:
        """`/api`, `/apis`, `/apis/GROUP` and the lists of resources, in the form that the client wants.

        Raises:
            StatusError: 404 when no such group or version is served.
        """
        header = request.headers.get("Accept", "")
        if not path.group and not path.version:
            aggregated = wants_aggregated(header)
            key: tuple[str, ...] = ("core" if path.core else "groups", "aggregated" if aggregated else "plain")
        else:
            accepted(header)
            aggregated = False
            key = ("group", path.group, path.version)
        kept = self._keep(key, lambda registry: _group_document(registry, path, aggregated, self._address))
        media_type = discovery.AGGREGATED_MEDIA_TYPE if aggregated else "application/json"
        return self._respond(request, kept, {"Content-Type": media_type, "Vary": "Accept", "Cache-Control": "public"})

    def openapi(self, request: web.BaseRequest, path: str) -> web.Response:
        """`/openapi/v3` and below; documents that are named with their hash may be cached for good.

        Raises:
            StatusError: 404 when there is no such document, 406 when the client wants Protobuf alone.
        """
        accepted(request.headers.get("Accept", ""))
        headers = {"Content-Type": "application/json", "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if not path:
            return self._respond(request, self._keep(("openapi",), openapi.index), headers)
        kept = self._keep(("openapi", path), lambda registry: openapi.document(registry, path))
        asked = request.query.get("hash")
        current = self._hashes().get(path)
        if asked and current and asked != current:
            return web.Response(status=301, headers={"Location": f"/openapi/v3/{path}?hash={current}"})
        if asked:
            expires = self._clock.now().timestamp() + _YEAR
            headers["Cache-Control"] = "public, immutable"
            headers["Expires"] = formatdate(expires, usegmt=True)
        return self._respond(request, kept, headers)

    def openapi_v2(self) -> web.Response:
        """`/openapi/v2`: a document without paths.

        Everything is in version 3. But kubectl asks here for kinds that it does not find there, and takes a 404 for a
        broken server; with this it says "no matches for kind" as on any cluster.
        """
        headers = {"Content-Type": _OPENAPI_V2, "Cache-Control": "no-cache, private"}
        return web.Response(body=_EMPTY_V2, headers=headers)

    def _hashes(self) -> dict[str, str]:
        index = self._keep(("openapi",), openapi.index)
        paths = msgspec.json.decode(index.body)["paths"]
        return {path: entry["serverRelativeURL"].rpartition("hash=")[2] for path, entry in paths.items()}

    def _keep(self, key: tuple[str, ...], build: Callable[[Registry], Any]) -> _Kept:
        registry = self._registry()
        snapshot = tuple(registry)
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            self._kept.clear()
        kept = self._kept.get(key)
        if kept is None:
            built = build(registry)
            if built is None:
                # Not remembered: anybody can ask for any path.
                raise no_such_path()
            body = built if isinstance(built, bytes) else msgspec.json.encode(built) + b"\n"
            etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
            kept = self._kept[key] = _Kept(body, etag)
        return kept

    def _respond(self, request: web.BaseRequest, kept: _Kept, headers: dict[str, str]) -> web.Response:
        headers["ETag"] = kept.etag
        if kept.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=kept.body, headers=headers)


def _group_document(registry: Registry, path: GroupPath, aggregated: bool, address: str) -> dict[str, Any] | None:
    if path.version:
        return discovery.resource_list(registry, path.group, path.version)
    if path.group:
        return discovery.group(registry, path.group)
    if path.core:
        return discovery.aggregated_core(registry) if aggregated else discovery.api_versions(registry, address)
    return discovery.aggregated_groups(registry) if aggregated else discovery.group_list(registry)


def _version() -> dict[str, str]:
    major, minor, _ = VERSION.split(".", 2)
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": minor,
        "gitVersion": f"v{VERSION}+kybern.{kybern.__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation(),
        "platform": f"{platform.system().lower()}/{platform.machine()}",
    }
