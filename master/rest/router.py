"""From a request to whoever answers it: who asks, what the path names, which verb that is."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from kybern.api import errors
from kybern.api.errors import StatusError
from kybern.api.resources import Resource
from kybern.clock import Clock
from master.apiserver.interface import ANONYMOUS, SYSTEM_MASTERS, Handlers, Target, User
from master.rest import options, paths
from master.rest.answers import respond_error
from master.rest.connection import Sessions
from master.rest.documents import ApiDocuments
from master.rest.identity import Identifier
from master.rest.metrics import Metrics
from master.rest.objects import Call, Objects
from master.rest.watches import Watches

log = logging.getLogger(__name__)

Answer = Callable[[Call], Awaitable[web.StreamResponse]]

_COLLECTION_VERBS = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
_OBJECT_VERBS = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCE_VERBS = {**_OBJECT_VERBS, "POST": "create"}
_READERS_OF_METRICS = frozenset({SYSTEM_MASTERS, "system:monitoring", "kybern:masters"})


class Router:
    """The one handler of the HTTP server. `streams` answers the subresources that are not documents."""

    def __init__(
        self,
        handlers: Handlers,
        identifier: Identifier,
        objects: Objects,
        watches: Watches,
        documents: ApiDocuments,
        streams: Mapping[str, Answer],
        sessions: Sessions,
        ready: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._handlers = handlers
        self._identifier = identifier
        self._objects = objects
        self._watches = watches
        self._documents = documents
        self._streams = streams
        self._sessions = sessions
        self._ready = ready
        self._clock = clock
        self._metrics = Metrics()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, whatever happens."""
        started = self._clock.monotonic()
        seen = _Seen()
        try:
            response = await self._dispatch(request, seen)
        except StatusError as error:
            response = respond_error(error)
        except web.HTTPRequestEntityTooLarge:
            response = respond_error(errors.too_large("the body of the request is larger than 3 MiB"))
            response.force_close()
        except ConnectionError:
            # The client is gone; there is nobody to answer.
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            if request.writer.output_size > 0:
                raise ConnectionResetError("the answer had begun already") from None
            response = respond_error(errors.internal("the request could not be handled; the server's log says why"))
        seconds = None if seen.lasting else self._clock.monotonic() - started
        self._metrics.observe(seen.verb, seen.resource, response.status, seconds)
        return response

    async def _dispatch(self, request: web.BaseRequest, seen: _Seen) -> web.StreamResponse:
        path = paths.parse(request.rel_url.raw_path)
        if isinstance(path, paths.OtherPath):
            return await self._other(request, path.path)
        user = await self._identifier.user(request)
        if user is ANONYMOUS:
            raise errors.unauthorized()
        if isinstance(path, paths.ResourcePath):
            return await self._resource(request, user, path, seen)
        if path is None:
            raise errors.no_such_path()
        _only_get(request)
        return self._documents.group(request, path)

    async def _resource(
        self, request: web.BaseRequest, user: User, path: paths.ResourcePath, seen: _Seen
    ) -> web.StreamResponse:
        resource = self._handlers.registry.find(path.group, path.version, path.plural)
        if resource is None or (path.namespace and not resource.namespaced):
            raise errors.no_such_path()
        query = request.rel_url.query
        verb = _verb(request.method, resource, path)
        if verb == "list" and "watch" in query and options.boolean(query, "watch"):
            verb = "watch"
        seen.verb, seen.resource = verb, resource.plural
        target = Target(resource, path.namespace, path.name, path.subresource)
        call = Call(request, user, target, query)
        stream = self._streams.get(path.subresource) if resource.group == "" and resource.plural == "pods" else None
        if stream is not None:
            seen.lasting = True
            return await stream(call)
        if verb == "watch":
            seen.lasting = True
            return await self._watches.watch(call)
        return await self._objects.verbs[verb](call)

    async def _other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path in ("/healthz", "/livez"):
            return web.Response(text="ok")
        if path == "/readyz":
            ready = self._ready()
            return web.Response(text="ok" if ready else "not ready", status=200 if ready else 500)
        if path == "/version":
            _only_get(request)
            return self._documents.version(request)
        user = await self._identifier.user(request)
        if user is ANONYMOUS:
            raise errors.unauthorized()
        if path == "/openapi/v3" or path.startswith("/openapi/v3/"):
            _only_get(request)
            return self._documents.openapi(request, path.removeprefix("/openapi/v3").strip("/"))
        if path == "/openapi/v2":
            _only_get(request)
            return self._documents.openapi_v2()
        if path == "/metrics":
            if _READERS_OF_METRICS.isdisjoint(user.groups):
                raise errors.forbidden("", "", "", f'User "{user.name}" cannot get path "/metrics"')
            body = self._metrics.render(len(self._sessions))
            return web.Response(body=body, headers={"Content-Type": Metrics.media_type})
        if path == "/":
            return _root()
        raise errors.no_such_path()


class _Seen:
    """What a request was about, for the figures."""

    __slots__ = ("lasting", "resource", "verb")

    def __init__(self) -> None:
        self.verb, self.resource, self.lasting = "", "", False


def _verb(method: str, resource: Resource, path: paths.ResourcePath) -> str:
    """The API's verb for a method on a path.

    Raises:
        StatusError: 404 when there is no such path, 405 when nothing of the kind can be done there.
    """
    if path.subresource:
        found = resource.subresource(path.subresource)
        if found is None or (resource.namespaced and not path.namespace):
            raise errors.no_such_path()
        verb = _SUBRESOURCE_VERBS.get(method, "")
        allowed = verb in found.verbs
    elif path.name:
        if resource.namespaced and not path.namespace:
            raise errors.no_such_path()
        verb = _OBJECT_VERBS.get(method, "")
        allowed = verb in resource.verbs
    else:
        verb = _COLLECTION_VERBS.get(method, "")
        # Over all namespaces at once there is nothing but reading.
        allowed = verb in resource.verbs and (verb == "list" or bool(path.namespace) or not resource.namespaced)
    if not allowed:
        raise errors.method_not_allowed(verb or method, resource.plural, resource.group)
    return verb


def _only_get(request: web.BaseRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        message = "the server does not allow this method on the requested resource"
        raise StatusError(405, errors.Reason.METHOD_NOT_ALLOWED, message)


def _root() -> web.Response:
    listed = ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]
    return web.json_response({"paths": listed})
