"""A small API server out of the API machinery, without store, admission or watches: just enough for kubectl."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from kybern.api import decoding, discovery, errors, openapi, pruning, resources
from kybern.api.defaults import apply_defaults
from kybern.api.errors import StatusError
from kybern.api.managed_fields import apply, track_update
from kybern.api.metadata import copy_json, prepare_create, prepare_update
from kybern.api.patch import apply_patch
from kybern.api.protobuf import MEDIA_TYPE, decode_protobuf
from kybern.api.resources import Registry, Resource
from kybern.api.schema import Schema, load
from kybern.api.validation import validate
from kybern.client.interface import PatchType

Document = dict[str, Any]


class SmallServer:
    """Objects in a dict. `bodies` are the bodies of the writes that came in, in order, with their content types."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry or resources.built_in()
        self.objects: dict[tuple[str, str, str], Document] = {}
        self.bodies: list[tuple[str, str, bytes]] = []
        self._rng = random.Random(1)
        self._revision = 100

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Listens on loopback; yields the address."""
        app = web.Application(client_max_size=8 << 20)
        app.router.add_get("/version", self._version)
        app.router.add_get("/api", self._core)
        app.router.add_get("/apis", self._groups)
        app.router.add_get("/openapi/v3", self._index)
        app.router.add_get("/openapi/v3/{path:.*}", self._document)
        for prefix in ("/api/{version}", "/apis/{group}/{version}"):
            for scope in ("", "/namespaces/{namespace}"):
                app.router.add_route("*", f"{prefix}{scope}/{{plural}}", self._collection)
                app.router.add_route("*", f"{prefix}{scope}/{{plural}}/{{name}}", self._object)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    # --- documents about the API

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"major": "1", "minor": "37", "gitVersion": "v1.37.0"})

    async def _core(self, request: web.Request) -> web.Response:
        return _aggregated(discovery.aggregated_core(self.registry))

    async def _groups(self, request: web.Request) -> web.Response:
        return _aggregated(discovery.aggregated_groups(self.registry))

    async def _index(self, request: web.Request) -> web.Response:
        return web.Response(body=openapi.index(self.registry), content_type="application/json")

    async def _document(self, request: web.Request) -> web.Response:
        body = openapi.document(self.registry, request.match_info["path"])
        return web.Response(body=body or b"", status=200 if body else 404, content_type="application/json")

    # --- objects

    async def _collection(self, request: web.Request) -> web.Response:
        return await self._answer(request, self._list if request.method == "GET" else self._create)

    async def _object(self, request: web.Request) -> web.Response:
        handlers = {"GET": self._get, "PUT": self._update, "PATCH": self._patch, "DELETE": self._delete}
        return await self._answer(request, handlers[request.method])

    async def _answer(self, request: web.Request, handler: Any) -> web.Response:
        body = await request.read()
        if body:
            self.bodies.append((request.method, request.content_type, body))
        try:
            resource = self._resource(request)
            status, document, warnings = handler(resource, request, body)
        except StatusError as error:
            return web.json_response(error.document(), status=error.code)
        response = web.json_response(document, status=status)
        for text in warnings:
            response.headers.add("Warning", f"299 - {json.dumps(text)}")
        return response

    def _resource(self, request: web.Request) -> Resource:
        info = request.match_info
        found = self.registry.find(info.get("group", ""), info["version"], info["plural"])
        if found is None:
            raise errors.no_such_path()
        return found

    def _key(self, resource: Resource, request: web.Request) -> tuple[str, str, str]:
        return resource.qualified, request.match_info.get("namespace", ""), request.match_info["name"]

    def _list(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        namespace = request.match_info.get("namespace", "")
        items = [d for (q, n, _), d in self.objects.items() if q == resource.qualified and namespace in ("", n)]
        listed = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "metadata": {}, "items": items}
        return 200, listed, []

    def _get(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        found = self.objects.get(self._key(resource, request))
        if found is None:
            raise errors.not_found(resource.plural, resource.group, request.match_info["name"])
        return 200, found, []

    def _create(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        document, warnings = self._read(resource, request, body)
        namespace = request.match_info.get("namespace", "")
        prepare_create(
            document, resource=resource, namespace=namespace, uid=str(uuid.uuid4()), now=_now(), rng=self._rng
        )
        name = document["metadata"]["name"]
        if (resource.qualified, namespace, name) in self.objects:
            raise errors.already_exists(resource.plural, resource.group, name)
        return 201, self._finish(resource, request, None, document), warnings

    def _update(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        _, old, _ = self._get(resource, request, b"")
        document, warnings = self._read(resource, request, body)
        prepare_update(document, old, resource=resource)
        return 200, self._finish(resource, request, old, document), warnings

    def _patch(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        kind = PatchType(request.content_type)
        schema = load(resource)
        old = self.objects.get(self._key(resource, request))
        if kind is PatchType.APPLY:
            return self._apply(resource, schema, request, old, body)
        if old is None:
            raise errors.not_found(resource.plural, resource.group, request.match_info["name"])
        document = apply_patch(schema, old, decoding.decode_json_value(body), kind)
        warnings = _complaints(resource, request, schema, document, [])
        prepare_update(document, old, resource=resource)
        return 200, self._finish(resource, request, old, document), warnings

    def _apply(
        self, resource: Resource, schema: Schema, request: web.Request, old: Document | None, body: bytes
    ) -> tuple[int, Document, list[str]]:
        applied, duplicates = decoding.decode_yaml(body)
        warnings = _complaints(resource, request, schema, applied, duplicates, partial=True)
        manager = request.query.get("fieldManager", "")
        document = apply(
            schema, old, applied, manager=manager, api_version=resource.api_version, subresource="",
            force=request.query.get("force") == "true", now=_now(),
        )  # fmt: skip
        if old is None:
            prepare_create(
                document, resource=resource, namespace=request.match_info.get("namespace", ""), uid=str(uuid.uuid4()),
                now=_now(), rng=self._rng,
            )  # fmt: skip
        else:
            prepare_update(document, old, resource=resource)
        return 201 if old is None else 200, self._store(resource, request, old, document), warnings

    def _delete(self, resource: Resource, request: web.Request, body: bytes) -> tuple[int, Document, list[str]]:
        _, old, _ = self._get(resource, request, b"")
        self.objects.pop(self._key(resource, request))
        return 200, old, []

    def _read(self, resource: Resource, request: web.Request, body: bytes) -> tuple[Document, list[str]]:
        duplicates: list[str] = []
        if request.content_type == MEDIA_TYPE:
            document = decode_protobuf(body)
        else:
            document, duplicates = decoding.decode_json(body)
        return document, _complaints(resource, request, load(resource), document, duplicates)

    def _finish(self, resource: Resource, request: web.Request, old: Document | None, document: Document) -> Document:
        apply_defaults(resource, document)
        track_update(
            load(resource), old, document, manager=request.query.get("fieldManager", "unknown"),
            api_version=resource.api_version, subresource="", now=_now(),
        )  # fmt: skip
        return self._store(resource, request, old, document)

    def _store(self, resource: Resource, request: web.Request, old: Document | None, document: Document) -> Document:
        apply_defaults(resource, document)
        metadata = document["metadata"]
        causes = validate(resource, document, old)
        if causes:
            raise errors.invalid(resource.kind, resource.group, metadata["name"], causes)
        document.setdefault("apiVersion", resource.api_version)
        if old is None or _without_version(old) != _without_version(document):
            self._revision += 1
            metadata["resourceVersion"] = str(self._revision)
        if "All" not in request.query.getall("dryRun", []):
            self.objects[resource.qualified, metadata.get("namespace", ""), metadata["name"]] = document
        return document


def _complaints(
    resource: Resource,
    request: web.Request,
    schema: Schema,
    document: Document,
    duplicates: Iterable[str],
    *,
    partial: bool = False,
) -> list[str]:
    found = pruning.conform(schema, document, partial=partial)
    if found.causes:
        raise pruning.malformed(resource, found.causes)
    complaints = found.unknown + pruning.duplicate_fields(list(duplicates))
    if complaints and request.query.get("fieldValidation") == "Strict":
        raise pruning.strict_error(resource, complaints)
    return complaints


def _without_version(document: Document) -> Document:
    copied: Document = copy_json(document)
    copied["metadata"].pop("resourceVersion", None)
    return copied


def _aggregated(document: Document) -> web.Response:
    return web.Response(text=json.dumps(document), headers={"Content-Type": discovery.AGGREGATED_MEDIA_TYPE})


def _now() -> datetime:
    return datetime.now(UTC)
