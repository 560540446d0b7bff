"""The API over gRPC, from whichever of the masters answers.

Calls go round all masters that are connected. A master that hangs is noticed by unanswered pings within two and a half
seconds; reads are then sent to another one, writes fail with a transient error, because nobody knows whether they had
their effect, and whoever sends them again reaches another master. Watches end with a transient error likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
import msgspec

from kybern.api import errors
from kybern.api.errors import StatusError
from kybern.api.resources import Resource
from kybern.client.interface import (
    DEFAULT_OPTIONS,
    EventType,
    ListResult,
    PatchType,
    Propagation,
    WatchEvent,
    WriteOptions,
)
from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.pb.v1 import objects_pb2 as pb
from kybern.pb.v1 import objects_pb2_grpc
from kybern.rpc.credentials import open_channel
from kybern.rpc.errors import from_rpc
from kybern.rpc.objects import json_object, resource_message
from kybern.tls import stamp

log = logging.getLogger(__name__)

T = TypeVar("T")

# Pings of the client: a stopped master's kernel still acknowledges, so a ping without an answer means that it hangs.
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 1_500),
    ("grpc.http2.ping_timeout_ms", 1_500),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
]
# Seconds for a single call, and for finding a master that answers.
_CALL_TIMEOUT = 15.0
_CONNECT_TIMEOUT = 5.0
# Longest silence of a watch; bookmarks come at least every ten seconds.
_SILENCE = 20.0
# How long a master that could not answer is tried last.
_COOL = 2.0

_PATCH_TYPES: Mapping[PatchType, pb.PatchType.ValueType] = {
    PatchType.MERGE: pb.PATCH_TYPE_MERGE,
    PatchType.JSON: pb.PATCH_TYPE_JSON,
    PatchType.STRATEGIC: pb.PATCH_TYPE_STRATEGIC,
    PatchType.APPLY: pb.PATCH_TYPE_APPLY,
}
_EVENT_TYPES: Mapping[int, EventType] = {
    pb.WATCH_EVENT_TYPE_ADDED: EventType.ADDED,
    pb.WATCH_EVENT_TYPE_MODIFIED: EventType.MODIFIED,
    pb.WATCH_EVENT_TYPE_DELETED: EventType.DELETED,
    pb.WATCH_EVENT_TYPE_BOOKMARK: EventType.BOOKMARK,
}


class _Master:
    """One API server."""

    def __init__(self, address: str, tls: Tls) -> None:
        self.address = address
        self.stamp = stamp(tls)
        self.channel = open_channel(address, tls, _OPTIONS)
        self.stub: objects_pb2_grpc.ObjectsAsyncStub = objects_pb2_grpc.ObjectsStub(self.channel)
        # Loop time until which others are preferred.
        self.cool_until = 0.0

    @property
    def connected(self) -> bool:
        """Whether calls may be under way; asks for no connection."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    def state(self) -> grpc.ChannelConnectivity:
        """How the connection is now; asks for one if there is none."""
        return self.channel.get_state(try_to_connect=True)


_States = Sequence[tuple[_Master, grpc.ChannelConnectivity]]


class _Masters:
    """All API servers, and which to ask next."""

    def __init__(self, addresses: Sequence[str], tls: Tls) -> None:
        if not addresses:
            raise ValueError("a client needs the address of at least one API server")
        self._configured = self._addresses = list(addresses)
        self._tls = tls
        self._masters: list[_Master] = []
        # Whether it was said that none can be reached.
        self._away = False
        # Clients that start together do not begin with the same master.
        self._turn = itertools.count(random.randrange(len(addresses)))  # noqa: S311

    def __len__(self) -> int:
        return len(self._addresses)

    async def pick(self) -> _Master:
        """A connected master.

        Raises:
            StatusError: 503 when there is none for some seconds.
        """
        if not self._masters:
            self._masters = [_Master(a, self._tls) for a in self._addresses]
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                while True:
                    # Read once: a change between two readings would be waited for in vain.
                    states = [(m, m.state()) for m in self._masters]
                    if (found := self._next(states)) is not None:
                        return found
                    await _any_change(states)
        except TimeoutError:
            await self._renew()
            raise errors.unavailable(f"no API server can be reached ({', '.join(self._addresses)})") from None

    async def wait(self) -> _Master:
        """A connected master, however long that takes.

        Whoever waits is given one in the same moment: a node that was cut off must not know of its pods' deletion
        seconds before it knows that services no longer lead to them.
        """
        while True:
            try:
                found = await self.pick()
            except StatusError as error:
                if not self._away:
                    self._away = True
                    log.warning("%s; watches go on as soon as one is", error)
                continue
            if self._away:
                self._away = False
                log.info("the API server %s is reached again", found.address)
            return found

    async def _renew(self) -> None:
        """Begin connections anew that are none and whose certificate was exchanged: gRPC goes on with the old one."""
        now = stamp(self._tls)
        old = [m for m in self._masters if m.stamp != now and m.state() is not grpc.ChannelConnectivity.READY]
        with contextlib.suppress(StartupError):  # in the middle of an exchange: again after the next attempt
            self._masters = [_Master(m.address, self._tls) if m in old else m for m in self._masters]
            for master in old:
                await master.channel.close()

    async def learn(self, addresses: Sequence[str]) -> None:
        """Go by these as well as by the configured ones; whoever is none of them and not connected is forgotten."""
        self._addresses = list(dict.fromkeys([*self._configured, *addresses]))
        if not self._masters:
            return  # made when they are needed
        gone = [m for m in self._masters if m.address not in self._addresses and not m.connected]
        there = {m.address for m in self._masters}
        with contextlib.suppress(StartupError):  # in the middle of an exchange of the certificate: with the next ones
            new = [_Master(a, self._tls) for a in self._addresses if a not in there]
            self._masters = [m for m in self._masters if m not in gone] + new
            for master in gone:
                await master.channel.close()

    def _next(self, states: _States) -> _Master | None:
        now = asyncio.get_running_loop().time()
        connected = [m for m, state in states if state is grpc.ChannelConnectivity.READY]
        willing = [m for m in connected if m.cool_until <= now] or connected
        return willing[next(self._turn) % len(willing)] if willing else None

    def failed(self, master: _Master) -> None:
        """A master could not answer; prefer others for a while."""
        master.cool_until = asyncio.get_running_loop().time() + _COOL

    async def close(self) -> None:
        """Close the connections."""
        for master in self._masters:
            await master.channel.close()


async def _any_change(states: _States) -> None:
    """Wait until some connection is no longer as it was."""
    tasks = [asyncio.ensure_future(m.channel.wait_for_state_change(state)) for m, state in states]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class GrpcClient:
    """Implements `kybern.client.interface.Client` over kybern.v1.Objects."""

    def __init__(self, addresses: Sequence[str], tls: Tls) -> None:
        self._masters = _Masters(addresses, tls)

    async def learn(self, addresses: Sequence[str]) -> None:
        """Ask the API servers at these addresses too, instead of those that were learnt before."""
        await self._masters.learn(addresses)

    async def close(self) -> None:
        """Close the connections."""
        await self._masters.close()

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> bytes:
        """As `Client.get`."""
        request = pb.GetRequest(
            resource=resource_message(resource),
            namespace=namespace,
            name=name,
            subresource=subresource,
            encoding=pb.ENCODING_JSON,
        )
        answer: pb.Object = await self._call(lambda m: m.stub.Get(request, timeout=_CALL_TIMEOUT), again=True)
        return answer.json

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> ListResult:
        """As `Client.list`."""
        request = pb.ListRequest(
            resource=resource_message(resource),
            namespace=namespace,
            label_selector=labels,
            field_selector=fields,
            encoding=pb.ENCODING_JSON,
        )

        async def read(master: _Master) -> ListResult:
            items: list[bytes] = []
            revision = 0
            async for page in master.stub.List(request, timeout=_CALL_TIMEOUT * 4):
                items += [o.json for o in page.items]
                revision = int(page.resource_version)
            return ListResult(items, revision)

        return await self._call(read, again=True)

    async def watch(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "", since: int
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """As `Client.watch`."""
        request = pb.WatchRequest(
            resource=resource_message(resource),
            namespace=namespace,
            label_selector=labels,
            field_selector=fields,
            resource_version=str(since),
            allow_bookmarks=True,
            encoding=pb.ENCODING_JSON,
        )
        master = await self._masters.wait()
        call = master.stub.Watch(request)
        try:
            while True:
                async with asyncio.timeout(_SILENCE):
                    message = await call.read()
                if not isinstance(message, pb.WatchResponse):
                    raise errors.unavailable("the API server has ended the watch")
                if message.events:
                    yield [_event(e) for e in message.events]
        except TimeoutError:
            self._masters.failed(master)
            raise errors.unavailable(f"the API server {master.address} has fallen silent") from None
        except grpc.aio.AioRpcError as error:
            raise self._failed(master, error) from error
        finally:
            call.cancel()

    async def create(
        self,
        resource: Resource,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        name: str = "",
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.create`."""
        request = pb.CreateRequest(
            resource=resource_message(resource),
            namespace=namespace,
            name=name,
            subresource=subresource,
            object=json_object(document),
            options=_options(options),
            encoding=pb.ENCODING_JSON,
        )
        answer: pb.Object = await self._call(lambda m: m.stub.Create(request, timeout=_CALL_TIMEOUT))
        return answer.json

    async def update(
        self,
        resource: Resource,
        name: str,
        document: Mapping[str, Any],
        namespace: str = "",
        *,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.update`."""
        request = pb.UpdateRequest(
            resource=resource_message(resource),
            namespace=namespace,
            name=name,
            subresource=subresource,
            object=json_object(document),
            options=_options(options),
            encoding=pb.ENCODING_JSON,
        )
        answer: pb.Object = await self._call(lambda m: m.stub.Update(request, timeout=_CALL_TIMEOUT))
        return answer.json

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Any],
        namespace: str = "",
        *,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's word
        subresource: str = "",
        force: bool = False,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.patch`."""
        request = pb.PatchRequest(
            resource=resource_message(resource),
            namespace=namespace,
            name=name,
            subresource=subresource,
            type=_PATCH_TYPES[type],
            patch=msgspec.json.encode(patch),
            force=force,
            options=_options(options),
            encoding=pb.ENCODING_JSON,
        )
        answer: pb.Object = await self._call(lambda m: m.stub.Patch(request, timeout=_CALL_TIMEOUT))
        return answer.json

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: Propagation | None = None,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> bytes:
        """As `Client.delete`."""
        request = pb.DeleteRequest(
            resource=resource_message(resource),
            namespace=namespace,
            name=name,
            propagation_policy=propagation or "",
            preconditions=pb.Preconditions(uid=uid, resource_version=resource_version),
            options=_options(options),
            encoding=pb.ENCODING_JSON,
        )
        if grace_seconds is not None:
            request.grace_period_seconds = grace_seconds
        answer: pb.DeleteResponse = await self._call(lambda m: m.stub.Delete(request, timeout=_CALL_TIMEOUT))
        return answer.object.json

    # --- within

    async def _call(self, call: Callable[[_Master], Awaitable[T]], *, again: bool = False) -> T:
        """Ask a master; with `again` ask further ones while that fails for reasons that are not the request's."""
        attempts = len(self._masters) + 1 if again else 1
        while True:
            attempts -= 1
            master = await self._masters.pick()
            try:
                return await call(master)
            except grpc.aio.AioRpcError as error:
                failure = self._failed(master, error)
                if attempts <= 0 or failure.code != 503:
                    raise failure from error
                log.debug("%s could not answer (%s), asking another master", master.address, failure)

    def _failed(self, master: _Master, error: grpc.aio.AioRpcError) -> StatusError:
        failure = from_rpc(error)
        if failure.transient:
            self._masters.failed(master)
        return failure


def _options(options: WriteOptions) -> pb.WriteOptions:
    message = pb.WriteOptions(dry_run=options.dry_run, field_manager=options.field_manager)
    if options.fence is not None:
        message.fence.namespace = options.fence.namespace
        message.fence.name = options.fence.name
        message.fence.revision = options.fence.revision
    return message


def _event(event: pb.WatchEvent) -> WatchEvent:
    kind = _EVENT_TYPES[event.type]
    return WatchEvent(kind, b"" if kind is EventType.BOOKMARK else event.object.json, event.revision)
