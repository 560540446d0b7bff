"""Connections to the store's members, and which of them to use now.

A member that is stopped or cut off answers nothing and refuses nothing: its kernel goes on acknowledging. So while
anything waits for a member it is asked something cheap once a second, and all that waits for it goes elsewhere as soon
as it does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.pb.etcd import kv_pb2
from kybern.rpc.credentials import channel_credentials, open_channel
from kybern.tls import Stamp, stamp

log = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds: how long connecting and a probe's answer may take, and how long after one probe the next is made.
CONNECT_TIMEOUT = 1.0
PROBE_TIMEOUT = 1.0
PROBE_INTERVAL = 1.0

_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # Lists and batches of events may be large; the store bounds what one request may bring into it.
    ("grpc.max_receive_message_length", -1),
    # etcd ends connections that ping more often than every five seconds.
    ("grpc.keepalive_time_ms", 6_000),
]
# Reads nothing, from the member's own state: tells only that the member lives.
_PROBE = kv_pb2.RangeRequest(key=b"\0", count_only=True, serializable=True)


class EndpointFailed(Exception):  # noqa: N818 - an event that the caller goes on from
    """The member cannot be reached or has stopped answering. `sent` is False when nothing can have reached it."""

    def __init__(self, address: str, reason: str, *, sent: bool = True) -> None:
        super().__init__(f"{address}: {reason}")
        self.sent = sent


class Endpoint:
    """One member: its connection, and whether it answers."""

    def __init__(self, address: str, tls: Tls) -> None:
        self.address = address
        self._tls = tls
        # What the certificate's files were when the connection was made.
        self._stamp: Stamp = ()
        self._channel: grpc.aio.Channel | None = None
        self._users = 0
        self._monitor: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The connection, made when it is first needed."""
        if self._channel is None:
            self._stamp = stamp(self._tls)
            self._channel = open_channel(self.address, self._tls, _CHANNEL_OPTIONS)
        return self._channel

    async def connect(self) -> None:
        """Wait until there is a connection.

        Raises:
            EndpointFailed: when there is none in time.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self.channel.channel_ready()
        except StartupError as error:
            # The files of the certificate were there at the start; they may be in the middle of an exchange.
            raise EndpointFailed(self.address, str(error), sent=False) from error
        except (TimeoutError, grpc.aio.UsageError):
            # A usage error: somebody else found the member dead meanwhile and closed the connection.
            if self._channel is not None and stamp(self._tls) != self._stamp:
                # gRPC would go on trying with a certificate that may have expired.
                self.fail()
            raise EndpointFailed(self.address, "no connection", sent=False) from None

    async def run(self, work: Awaitable[T]) -> T:
        """Await something that this member is to answer, for as long as the member lives.

        Raises:
            EndpointFailed: when the member stopped answering.
        """
        async with self.watched() as failed:
            task = asyncio.ensure_future(work)
            waiter = asyncio.ensure_future(failed.wait())
            try:
                await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
                # Closing the connection cancels what waits on it: that is not a cancellation of the caller.
                if not task.done() or task.cancelled():
                    raise EndpointFailed(self.address, "it has stopped answering")
                return task.result()
            finally:
                waiter.cancel()
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task
                elif not task.cancelled():
                    # Looked at, for when this was cancelled in the moment in which it failed.
                    task.exception()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[asyncio.Event]:
        """Probe the member meanwhile; the event is set when it does not answer."""
        failed = self._failed
        self._users += 1
        if self._monitor is None:
            self._monitor = asyncio.create_task(self._probe())
        try:
            yield failed
        finally:
            self._users -= 1
            if self._users == 0 and self._monitor is not None:
                self._monitor.cancel()
                self._monitor = None

    def fail(self) -> None:
        """Tell all that waits for this member to go elsewhere, and begin anew with the next who comes."""
        self._failed.set()
        self._failed = asyncio.Event()
        if self._monitor is not None:
            self._monitor.cancel()
            self._monitor = None
        if self._channel is not None:
            _spawn(self._channel.close(None))
            self._channel = None

    async def close(self) -> None:
        """Close the connection."""
        if self._monitor is not None:
            self._monitor.cancel()
            await asyncio.gather(self._monitor, return_exceptions=True)
            self._monitor = None
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    async def _probe(self) -> None:
        ask = self.channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=kv_pb2.RangeRequest.SerializeToString,
            response_deserializer=kv_pb2.RangeResponse.FromString,
        )
        while True:
            await asyncio.sleep(PROBE_INTERVAL)
            try:
                await ask(_PROBE, timeout=PROBE_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                # Any answer is a sign of life, an error too.
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    continue
                log.debug("store member %s does not answer", self.address)
                self._monitor = None
                self.fail()
                return


class Endpoints:
    """All members; `current` is the one that is used until it fails.

    Raises:
        StartupError: when a file of `tls` cannot be read.
    """

    def __init__(self, addresses: Sequence[str], tls: Tls) -> None:
        if not addresses:
            raise ValueError("a store client needs the address of at least one member")
        # Better now than with the first call.
        channel_credentials(tls)
        self._tls = tls
        self._all = [Endpoint(address, tls) for address in addresses]
        self._at = 0

    @property
    def current(self) -> Endpoint:
        """The member to use now."""
        return self._all[self._at]

    def next(self, bad: Endpoint) -> None:
        """Use another member than `bad`, unless somebody has seen to it already."""
        if bad is self.current:
            self._at = (self._at + 1) % len(self._all)

    def learn(self, addresses: Sequence[str]) -> None:
        """Use these members as well, after those that are known when others fail; none is ever forgotten.

        A watch may be with any of them. One that has left the group costs an attempt now and then.
        """
        known = {endpoint.address for endpoint in self._all}
        new = [address for address in dict.fromkeys(addresses) if address not in known]
        if new:
            log.info("members of the store that the configuration does not name: %s", ", ".join(new))
            self._all += [Endpoint(address, self._tls) for address in new]

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self._all:
            await endpoint.close()


# The loop itself keeps only weak references to tasks.
_tasks: set[asyncio.Future[None]] = set()


def _spawn(work: Awaitable[None]) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
