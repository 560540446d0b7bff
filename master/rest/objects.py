"""Reads and writes of objects: an HTTP request in, a call of the handlers, bytes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web
from multidict import MultiMapping

from kybern.api import errors
from kybern.api.protobuf import MEDIA_TYPE as PROTOBUF
from kybern.api.resources import Resource
from kybern.client.interface import PatchType
from kybern.clock import Clock
from master.apiserver.interface import Body, Deleted, Handlers, Target, User, Written
from master.rest import options
from master.rest.answers import Shape, respond, shape_of, show, show_list, success
from master.rest.negotiation import accepted

_BODIES = ("application/json", "application/yaml", PROTOBUF)
_YAML = ("application/yaml", "text/yaml", "application/x-yaml")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was found to be about a resource, and by whom."""

    request: web.BaseRequest
    user: User
    target: Target
    query: MultiMapping[str]

    @property
    def resource(self) -> Resource:
        """The resource."""
        return self.target.resource

    def shape(self) -> Shape:
        """How the client wants objects to be shown.

        Raises:
            StatusError: 406 when in no way that is served.
        """
        return shape_of(accepted(self.request.headers.get("Accept", "")), self.query)

    async def body(self) -> Body:
        """The body of a create or an update.

        Raises:
            StatusError: 415 for a format that is not understood.
        """
        content_type = self.request.headers.get("Content-Type", "") or "application/json"
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type in _YAML:
            media_type = _BODIES[1]
        elif media_type not in _BODIES:
            raise errors.unsupported_media_type(media_type, _BODIES)
        return Body(await self.request.read(), media_type)


class Objects:
    """The verbs on objects, but for watches and streams."""

    def __init__(self, handlers: Handlers, clock: Clock) -> None:
        self._handlers = handlers
        self._clock = clock
        self.verbs: Mapping[str, Callable[[Call], Awaitable[web.StreamResponse]]] = {
            "get": self.get,
            "list": self.list,
            "create": self.create,
            "update": self.update,
            "patch": self.patch,
            "delete": self.delete,
            "deletecollection": self.delete_collection,
        }

    async def get(self, call: Call) -> web.StreamResponse:
        """GET of an object or a subresource."""
        shape = call.shape()
        version = call.query.get("resourceVersion", "")
        data = await self._handlers.get(call.user, call.target, resource_version=version)
        return self._object(call, shape, data)

    async def list(self, call: Call) -> web.StreamResponse:
        """GET of a collection."""
        shape = call.shape()
        listed = await self._handlers.list(call.user, call.target, options.list_options(call.query))
        return respond(show_list(listed, call.resource, shape, self._clock.now()), pretty=shape.pretty)

    async def create(self, call: Call) -> web.StreamResponse:
        """POST to a collection, or to a subresource that is an action (binding, token)."""
        shape = call.shape()
        chosen = options.write_options(call.query, _agent(call))
        body = await call.body()
        written = await self._handlers.create(call.user, call.target, body, chosen)
        return self._written(call, shape, written, 201)

    async def update(self, call: Call) -> web.StreamResponse:
        """PUT."""
        shape = call.shape()
        chosen = options.write_options(call.query, _agent(call))
        written = await self._handlers.update(call.user, call.target, await call.body(), chosen)
        return self._written(call, shape, written, 200)

    async def patch(self, call: Call) -> web.StreamResponse:
        """PATCH, of the four kinds."""
        shape = call.shape()
        media_type = call.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        try:
            kind = PatchType(media_type)
        except ValueError:
            raise errors.unsupported_media_type(media_type, [str(t) for t in PatchType]) from None
        force = False
        if kind is PatchType.APPLY:
            chosen, force = options.apply_options(call.query)
        else:
            if options.boolean(call.query, "force"):
                raise errors.bad_request("the parameter force may not be given for patches other than apply")
            chosen = options.write_options(call.query, _agent(call))
        data = await call.request.read()
        written = await self._handlers.patch(call.user, call.target, kind, data, chosen, force=force)
        return self._written(call, shape, written, 200)

    async def delete(self, call: Call) -> web.StreamResponse:
        """DELETE of an object; 202 says that its dependents are deleted first."""
        shape = call.shape()
        chosen = options.delete_options(call.query, await self._delete_body(call))
        deleted = await self._handlers.delete(call.user, call.target, chosen)
        code = 202 if not deleted.gone and chosen.propagation == "Foreground" else 200
        return self._deleted(call, shape, deleted, code)

    async def delete_collection(self, call: Call) -> web.StreamResponse:
        """DELETE of a collection."""
        selection = options.list_options(call.query)
        chosen = options.delete_options(call.query, await self._delete_body(call))
        await self._handlers.delete_collection(call.user, call.target, selection, chosen)
        return respond(success(call.resource, "", b"", 200))

    async def _delete_body(self, call: Call) -> Body:
        # Clients name all sorts of types for the empty bodies of their deletions.
        data = await call.request.read()
        return Body(data, (await call.body()).content_type) if data else Body(b"")

    def _deleted(self, call: Call, shape: Shape, deleted: Deleted, code: int) -> web.Response:
        if deleted.gone and not call.resource.delete_returns_object:
            return respond(success(call.resource, call.target.name, deleted.document, code), code=code)
        return self._object(call, shape, deleted.document, code)

    def _written(self, call: Call, shape: Shape, written: Written, code: int) -> web.Response:
        data = show(written.document, call.resource, call.target.subresource, shape, self._clock.now())
        code = 201 if written.created else code
        return respond(data, code=code, pretty=shape.pretty, warnings=written.warnings)

    def _object(self, call: Call, shape: Shape, data: bytes, code: int = 200) -> web.Response:
        shown = show(data, call.resource, call.target.subresource, shape, self._clock.now())
        return respond(shown, code=code, pretty=shape.pretty)


def _agent(call: Call) -> str:
    return call.request.headers.get("User-Agent", "")
