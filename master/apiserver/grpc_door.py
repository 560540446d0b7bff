"""The gRPC door: kybern.v1.Objects onto the handlers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import grpc.aio

from kybern.api import errors
from kybern.api.errors import StatusError
from kybern.client.interface import EventType, Fence, PatchType, WatchEvent
from kybern.pb.v1 import objects_pb2 as pb
from kybern.pb.v1 import objects_pb2_grpc
from kybern.rpc.credentials import peer_identity
from kybern.rpc.errors import abort
from kybern.rpc.objects import body_schema, from_object, to_object
from master.apiserver.grpc_writes import WriteStream
from master.apiserver.handlers import ApiHandlers
from master.apiserver.interface import (
    Body,
    DeleteOptions,
    ListOptions,
    Target,
    User,
    WatchOptions,
    WriteOptions,
)
from master.auth import users

log = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")
Context = grpc.aio.ServicerContext[Any, Any]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["Objects"].full_name

# Bytes of JSON per message. gRPC's own bound is 4 MiB; a Struct takes up to twice the bytes of its JSON.
_PAGE_BYTES = {pb.ENCODING_JSON: 2 << 20, pb.ENCODING_FIELDS: 1 << 20}
_PAGE_ITEMS = 1000

_PATCH_TYPES = {
    pb.PATCH_TYPE_MERGE: PatchType.MERGE,
    pb.PATCH_TYPE_JSON: PatchType.JSON,
    pb.PATCH_TYPE_STRATEGIC: PatchType.STRATEGIC,
    pb.PATCH_TYPE_APPLY: PatchType.APPLY,
}
_EVENT_TYPES = {
    EventType.ADDED: pb.WATCH_EVENT_TYPE_ADDED,
    EventType.MODIFIED: pb.WATCH_EVENT_TYPE_MODIFIED,
    EventType.DELETED: pb.WATCH_EVENT_TYPE_DELETED,
    EventType.BOOKMARK: pb.WATCH_EVENT_TYPE_BOOKMARK,
}


class ObjectsDoor(objects_pb2_grpc.ObjectsServicer):
    """Implements the service. Who asks is what the client's certificate says."""

    def __init__(self, handlers: ApiHandlers) -> None:
        self._handlers = handlers

    async def Get(self, request: pb.GetRequest, context: Context) -> pb.Object:  # noqa: N802 - gRPC's names
        """As objects.proto says."""
        async with _answering(context):
            target = self._target(request.resource, request.namespace, request.name, request.subresource)
            raw = await self._handlers.get(user_of(context), target, resource_version=request.resource_version)
            return to_object(raw, request.encoding)

    async def List(self, request: pb.ListRequest, context: Context) -> AsyncIterator[pb.ListResponse]:  # noqa: N802
        """As objects.proto says."""
        async with _answering(context):
            options = ListOptions(
                labels=request.label_selector,
                fields=request.field_selector,
                resource_version=request.resource_version,
                resource_version_match=request.resource_version_match,
                limit=request.limit,
                continue_token=getattr(request, "continue"),
            )
            target = self._target(request.resource, request.namespace)
            listed = await self._handlers.list(user_of(context), target, options)
            pages = list(_pages(listed.items, _PAGE_BYTES[request.encoding]))
            for number, page in enumerate(pages):
                items = [to_object(raw, request.encoding) for raw in page]
                response = pb.ListResponse(items=items, resource_version=str(listed.revision))
                if number + 1 == len(pages):
                    setattr(response, "continue", listed.continue_token)
                    response.remaining_item_count = listed.remaining or 0
                yield response

    async def Create(self, request: pb.CreateRequest, context: Context) -> pb.Object:  # noqa: N802
        """As objects.proto says."""
        return await self._unary(context, self.create, request)

    async def Update(self, request: pb.UpdateRequest, context: Context) -> pb.Object:  # noqa: N802
        """As objects.proto says."""
        return await self._unary(context, self.update, request)

    async def Patch(self, request: pb.PatchRequest, context: Context) -> pb.Object:  # noqa: N802
        """As objects.proto says."""
        return await self._unary(context, self.patch, request)

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:  # noqa: N802
        """As objects.proto says."""
        return await self._unary(context, self.delete, request)

    async def DeleteCollection(  # noqa: N802
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        """As objects.proto says."""
        async with _answering(context):
            target = self._target(request.resource, request.namespace)
            if target.resource.namespaced and not request.namespace:
                raise errors.bad_request("a namespace is needed to delete a collection of a namespaced resource")
            selection = ListOptions(labels=request.label_selector, fields=request.field_selector)
            options = DeleteOptions(
                grace_seconds=request.grace_period_seconds if request.HasField("grace_period_seconds") else None,
                propagation=request.propagation_policy,
                write=_write_options(request.options),
            )
            deleted = await self._handlers.delete_collection(user_of(context), target, selection, options)
            return pb.DeleteCollectionResponse(count=len(deleted))

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:  # noqa: N802
        """As objects.proto says. The first message is empty: it tells that the watch has begun."""
        async with _answering(context):
            options = WatchOptions(
                labels=request.label_selector,
                fields=request.field_selector,
                resource_version=request.resource_version,
                bookmarks=request.allow_bookmarks,
                send_initial_events=request.send_initial_events,
            )
            target = self._target(request.resource, request.namespace)
            async with aclosing(self._handlers.watch(user_of(context), target, options)) as batches:
                async for events in batches:
                    for page in _event_pages(events, _PAGE_BYTES[request.encoding]):
                        yield pb.WatchResponse(events=[_event(e, request.encoding) for e in page])

    async def Write(  # noqa: N802
        self, request_iterator: AsyncIterator[pb.WriteRequests], context: Context
    ) -> AsyncIterator[pb.WriteResponses]:
        """As objects.proto says."""
        async with aclosing(WriteStream(self, user_of(context)).run(request_iterator)) as responses:
            async for response in responses:
                yield response

    # --- single writes, for calls of their own and for the stream

    async def create(self, user: User, request: pb.CreateRequest) -> pb.Object:
        """Create an object, or post to a subresource."""
        target = self._target(request.resource, request.namespace, request.name, request.subresource)
        body = Body(from_object(request.object, body_schema(target.resource, target.subresource)))
        written = await self._handlers.create(user, target, body, _write_options(request.options))
        return to_object(written.document, request.encoding)

    async def update(self, user: User, request: pb.UpdateRequest) -> pb.Object:
        """Replace an object."""
        target = self._target(request.resource, request.namespace, request.name, request.subresource)
        body = Body(from_object(request.object, body_schema(target.resource, target.subresource)))
        written = await self._handlers.update(user, target, body, _write_options(request.options))
        return to_object(written.document, request.encoding)

    async def patch(self, user: User, request: pb.PatchRequest) -> pb.Object:
        """Change an object."""
        target = self._target(request.resource, request.namespace, request.name, request.subresource)
        kind = _PATCH_TYPES.get(request.type)
        if kind is None:
            raise errors.bad_request(f"there is no patch type {request.type}")
        options = _write_options(request.options)
        written = await self._handlers.patch(user, target, kind, request.patch, options, force=request.force)
        return to_object(written.document, request.encoding)

    async def delete(self, user: User, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Delete an object."""
        target = self._target(request.resource, request.namespace, request.name)
        options = DeleteOptions(
            grace_seconds=request.grace_period_seconds if request.HasField("grace_period_seconds") else None,
            propagation=request.propagation_policy,
            uid=request.preconditions.uid,
            resource_version=request.preconditions.resource_version,
            write=_write_options(request.options),
        )
        deleted = await self._handlers.delete(user, target, options)
        return pb.DeleteResponse(object=to_object(deleted.document, request.encoding), gone=deleted.gone)

    async def _unary(
        self, context: Context, call: Callable[[User, RequestT], Awaitable[AnswerT]], request: RequestT
    ) -> AnswerT:
        async with _answering(context):
            return await call(user_of(context), request)

    def _target(self, named: pb.Resource, namespace: str, name: str = "", subresource: str = "") -> Target:
        resource = self._handlers.registry.find(named.group, named.version or "v1", named.resource)
        if resource is None:
            raise errors.no_such_path()
        return Target(resource, namespace if resource.namespaced else "", name, subresource)


def user_of(context: Context) -> User:
    """Who makes a call."""
    return users.of_identity(peer_identity(context))


@asynccontextmanager
async def _answering(context: Context) -> AsyncIterator[None]:
    """Turns errors into the call's status."""
    try:
        yield
    except StatusError as error:
        await abort(context, error)
    except (grpc.aio.AbortError, GeneratorExit):
        raise
    except Exception:
        log.exception("a call failed for a reason that the API server does not know")
        await abort(context, errors.internal("see the log of this API server"))


def _write_options(options: pb.WriteOptions) -> WriteOptions:
    fence = None
    if options.HasField("fence"):
        fence = Fence(options.fence.namespace, options.fence.name, options.fence.revision)
    return WriteOptions(options.dry_run, options.field_manager, options.field_validation, fence)


def _event(event: WatchEvent, encoding: pb.Encoding.ValueType) -> pb.WatchEvent:
    message = pb.WatchEvent(type=_EVENT_TYPES[event.type], revision=event.revision)
    message.object.CopyFrom(to_object(event.object, encoding))
    return message


def _pages(items: Sequence[bytes], limit: int) -> Iterator[list[bytes]]:
    """Cut a list into pages; one empty page when there is nothing."""
    page: list[bytes] = []
    size = 0
    for raw in items:
        if page and (size + len(raw) > limit or len(page) >= _PAGE_ITEMS):
            yield page
            page, size = [], 0
        page.append(raw)
        size += len(raw)
    yield page


def _event_pages(events: Sequence[WatchEvent], limit: int) -> Iterator[list[WatchEvent]]:
    page: list[WatchEvent] = []
    size = 0
    for event in events:
        if page and (size + len(event.object) > limit or len(page) >= _PAGE_ITEMS):
            yield page
            page, size = [], 0
        page.append(event)
        size += len(event.object)
    yield page
